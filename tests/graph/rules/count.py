"""Counts what the rules are tried on: `python -m tests.graph.rules.count`."""

from __future__ import annotations

from tests.graph.rules.check import count_points
from tests.graph.rules.grid import GRID


def totals() -> str:
    """Rules, combinations and points, as the documentation has them."""
    combinations = [c for found in GRID.values() for c in found]
    typed = sum(len(c.types) for c in combinations)
    points = sum(len(c.types) * count_points(c) for c in combinations)
    return f"{len(GRID)} rules, {typed:,} combinations of attributes and types, {points:,} points"


if __name__ == "__main__":
    print(totals())
