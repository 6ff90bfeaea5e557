"""Counts what the tool's own searches spend on every sign, while it decides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from onnx_exact.attack import evolution as evolve
from onnx_exact.attack import pgd as search
from onnx_exact.attack.pgd import Effort
from onnx_exact.decide import run as decide
from onnx_exact.decide.knowledge import Knowledge


class Searches:
    """Steps that were meant for each unit, both signs together, by the index of its layer.

    A search that ends early counts in full.
    """

    def __init__(self) -> None:
        self.steps: dict[int, NDArray[np.int64]] = {}

    def add(self, knowledge: Knowledge, layer: int, steps: NDArray[np.int64]) -> None:
        """Books steps for the units of a layer."""
        width = knowledge.chain.layers[layer].width
        self.steps.setdefault(layer, np.zeros(width, dtype=np.int64))
        self.steps[layer] += steps


@contextmanager
def searches_counted() -> Iterator[Searches]:
    """Within it, every search of `analyze_chain` is counted."""
    searches = Searches()

    def search_layer(knowledge: Knowledge, layer: int, effort: Effort, *rest: Any) -> int:
        positive, negative = knowledge.open_signs(layer)
        signs = positive.astype(np.int64) + negative
        searches.add(knowledge, layer, signs * (effort.points * effort.steps))
        return search.search_layer(knowledge, layer, effort, *rest)

    def evolve_sign(knowledge: Knowledge, layer: int, unit: int, *rest: Any) -> bool:
        steps = np.zeros(knowledge.chain.layers[layer].width, dtype=np.int64)
        steps[unit] = evolve.POINTS * evolve.GENERATIONS * evolve.RESTARTS
        searches.add(knowledge, layer, steps)
        return evolve.evolve_sign(knowledge, layer, unit, *rest)

    with patch.multiple(decide, search_layer=search_layer, evolve_sign=evolve_sign):
        yield searches
