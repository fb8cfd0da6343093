"""The user's shards: formats, listing, what is read of them and what is refused. Imports rows."""
