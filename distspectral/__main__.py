"""``python -m distspectral`` is the command ``distspectral``."""

from distspectral.cli import main

main()
