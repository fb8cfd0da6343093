"""Batches, one optimisation step, the outer loop and its checkpoints. One code path for one rank and many."""
