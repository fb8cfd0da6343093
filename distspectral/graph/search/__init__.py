"""Nearest neighbours: exact, or through overlapping cells."""
