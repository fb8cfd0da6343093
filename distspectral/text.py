"""Words where they are shown: a user's own, such as labels, and ours of a number."""

from __future__ import annotations


def printable(text: object, longest: int) -> str:
    """Return a text in one line that no terminal obeys, cut to ``longest`` characters."""
    line = "".join(letter if letter.isprintable() else " " for letter in str(text)).strip()
    return line if len(line) <= longest else line[: longest - 1] + "…"


def plural(value: int, word: str) -> str:
    """Return ``1 cluster`` or ``10 clusters``."""
    return f"{value:,} {word}" if value == 1 else f"{value:,} {word}s"
