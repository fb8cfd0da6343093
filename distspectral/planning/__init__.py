"""What a run will cost before it runs: rates measured on a sample, machines, prices, and every stage's bill."""
