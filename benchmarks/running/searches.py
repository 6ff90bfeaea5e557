"""Counts what the tool's own searches spend on every sign, while it decides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from onnx_exact.attack import evolution
from onnx_exact.attack.pgd import Effort
from onnx_exact.decide import rounds, searches
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.network.query import Query


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
    counted = Searches()

    def search_layer(knowledge: Knowledge, layer: int, effort: Effort, *rest: Any) -> float:
        positive, negative = knowledge.open_signs(layer)
        signs = positive.astype(np.int64) + negative
        counted.add(knowledge, layer, signs * (effort.points * effort.steps))
        return searches.search_layer(knowledge, layer, effort, *rest)

    def evolve_query(knowledge: Knowledge, query: Query, *rest: Any) -> None:
        steps = np.zeros(knowledge.chain.layers[query.layer].width, dtype=np.int64)
        steps[query.unit] = evolution.POINTS * evolution.GENERATIONS * evolution.RESTARTS
        counted.add(knowledge, query.layer, steps)
        searches.evolve_query(knowledge, query, *rest)

    with patch.multiple(rounds, search_layer=search_layer, evolve_query=evolve_query):
        yield counted
