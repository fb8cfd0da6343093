"""The stages as plain functions: artifacts in, one artifact out, no Ray."""
