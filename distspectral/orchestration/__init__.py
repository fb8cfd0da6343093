"""The stages under Ray: same functions, other hands. The maths below knows nothing of this package."""
