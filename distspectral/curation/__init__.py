"""What the rows of a finished run are good for: near-duplicates found, balanced samples drawn; no Ray."""
