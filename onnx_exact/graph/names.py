"""Names that are free in a graph."""

from __future__ import annotations

from collections.abc import Iterable


class Names:
    """Hands out names that nobody else has."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    def claim(self, wish: str) -> str:
        """`wish`, or `wish` with the first free number behind it."""
        name, count = wish, 0
        while not name or name in self._taken:
            count += 1
            name = f"{wish or 'tensor'}_{count}"
        self._taken.add(name)
        return name
