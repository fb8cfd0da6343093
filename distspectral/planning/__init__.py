"""What a run will cost before it runs: rates measured on a sample, formulas, machines and prices."""
