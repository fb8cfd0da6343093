"""The mathematics on tensors: local sums in, global sums consumed. Imports torch and NumPy only."""
