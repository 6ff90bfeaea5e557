"""Branching on ReLUs for whole layers: several processes do what one does."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnx_exact.bab.relu_split import schedule as split_layer
from onnx_exact.bab.relu_split.schedule import MOST_FAILURES, Sign, Splitter
from onnx_exact.bab.trees import ReluTree
from onnx_exact.deadline import Deadline
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.propagate import Layers
from onnx_exact.decide.verdict import Status
from onnx_exact.network import Affine, Chain
from tests.nets import cube, random_chain, statuses, wrong_verdicts
from tests.oracle.regions import enumerate_regions


def settled(chain: Chain, jobs: int) -> tuple[Knowledge, list[int]]:
    """All open signs of all layers asked for; and the layers that were told of."""
    knowledge, told = Knowledge(chain, cube(chain.n_in, -1.0, 1.0)), list[int]()
    layers, splitter = Layers(knowledge), Splitter(knowledge, Deadline(), jobs, told.append)
    for index in knowledge.relu_layers:
        layers.refresh(index)
        if index:
            positive, negative = knowledge.open_signs(index)
            signs = [(int(unit), True) for unit in np.flatnonzero(positive)]
            signs += [(int(unit), False) for unit in np.flatnonzero(negative)]
            splitter.settle(index, signs, layers.below(index), seconds=math.inf)
    return knowledge, told


def proved(knowledge: Knowledge) -> set[tuple[int, int, bool]]:
    """The signs that trees exclude."""
    trees = (tree for tree in knowledge.trees if isinstance(tree, ReluTree))
    return {(tree.layer, tree.unit, tree.positive) for tree in trees}


def test_several_processes_come_to_the_same_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_layer, "ALONE_SECONDS", 0.0)
    chain = random_chain(0, 4, 8, 8, 20, shift=0.5)
    (alone, _), (together, told) = settled(chain, jobs=1), settled(chain, jobs=2)
    assert len(told) >= 6
    assert len(proved(alone)) >= 4
    assert proved(together) == proved(alone)
    assert statuses(together.freeze()) == statuses(alone.freeze())
    assert not wrong_verdicts(together.freeze(), enumerate_regions(chain, together.box))


@pytest.mark.parametrize("alone_seconds", [0.0, 60.0])
def test_a_layer_is_left_after_so_many_failures_in_a_row(
    monkeypatch: pytest.MonkeyPatch, alone_seconds: float
) -> None:
    """Of copies of a unit that there is no time for, few are tried."""
    monkeypatch.setattr(split_layer, "ALONE_SECONDS", alone_seconds)
    tent = Affine(np.ones((3, 1)), np.array([0.0, -0.5, -1.0]))
    copies = 16 * MOST_FAILURES
    heights = Affine(np.tile([[2.0, -4.0, 2.0]], (copies, 1)), np.full(copies, -1.0625))
    knowledge = Knowledge(Chain.of([tent, heights], relu_at_end=True), cube(1, -1.0, 2.0))
    layers, told = Layers(knowledge), list[int]()
    layers.refresh(1)
    splitter = Splitter(knowledge, Deadline(), 2, told.append)
    signs: list[Sign] = [(unit, True) for unit in range(copies)]
    splitter.settle(1, signs, layers.below(1), seconds=0.0)
    # Others may have begun before the last failure was known.
    assert MOST_FAILURES <= len(told) <= copies / 2
    assert (knowledge.status(1) == Status.UNDECIDED).sum() == copies
