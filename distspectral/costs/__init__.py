"""What a stage costs, as formulas over measured rates and machines; each stage declares its own with these words."""
