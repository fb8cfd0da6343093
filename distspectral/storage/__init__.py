"""Bytes in and out, in three rooms: source imports rows, rows imports artifact, never the other way."""
