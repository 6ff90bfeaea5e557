"""What a command says on its standard error beside what it is doing."""

from __future__ import annotations


def complaints(text: str) -> str:
    """The lines that are no progress, which only a slow machine shows."""
    return "".join(line for line in text.splitlines(True) if not line.endswith(" ...\n"))
