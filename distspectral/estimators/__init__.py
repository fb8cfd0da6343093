"""scikit-learn interfaces: arrays in memory, one process, no Ray."""
