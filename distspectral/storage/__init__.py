"""Bytes in and out: source shards, artifacts and their manifests. Only this package imports pyarrow."""
