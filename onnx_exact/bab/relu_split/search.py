"""Branching on ReLUs: the sign of one functional, settled by fixing the signs of unstable units.

Each node fixes some units to g >= 0 or g <= 0, where the ReLU is linear. Many nodes are bounded at
once, each from the slopes and multipliers of its parent. Nodes whose bound excludes the sign are
done; the others are split on the unit that promises most: its relaxation loses much there, and
splitting on it has paid so far.

Depth first, the share of the domain's halves, quarters, ... that are done grows evenly, and tells
soon how long it will take: what will not end in time is given up at once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bab.relu_split.dual_simplex import Program
from onnx_exact.bab.relu_split.subproblems import Bounded, Cases, Functional, Signs, joined
from onnx_exact.bab.trees import LEAF, ReluTree
from onnx_exact.bounds.crown import Relaxation
from onnx_exact.deadline import Deadline
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.verdict import Evidence
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box

# Nodes that are bounded at once, and the steps for each; the root, which starts from nothing, gets
# more.
BATCH = 64
STEPS = 8
ROOT_STEPS = 60
# What a program is given for a node without a unit to split on, in seconds.
NODE_SECONDS = 10.0
# Before so many seconds nothing is given up; nor where it may yet end within so many times the
# time that is left.
PATIENCE = 0.2
LENIENCE = 3.0
# How many splits elsewhere count as much as one on the unit itself.
PRIOR = 2.0
# What either side of a split gains counts as this share of the root's bound at least.
LEAST_GAIN = 1e-6


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
        deadline: gives up when it passes, or when it will.
    """
    row = knowledge.chain.layers[layer].affine.signed(np.array([unit]), 1.0 if positive else -1.0)
    tree = _Tree(row, below, knowledge.box)
    side = 0 if positive else 1
    begin = time.monotonic()
    while tree.open and not tree.stuck:
        used = time.monotonic() - begin
        if deadline.passed or (used > PATIENCE and _hopeless(tree.done, used, deadline)):
            return False
        points = tree.grow()
        if knowledge.show(points) and not knowledge.open_signs(layer)[side][unit]:
            return True
    if tree.stuck:
        return False
    exclude_sign(knowledge, ReluTree(layer, unit, positive, tree.preorder()))
    return True


def exclude_sign(knowledge: Knowledge, tree: ReluTree) -> None:
    """Writes down that a tree excludes a sign."""
    full = np.full(knowledge.chain.layers[tree.layer].width, np.inf)
    full[tree.unit] = 0.0
    if tree.positive:
        knowledge.tighten(tree.layer, Evidence.LINEAR, upper=full)
    else:
        knowledge.tighten(tree.layer, Evidence.LINEAR, lower=-full)
    knowledge.trees.append(tree)


def _hopeless(done: float, used: float, deadline: Deadline) -> bool:
    """Whether the rest will take far longer than there is time."""
    return used * (1.0 - done) > LENIENCE * deadline.remaining * done


@dataclass(frozen=True, eq=False)
class _Node:
    """A node to bound.

    Attributes:
        place: among all nodes ever made.
        depth: number of units fixed.
        cases: one case.
        parent_bound: 0 at the root.
        unit: the one fixed last, numbered through all layers.
        side: 0 where that is g >= 0, 1 where it is g <= 0.
        loss: of that unit's relaxation before.
    """

    place: int
    depth: int
    cases: Cases
    parent_bound: float = 0.0
    unit: int = 0
    side: int = 0
    loss: float = 0.0


class _Tree:
    """The nodes of one functional.

    Attributes:
        open: those that are not bounded yet, the next one last.
        done: the share of the domain whose nodes are done, each split counting as halves.
        stuck: a node cannot be split any further and does not exclude positive values.
    """

    def __init__(self, row: Affine, below: Sequence[Relaxation], box: Box) -> None:
        self._row, self._below, self._box = row, below, box
        self._functional = Functional(row, below, box)
        self._widths = [r.affine.n_out for r in below]
        # Of every node ever made: the layer and unit it is split on, and the first child, which the
        # second follows.
        self._splits: list[tuple[int, int]] = [(LEAF, LEAF)]
        self._first_children: list[int] = [LEAF]
        # What splitting on a unit gained, by side and unit, relative to its loss; and how often.
        self._gains = np.zeros((2, sum(self._widths)))
        self._counts = np.zeros(self._gains.shape)
        self._root_bound = 0.0
        nothing = [np.zeros((1, n), dtype=np.int8) for n in self._widths]
        self.open = [_Node(0, 0, self._functional.fresh(nothing))]
        self.done = 0.0
        self.stuck = False

    def grow(self) -> Array:
        """Bounds the next nodes and splits those that stay open.

        Returns:
            Points to run forward, shape (points, inputs), maybe none: of the root, and those that
            seem to be witnesses.
        """
        batch, self.open = self.open[-BATCH:], self.open[:-BATCH]
        at_root = batch[0].place == 0
        cases = joined([node.cases for node in batch])
        answer = self._functional.improve(cases, ROOT_STEPS if at_root else STEPS)
        for node, bound in zip(batch, answer.bounds, strict=True):
            self._learn(node, float(bound))
            if bound <= 0.0:
                self.done += 0.5**node.depth
        self._split(batch, answer)
        return answer.points[at_root | (self._functional.values(answer.points) > 0.0)]

    def _learn(self, node: _Node, bound: float) -> None:
        """Keeps what the split that made a node has gained, relative to its unit's loss."""
        if node.depth == 0:
            self._root_bound = bound
        elif node.loss > 0.0:
            gain = node.parent_bound - max(bound, 0.0)
            self._gains[node.side, node.unit] += max(gain, 0.0) / node.loss
            self._counts[node.side, node.unit] += 1.0

    def _split(self, batch: list[_Node], answer: Bounded) -> None:
        """Adds the two children of each node that stays open."""
        rows = np.flatnonzero(~(answer.bounds <= 0.0))
        losses = np.concatenate(answer.losses, axis=1)[rows]
        units = self._choose(losses, answer.bounds[rows])
        for row, unit, loss in zip(rows, units, losses, strict=True):
            if loss[unit] > 0.0:
                cases = answer.cases.rows(np.array([row]))
                self._add(
                    batch[row], cases, float(answer.bounds[row]), int(unit), float(loss[unit])
                )
            else:
                self._end(batch[row])

    def _add(self, node: _Node, cases: Cases, bound: float, unit: int, loss: float) -> None:
        """Adds the two children of a node that is split on a unit."""
        layer, index = self._place_of(unit)
        first = self._first_children[node.place] = len(self._splits)
        self._splits[node.place] = (layer, index)
        self._splits += [(LEAF, LEAF)] * 2
        self._first_children += [LEAF] * 2
        for side, sign in enumerate((1, -1)):
            child = _with(cases, layer, index, sign)
            self.open.append(_Node(first + side, node.depth + 1, child, bound, unit, side, loss))

    def _choose(self, losses: Array, bounds: Array) -> NDArray[np.intp]:
        """The unit with the greatest product of what both sides of a split are expected to gain.

        Args:
            losses: of each node's units, shape (nodes, units).
            bounds: shape (nodes,).

        Returns:
            One a node, and one that loses something where there is any.
        """
        product = np.ones(losses.shape)
        for gains, counts in zip(self._gains, self._counts, strict=True):
            average = (gains.sum() + 1.0) / (counts.sum() + 1.0)
            ratio = (gains + PRIOR * average) / (counts + PRIOR)
            gain = np.minimum(ratio * losses, bounds[:, None])
            product *= np.maximum(gain, LEAST_GAIN * self._root_bound)
        return np.asarray(np.where(losses > 0.0, product, -1.0).argmax(axis=1))

    def _end(self, node: _Node) -> None:
        """A last attempt at a node without a unit to split on: steps may just not suffice."""
        program = Program(self._row, self._below, self._box)
        optimum = program.solve([s[0] for s in node.cases.signs], NODE_SECONDS)
        if optimum is not None and (self._functional.bounds(optimum.cases) <= 0.0).any():
            self.done += 0.5**node.depth
        else:
            self.stuck = True

    def _place_of(self, unit: int) -> tuple[int, int]:
        """Layer and index of a unit that is numbered through all layers."""
        for layer, width in enumerate(self._widths):
            if unit < width:
                return layer, unit
            unit -= width
        raise IndexError(unit)

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


def _with(cases: Cases, layer: int, unit: int, sign: int) -> Cases:
    """One case with one more assumption."""
    signs: list[Signs] = list(cases.signs)
    signs[layer] = signs[layer].copy()
    signs[layer][0, unit] = sign
    return Cases(tuple(signs), cases.slopes, cases.multipliers)
