"""Texts of a user's, such as labels, where they are shown."""

from __future__ import annotations


def printable(text: object, longest: int) -> str:
    """Return a text in one line that no terminal obeys, cut to ``longest`` characters."""
    line = "".join(letter if letter.isprintable() else " " for letter in str(text)).strip()
    return line if len(line) <= longest else line[: longest - 1] + "…"
