"""Splits on ReLUs until every leaf's bound excludes a sign, with slopes and multipliers to keep.

Starts from the splits that are known, if any, and splits further where a leaf's bound does not
suffice once its slopes have been rounded to a byte and its multipliers to float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bab.relu_split.dual_simplex import Program
from onnx_exact.bab.relu_split.subproblems import Cases, Functional, joined
from onnx_exact.bab.trees import LEAF
from onnx_exact.bounds.crown import Relaxation
from onnx_exact.certify.proof import SLOPE_STEPS
from onnx_exact.certify.slopes import is_free
from onnx_exact.deadline import Deadline
from onnx_exact.network.affine import Affine
from onnx_exact.network.domain import Box

# Nodes that are bounded at once, and the steps for each; the root gets more.
BATCH = 64
STEPS = 8
ROOT_STEPS = 60
# What a program is given for a node that has no unit to split on.
NODE_SECONDS = 10.0


@dataclass(frozen=True, eq=False)
class Leaves:
    """A finished tree: the arrays of `onnx_exact.certify.proof.ReluTreeProof`."""

    nodes: NDArray[np.int32]
    slopes: NDArray[np.uint8]
    multipliers: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Size before compression."""
        return self.nodes.nbytes + self.slopes.nbytes + self.multipliers.nbytes


@dataclass(frozen=True, eq=False)
class Sign:
    """A sign to exclude.

    Attributes:
        row: the functional that must not be positive, one row.
        below: relaxations of the layers before, at least one.
        loose: the units of each that have a slope.
        goal: a bound no greater than this excludes the sign.
        box: the domain.
    """

    row: Affine
    below: Sequence[Relaxation]
    loose: Sequence[NDArray[np.intp]]
    goal: float
    box: Box


def split_until_proved(
    sign: Sign, splits: NDArray[np.int32], most_nodes: int, deadline: Deadline
) -> Leaves | None:
    """A tree whose leaves all exclude the sign; None where nodes or time ran out.

    Args:
        sign: to exclude.
        splits: as in `onnx_exact.bab.trees.ReluTree`, shape (nodes, 2), to start from.
        most_nodes: of the tree.
        deadline: gives up when it passes.
    """
    tree = _Tree(sign, splits)
    while tree.open:
        if len(tree.split_on) > most_nodes or deadline.passed:
            return None
        tree.step()
        if tree.stuck:
            return None
    return tree.leaves()


@dataclass(frozen=True, eq=False)
class _Node:
    """A node to bound: its place among all nodes, and in the known splits, `LEAF` for none."""

    place: int
    known: int
    cases: Cases


class _Tree:
    """All nodes so far.

    Attributes:
        split_on: layer and unit of each node, `LEAF` for a leaf.
        open: nodes that are not bounded yet, the next one last.
        stuck: a node that cannot be split any further does not exclude the sign.
    """

    def __init__(self, sign: Sign, splits: NDArray[np.int32]) -> None:
        self._sign, self._known = sign, splits
        self._functional = Functional(sign.row, sign.below, sign.box)
        self._free = [is_free(layer) for layer in sign.below]
        self._second = _second_children(splits)
        none = [np.zeros((1, layer.affine.n_out), dtype=np.int8) for layer in sign.below]
        root = self._functional.fresh(none)
        self.split_on: list[tuple[int, int]] = [(LEAF, LEAF)]
        self._first: list[int] = [LEAF]
        self._done: dict[int, Cases] = {}
        self.open = [_Node(0, self._skipped(0 if len(splits) else LEAF), root)]
        self.stuck = False

    def _skipped(self, known: int) -> int:
        """The known node that matters: one that splits on a stable unit has a child that is all."""
        while known != LEAF and self._known[known][0] != LEAF:
            layer, unit = (int(v) for v in self._known[known])
            if self._free[layer][unit]:
                break
            active = self._sign.below[layer].upper_slope[unit] == 1.0
            known = known + 1 if active else self._second[known]
        return known

    def _known_split(self, node: _Node) -> tuple[int, int] | None:
        """The layer and unit that a node is known to be split on, if it is."""
        if node.known == LEAF or self._known[node.known][0] == LEAF:
            return None
        layer, unit = self._known[node.known]
        return int(layer), int(unit)

    def step(self) -> None:
        """Bounds the next nodes and splits those that do not exclude the sign."""
        batch, self.open = self.open[-BATCH:], self.open[:-BATCH]
        cases = joined([node.cases for node in batch])
        answer = self._functional.improve(cases, STEPS if batch[0].place else ROOT_STEPS)
        rounded = self._rounded(answer.cases)
        bounds = self._functional.bounds(rounded)
        for i, node in enumerate(batch):
            index = np.array([i])
            if bounds[i] <= self._sign.goal:
                self._done[node.place] = rounded.rows(index)
                continue
            known = self._known_split(node)
            if known is None:
                layer = int(np.argmax([losses[i].max() for losses in answer.losses]))
                known = layer, int(answer.losses[layer][i].argmax())
                if answer.losses[layer][i].max() <= 0.0:
                    self._end(node)
                    continue
            self._split(node, answer.cases.rows(index), known)

    def _end(self, node: _Node) -> None:
        """A last attempt at a node without a unit to split on: steps may just not suffice."""
        program = Program(self._sign.row, self._sign.below, self._sign.box)
        optimum = program.solve([s[0] for s in node.cases.signs], NODE_SECONDS)
        if optimum is not None:
            rounded = self._rounded(optimum.cases)
            bounds = self._functional.bounds(rounded)
            if (bounds <= self._sign.goal).any():
                self._done[node.place] = rounded.rows(np.array([int(bounds.argmin())]))
                return
        self.stuck = True

    def _rounded(self, cases: Cases) -> Cases:
        """The cases with slopes and multipliers as they are kept."""
        slopes = []
        for a, loose, free in zip(cases.slopes, self._sign.loose, self._free, strict=True):
            chosen = np.zeros(a.shape[1], dtype=bool)
            chosen[loose] = free[loose]
            slopes.append(np.where(chosen, np.rint(a * SLOPE_STEPS) / SLOPE_STEPS, a))
        with np.errstate(over="ignore"):
            multipliers = [b.astype(np.float32).astype(np.float64) for b in cases.multipliers]
        return Cases(cases.signs, tuple(slopes), tuple(multipliers))

    def _split(self, node: _Node, cases: Cases, split: tuple[int, int]) -> None:
        """Adds the children of a node."""
        layer, unit = split
        after = (LEAF, LEAF)
        if self._known_split(node) is not None:
            after = self._skipped(node.known + 1), self._skipped(self._second[node.known])
        self.split_on[node.place] = split
        self._first[node.place] = len(self.split_on)
        for known, way in zip(after, (1, -1), strict=True):
            signs = [s.copy() for s in cases.signs]
            signs[layer][0, unit] = way
            child = Cases(tuple(signs), cases.slopes, cases.multipliers)
            self.open.append(_Node(len(self.split_on), known, child))
            self.split_on.append((LEAF, LEAF))
            self._first.append(LEAF)

    def leaves(self) -> Leaves:
        """The finished tree, in preorder."""
        nodes: list[tuple[int, int]] = []
        slopes: list[NDArray[np.uint8]] = []
        multipliers: list[float] = []
        waiting: list[tuple[int, tuple[int, ...]]] = [(0, ())]
        while waiting:
            place, path = waiting.pop()
            nodes.append(self.split_on[place])
            first = self._first[place]
            if first != LEAF:
                waiting += [(first + 1, (*path, place)), (first, (*path, place))]
                continue
            cases = self._done[place]
            kept = [a[0, u] for a, u in zip(cases.slopes, self._sign.loose, strict=True)]
            slopes.append(np.rint(np.concatenate(kept) * SLOPE_STEPS).astype(np.uint8))
            for layer, unit in (self.split_on[node] for node in path):
                multipliers.append(float(cases.multipliers[layer][0, unit]))
        return Leaves(
            np.array(nodes, dtype=np.int32),
            np.array(slopes, dtype=np.uint8),
            np.array(multipliers, dtype=np.float32),
        )


def _second_children(splits: NDArray[np.int32]) -> dict[int, int]:
    """For each node of a preorder list that is split, where its second child stands."""
    second: dict[int, int] = {}
    waiting: list[int] = []
    for place, (layer, _) in enumerate(splits):
        if place and waiting and splits[place - 1][0] == LEAF:
            second[waiting.pop()] = place
        if layer != LEAF:
            waiting.append(place)
    return second
