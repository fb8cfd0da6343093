"""A finished run outside this package: one module, exported programs, an HTTP service."""
