"""Branching on ReLUs for whole layers: several processes do what one does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnx_exact.budgets import BUDGETS
from onnx_exact.decide.branching import Splitter
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.options import Options
from onnx_exact.decide.propagate import Layers
from onnx_exact.decide.verdict import Status
from onnx_exact.network import Affine, Chain
from onnx_exact.network.query import Query
from tests.nets import MOST, cube, random_chain, statuses, wrong_verdicts
from tests.oracle.regions import enumerate_regions


def options(jobs: int, nodes_alone: int) -> Options:
    """Processes start after so many nodes."""
    return Options(jobs=jobs, budgets=replace(BUDGETS, relu_alone=nodes_alone))


def settled(chain: Chain, jobs: int) -> tuple[Knowledge, list[int]]:
    """All open signs of all layers asked for; and the layers that were told of."""
    knowledge, told = Knowledge(chain, cube(chain.n_in, -1.0, 1.0)), list[int]()
    layers, splitter = Layers(knowledge), Splitter(knowledge, options(jobs, 0), told.append)
    for index in knowledge.relu_layers:
        layers.refresh(index)
        if index:
            splitter.settle(knowledge.open_queries(index), layers.below(index), MOST)
    return knowledge, told


def proved(knowledge: Knowledge) -> list[tuple[int, int, bool, list[int]]]:
    """The signs that trees exclude, in order, and the trees' splits."""
    return [
        (t.layer, int(t.units[0]), bool(t.positive[0]), t.splits.tolist()) for t in knowledge.trees
    ]


def test_several_processes_come_to_the_same_verdicts() -> None:
    chain = random_chain(0, 4, 8, 8, 20, shift=0.5)
    (alone, _), (together, told) = settled(chain, jobs=1), settled(chain, jobs=2)
    assert len(told) >= 6
    assert len(proved(alone)) >= 4
    assert proved(together) == proved(alone)
    assert statuses(together.freeze()) == statuses(alone.freeze())
    np.testing.assert_array_equal(together.witnesses, alone.witnesses)
    assert not wrong_verdicts(together.freeze(), enumerate_regions(chain, together.box))


@pytest.mark.parametrize("nodes_alone", [0, MOST])
def test_a_layer_is_left_after_so_many_failures_in_a_row(nodes_alone: int) -> None:
    """Of copies of a unit that there are no nodes for, few are tried."""
    tent = Affine(np.ones((3, 1)), np.array([0.0, -0.5, -1.0]))
    copies = 16 * BUDGETS.relu_failures
    heights = Affine(np.tile([[2.0, -4.0, 2.0]], (copies, 1)), np.full(copies, -1.0625))
    knowledge = Knowledge(Chain.of([tent, heights], relu_at_end=True), cube(1, -1.0, 2.0))
    layers, told = Layers(knowledge), list[int]()
    layers.refresh(1)
    splitter = Splitter(knowledge, options(2, nodes_alone), told.append)
    queries = [Query(1, unit, positive=True) for unit in range(copies)]
    splitter.settle(queries, layers.below(1), most=1)
    # Others may have begun before the last failure was known.
    assert BUDGETS.relu_failures <= len(told) <= copies / 2
    assert (knowledge.status(1) == Status.UNDECIDED).sum() == copies
