"""Rows by number: packed shards, memory-mapped vectors, arrays."""
