"""The map of a finished run as a pyramid of Parquet tiles, for viewers that cannot take all rows at once; no Ray."""
