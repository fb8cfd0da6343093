"""What ``distspectral bench NAME`` runs: our results beside their baselines, in one run."""
