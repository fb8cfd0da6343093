from __future__ import annotations

from distspectral.text import plural


def test_one_has_no_plural() -> None:
    assert (plural(1, "row"), plural(70_000, "row")) == ("1 row", "70,000 rows")
