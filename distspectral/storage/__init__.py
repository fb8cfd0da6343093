"""Bytes in and out: source shards, artifacts and their manifests."""
