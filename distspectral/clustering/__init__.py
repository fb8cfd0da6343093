"""Clusters in the calibrated embedding: how many, where, how they nest, and which of an earlier run they are."""
