"""Rows by number: packed shards, memory-mapped vectors, arrays. Imports artifact, never source."""
