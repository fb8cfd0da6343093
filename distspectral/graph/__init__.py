"""Who is whose neighbour, and how much that weighs: search, merge, storage and connectivity of the kNN graph."""
