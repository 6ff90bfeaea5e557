"""Branching on ReLUs: the sign of one functional, settled by fixing the signs of unstable units.

Each node fixes some units to g >= 0 or g <= 0, where the ReLU is linear, and is bounded as in
`assumed`, many nodes at once. Nodes whose bound excludes the sign are done; the worst ones are
split first, on the unit whose relaxation loses most. The maximisers of all bounds are run forward
as witnesses.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_exact.deadline import Deadline
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box
from onnx_exact.stability.assumed import (
    Bounded,
    Cases,
    Functional,
    Signs,
    bounded_together,
    joined,
)
from onnx_exact.stability.crown import Relaxation
from onnx_exact.stability.knowledge import Knowledge
from onnx_exact.stability.trees import LEAF, ReluTree
from onnx_exact.stability.verdict import Evidence

# Nodes that are bounded at once, and in all for one sign.
BATCH = 32
MOST_NODES = 4000
STEPS = 12
# How often a leaf that is bounded once more, with what its ancestors found, is improved further.
MOST_REPEATS = 20


def split_sign(
    knowledge: Knowledge,
    layer: int,
    unit: int,
    positive: bool,
    below: Sequence[Relaxation],
    deadline: Deadline,
) -> bool:
    """Tries to settle one open sign; True where it is settled, by proof or by a witness.

    Args:
        knowledge: receives the bound and the tree, or the witness.
        layer, unit, positive: the sign.
        below: relaxations of the layers before `layer`, at least one.
        deadline: gives up when it passes.
    """
    affine = knowledge.chain.layers[layer].affine
    sign = 1.0 if positive else -1.0
    row = Affine(sign * affine.weight[[unit]], sign * affine.bias[[unit]])
    tree = _Tree(Functional(row, below, knowledge.box), [r.affine.n_out for r in below])
    count = 0
    while tree.open and count < MOST_NODES and not deadline.passed:
        count += BATCH
        if tree.grow(knowledge) and knowledge.open_signs(layer)[0 if positive else 1][unit] == 0:
            return True
    if tree.open:
        return False
    width = knowledge.chain.layers[layer].width
    full = np.full(width, np.inf)
    full[unit] = 0.0
    if positive:
        knowledge.tighten(layer, Evidence.LINEAR, upper=full)
    else:
        knowledge.tighten(layer, Evidence.LINEAR, lower=-full)
    knowledge.trees.append(ReluTree(layer, unit, positive, tree.preorder()))
    return True


def leaves_of(tree: ReluTree, widths: Sequence[int]) -> list[Signs]:
    """The signs that each leaf of a tree assumes, in preorder.

    Args:
        tree: in preorder.
        widths: of the layers before the tree's own.

    Returns:
        One array a layer, shape (leaves, units): 1 for g >= 0, -1 for g <= 0, 0 for neither.
    """
    leaves: list[list[Signs]] = []
    waiting = [[np.zeros(n, dtype=np.int8) for n in widths]]
    for layer, unit in tree.splits:
        signs = waiting.pop()
        if layer == LEAF:
            leaves.append(signs)
            continue
        waiting += [_with(signs, int(layer), int(unit), sign) for sign in (-1, 1)]
    return [np.array(layer) for layer in zip(*leaves, strict=True)]


def prove_again(
    row: Affine, below: Sequence[Relaxation], box: Box, splits: NDArray[np.int32]
) -> Bounded:
    """Bounds a functional at the leaves of a tree of which nothing but the splits is known.

    Slopes and multipliers are found again from the root down, each node starting with those of its
    parent, as when the tree grew.

    Args:
        row: the functional, one row, whose positive values are to be excluded.
        below: the relaxations of the layers that it is a functional of, at least one.
        box: the domain, finite.
        splits: as in `ReluTree`.

    Returns:
        The bounds at the leaves in preorder, and the slopes and multipliers that attain them with
        `crown.upper_bounds`.
    """
    functional = Functional(row, below, box)
    children = _children_of(splits)
    level = [(0, functional.fresh([np.zeros((1, r.affine.n_out), dtype=np.int8) for r in below]))]
    leaves: dict[int, Bounded] = {}
    while level:
        batch, level = level[:BATCH], level[BATCH:]
        answer = functional.improve(joined([node[1] for node in batch]), STEPS)
        for i, (place, _) in enumerate(batch):
            node = answer.rows(np.array([i]))
            if place in children:
                layer, unit = (int(v) for v in splits[place])
                level += _two_children(node.cases, layer, unit, children[place])
            else:
                leaves[place] = _finish(functional, node)
    return bounded_together([leaves[place] for place in sorted(leaves)])


def _finish(functional: Functional, leaf: Bounded) -> Bounded:
    """More steps for a leaf whose bound does not exclude positive values yet."""
    for _ in range(MOST_REPEATS):
        if leaf.bounds[0] <= 0.0:
            break
        again = functional.improve(leaf.cases, STEPS)
        leaf = again if again.bounds[0] < leaf.bounds[0] else leaf
    return leaf


def _children_of(splits: NDArray[np.int32]) -> dict[int, tuple[int, int]]:
    """The children of every node of a preorder list that has any."""
    children: dict[int, tuple[int, int]] = {}
    # Of nodes that wait for their second child: themselves and their first one.
    waiting: list[tuple[int, int]] = []
    for place in range(len(splits) - 1):
        if splits[place][0] != LEAF:
            waiting.append((place, place + 1))
        else:
            parent, first = waiting.pop()
            children[parent] = (first, place + 1)
    return children


def _two_children(
    cases: Cases, layer: int, unit: int, places: tuple[int, int]
) -> list[tuple[int, Cases]]:
    """A node with one more unit fixed, to either sign."""
    children = []
    for place, sign in zip(places, (1, -1), strict=True):
        signs = tuple(_with(cases.signs, layer, (0, unit), sign))
        children.append((place, Cases(signs, cases.slopes, cases.multipliers)))
    return children


class _Tree:
    """The nodes of one functional that are not done, worst bound first."""

    def __init__(self, functional: Functional, widths: Sequence[int]) -> None:
        self._functional = functional
        root = functional.fresh([np.zeros((1, n), dtype=np.int8) for n in widths])
        # Of every node ever made: the layer and unit it is split on, and the first child, which the
        # second follows.
        self._splits: list[tuple[int, int]] = [(LEAF, LEAF)]
        self._first_children: list[int] = [LEAF]
        self._serial = 0
        # Less the parent's bound, a serial number, the node's place in the lists, its assumptions.
        self.open: list[tuple[float, int, int, Cases]] = [(-np.inf, 0, 0, root)]

    def grow(self, knowledge: Knowledge) -> int:
        """Bounds the worst nodes, splits those that stay open; the number of signs seen first."""
        popped = [heapq.heappop(self.open) for _ in range(min(BATCH, len(self.open)))]
        answer = self._functional.improve(joined([node[3] for node in popped]), STEPS)
        found = knowledge.show(answer.points)
        for i in np.flatnonzero(~(answer.bounds <= 0.0)):
            node = answer.cases.rows(np.array([i]))
            for place, child in self._children(popped[i][2], node, [s[i] for s in answer.losses]):
                self._serial += 1
                heapq.heappush(self.open, (-float(answer.bounds[i]), self._serial, place, child))
        return found

    def _children(self, place: int, node: Cases, losses: list[Array]) -> list[tuple[int, Cases]]:
        """The node with one more unit fixed, to either sign; itself where none is left to fix."""
        layer = int(np.argmax([s.max() for s in losses]))
        unit = int(losses[layer].argmax())
        if losses[layer][unit] <= 0.0:
            return [(place, node)]
        self._splits[place] = (layer, unit)
        first = self._first_children[place] = len(self._splits)
        self._splits += [(LEAF, LEAF)] * 2
        self._first_children += [LEAF] * 2
        return _two_children(node, layer, unit, (first, first + 1))

    def preorder(self) -> NDArray[np.int32]:
        """The splits of all nodes, a node before its children, as in `ReluTree`."""
        listed, waiting = [], [0]
        while waiting:
            place = waiting.pop()
            listed.append(self._splits[place])
            first = self._first_children[place]
            if first != LEAF:
                waiting += [first + 1, first]
        return np.array(listed, dtype=np.int32)


def _with(
    signs: Sequence[Signs], layer: int, unit: int | tuple[int, int], sign: int
) -> list[Signs]:
    """Assumptions with one more."""
    changed = signs[layer].copy()
    changed[unit] = sign
    return [*signs[:layer], changed, *signs[layer + 1 :]]
