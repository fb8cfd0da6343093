"""What a training step minimises: sums over this rank, then a surrogate whose gradient is the global one's."""
