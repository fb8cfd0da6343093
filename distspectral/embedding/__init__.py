"""Rows through a finished model: what is written of them, shard by shard."""
