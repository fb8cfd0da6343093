"""Networks that know no ranks, and the orthonormalisation layer."""
