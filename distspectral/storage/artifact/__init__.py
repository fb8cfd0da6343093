"""Directories that a stage writes: each file whole or absent, the manifest last. Imports no other room."""
