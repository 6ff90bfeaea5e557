"""Branching on ReLUs: the sign of one functional, settled by fixing the signs of unstable units.

Each node fixes some units to g >= 0 or g <= 0, where the ReLU is linear. Many nodes are bounded at
once, each from the slopes and multipliers of its parent. Nodes whose bound excludes the sign are
closed, and what excludes it there is kept; the others are split on the unit that promises most: its
relaxation loses much there, and splitting on it has paid so far.

A tree that is known can be replayed: its leaves are bounded with what was kept of them, and gone on
with where that does not suffice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bab.question import Found, Question
from onnx_exact.bab.relu_split.subproblems import Functional
from onnx_exact.bab.search import Node, Search
from onnx_exact.bab.trees import LEAF, Growing, Leaves, Tree
from onnx_exact.bounds.alpha_crown import Optimized
from onnx_exact.bounds.cases import Cases, joined
from onnx_exact.bounds.crown import Signs
from onnx_exact.budgets import BUDGETS
from onnx_exact.network.affine import Array
from onnx_exact.runtime.deadline import Deadline

# Nodes that are bounded at once, and the steps for each; the root, which starts from nothing, gets
# more.
BATCH = 64
STEPS = 8
ROOT_STEPS = 60
# A node that gains less than this share of its parent's bound gets more, where it is nearer to 0
# than this share of the root's, or the root is nearer to 0 than this share of what lies between its
# bound and the value at the middle of the box: in trees that never come near 0 all steps are lost.
# Chosen on a CIFAR-10 5x100 network, which stays open with 0.3, and on mnist-net_256x4 over [0, 1],
# where no sign can be excluded and more steps for all nodes take three times as long.
LEAST_PROGRESS, NEAR, NEAR_ROOT = 0.05, 0.5, 0.6
MORE_STEPS = 32
# How many splits elsewhere count as much as one on the unit itself.
PRIOR = 2.0
# What either side of a split gains counts as this share of the root's bound at least.
LEAST_GAIN = 1e-6
# A point is beyond doubt where the functional exceeds so many margins.
BEYOND_DOUBT = 1e3


@dataclass(frozen=True, eq=False)
class _Node(Node):
    """A set of signs.

    Attributes:
        path: the units that are fixed, numbered through all layers, the first one first.
        cases: one case.
        parent_bound: 0 at the root.
        side: 0 where the last of the path has g >= 0, 1 where it has g <= 0.
        loss: of that unit's relaxation before; 0 at the root.
    """

    path: tuple[int, ...]
    cases: Cases
    parent_bound: float = 0.0
    side: int = 0
    loss: float = 0.0


class ReluSearch(Search[_Node]):
    """The search for one sign.

    Attributes:
        shown: a point leaves no doubt that the sign occurs.

    Args:
        question: on one sign, with a layer below at least.
        known: a tree to replay.
    """

    def __init__(self, question: Question, known: Tree | None = None) -> None:
        self._question = question
        self._functional = Functional(question.rows, question.below, question.box)
        self._widths = [r.affine.n_out for r in question.below]
        self.patience = BUDGETS.relu_patience // max(1, sum(self._widths))
        # What splitting on a unit gained, by side and unit, relative to its loss; and how often.
        self._gains = np.zeros((2, sum(self._widths)))
        self._counts = np.zeros(self._gains.shape)
        self._root_bound, self.shown, self._extra = 0.0, False, 0
        middle = 0.5 * question.box.lower + 0.5 * question.box.upper
        self._middle = float(self._functional.values(middle[None])[0])
        # Of the nodes that are closed: slopes of the free units, multipliers of the path.
        self._closed: dict[int, tuple[NDArray[np.uint8], NDArray[np.float32]]] = {}
        super().__init__([_Node(0, 1.0, (), self._functional.root())], Growing())
        if known is not None:
            self._replay(known)

    @property
    def spent(self) -> int:
        """The work done so far, in nodes; one that is given many steps costs many."""
        return self.nodes + self._extra

    def step(self) -> Iterator[Found]:
        """Bounds the last nodes; proposes points of the root, and those that seem witnesses."""
        batch, self.pending = self.pending[-BATCH:], self.pending[:-BATCH]
        at_root = not batch[0].path
        cases = joined([node.cases for node in batch])
        answer = self._functional.improve(cases, ROOT_STEPS if at_root else STEPS)
        if not at_root:
            answer = self._again(batch, answer)
        for node, bound in zip(batch, answer.bounds, strict=True):
            self._learn(node, float(bound))
        still = self._close(batch, answer.cases, answer.bounds)
        yield self._points(answer.points, everything=at_root)
        yield from self._split(still, batch, answer)
        if self.shown:
            self.pending = []

    def _again(self, batch: list[_Node], answer: Optimized) -> Optimized:
        """More steps for the nodes that are hardly better off than their parents."""
        parents = np.array([node.parent_bound for node in batch])
        little = answer.bounds > (1.0 - LEAST_PROGRESS) * parents
        if not self._nearly_excluded:
            little &= answer.bounds < NEAR * self._root_bound
        stuck = np.flatnonzero(little & (answer.bounds > 0.0))
        if not stuck.size:
            return answer
        self._extra += stuck.size * MORE_STEPS // STEPS
        more = self._functional.improve(answer.cases.rows(stuck), MORE_STEPS)
        return answer.replaced(stuck, more)

    @property
    def _nearly_excluded(self) -> bool:
        """Whether the root's bound is nearly 0 already."""
        return self._root_bound * (1.0 - NEAR_ROOT) <= -NEAR_ROOT * self._middle

    def _points(self, points: Array, *, everything: bool = False) -> Found:
        """Those that seem to be witnesses, or all."""
        values = self._functional.values(points)
        self.shown |= bool((values > BEYOND_DOUBT * self._question.margins[0]).any())
        return Found(points[(values > 0.0) | everything])

    def _learn(self, node: _Node, bound: float) -> None:
        """Keeps what the split that made a node has gained, relative to its unit's loss."""
        if not node.path:
            self._root_bound = bound
        elif node.loss > 0.0:
            gain = node.parent_bound - max(bound, 0.0)
            self._gains[node.side, node.path[-1]] += max(gain, 0.0) / node.loss
            self._counts[node.side, node.path[-1]] += 1.0

    def _close(self, nodes: list[_Node], cases: Cases, bounds: Array) -> NDArray[np.intp]:
        """Closes the nodes whose bound excludes the sign; which are left."""
        closed = bounds <= 0.0
        slopes, multipliers = self._functional.kept(cases.rows(closed))
        for i, a, b in zip(np.flatnonzero(closed), slopes, multipliers, strict=True):
            self._closed[nodes[i].place] = a, b[list(nodes[i].path)]
            self.done += nodes[i].share
        return np.flatnonzero(~closed)

    def _split(
        self, rows: NDArray[np.intp], batch: list[_Node], answer: Optimized
    ) -> Iterator[Found]:
        """Adds the two children of each node that stays open."""
        losses = np.concatenate(answer.losses, axis=1)[rows]
        units = self._choose(losses, answer.bounds[rows])
        for row, unit, loss in zip(rows, units, losses, strict=True):
            if loss[unit] > 0.0:
                cases, bound = answer.cases.rows(np.array([row])), float(answer.bounds[row])
                self._add(batch[row], cases, bound, int(unit), float(loss[unit]))
        ends = rows[~(losses > 0.0).any(axis=1)]
        if ends.size:
            yield self._end([batch[row] for row in ends], answer.cases.rows(ends))

    def _add(self, node: _Node, cases: Cases, bound: float, unit: int, loss: float) -> None:
        """Adds the two children of a node that is split on a unit."""
        layer, index = self._place_of(unit)
        first = self.tree.split(node.place, unit)
        for side, sign in enumerate((1, -1)):
            child, path = _with(cases, layer, index, sign), (*node.path, unit)
            self.pending.append(
                _Node(first + side, 0.5 * node.share, path, child, bound, side, loss)
            )

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

    def _end(self, nodes: list[_Node], cases: Cases) -> Found:
        """Nodes in which no relaxation seems to lose anything: steps may just not suffice.

        Where many steps do not close one, it is split on what is left; where nothing is, it stays
        open, and the sign with it.
        """
        self._extra += len(nodes) * BUDGETS.node_steps // STEPS
        answer = self._functional.improve(cases, BUDGETS.node_steps)
        for i in self._close(nodes, answer.cases, answer.bounds):
            signs = np.concatenate([s[i] for s in cases.signs])
            free = self._functional.free[signs[self._functional.free] == 0]
            if free.size:
                case, bound = answer.cases.rows(np.array([i])), float(answer.bounds[i])
                self._add(nodes[i], case, bound, int(free[0]), 0.0)
        return self._points(answer.points)

    def _place_of(self, unit: int) -> tuple[int, int]:
        """Layer and index of a unit that is numbered through all layers."""
        for layer, width in enumerate(self._widths):
            if unit < width:
                return layer, unit
            unit -= width
        raise IndexError(unit)

    def _replay(self, known: Tree) -> None:
        """Takes over the splits of a tree, and closes those of its leaves that still hold."""
        assert known.leaves is not None
        places, paths = self.tree.regrow(known.splits), list(_paths(known.splits))
        self.pending, start = [], 0
        for first in range(0, len(places), BATCH):
            part = slice(first, first + BATCH)
            signs = np.zeros((len(places[part]), sum(self._widths)), dtype=np.int8)
            multipliers = np.zeros(signs.shape)
            for row, path in enumerate(paths[part]):
                units = [unit for unit, _ in path]
                signs[row, units] = [sign for _, sign in path]
                multipliers[row, units] = known.leaves.multipliers[start : start + len(path)]
                start += len(path)
            slopes = known.leaves.units, known.leaves.slopes[part]
            cases = self._functional.given(signs, slopes, multipliers)
            nodes = [
                _Node(
                    *(place, 0.5 ** len(path), tuple(unit for unit, _ in path)),
                    cases.rows(np.array([row])),
                )
                for row, (place, path) in enumerate(zip(places[part], paths[part], strict=True))
            ]
            left = self._close(nodes, cases, self._functional.bounds(cases))
            self.pending += [nodes[row] for row in left]

    def finished(self) -> Tree | None:
        """The tree, where all its leaves exclude the sign."""
        if len(self._closed) < (self.nodes + 1) // 2:
            return None
        question, nodes = self._question, self.tree.preorder()
        splits = np.array(self.tree.splits, dtype=np.int32)[nodes]
        leaves = [self._closed[node] for node in nodes[splits == LEAF].tolist()]
        kept = Leaves(
            self._functional.free,
            np.array([slopes for slopes, _ in leaves]),
            np.concatenate([multipliers for _, multipliers in leaves]),
        )
        return Tree(question.layer, question.units, question.positive, splits, kept)


def split_sign(
    question: Question, most: int, deadline: Deadline, known: Tree | None = None
) -> tuple[Found, int]:
    """Tries to settle one sign; what was found, and for the work of how many nodes.

    Args:
        question: on one sign, with a layer below at least.
        most: nodes.
        deadline: the user's.
        known: a tree to replay.
    """
    search = ReluSearch(question, known)
    points = [np.zeros((0, question.chain.n_in))]
    points += [found.points for found in search.run(most, deadline)]
    tree = search.finished()
    return Found(np.concatenate(points), () if tree is None else (tree,)), search.spent


def _with(cases: Cases, layer: int, unit: int, sign: int) -> Cases:
    """One case with one more assumption."""
    signs: list[Signs] = list(cases.signs)
    signs[layer] = signs[layer].copy()
    signs[layer][0, unit] = sign
    return Cases(tuple(signs), cases.slopes, cases.multipliers)


def _paths(splits: NDArray[np.int32]) -> Iterator[tuple[tuple[int, int], ...]]:
    """The units that are fixed on the way to each leaf of a tree in preorder, with their signs."""
    waiting: list[tuple[tuple[int, int], ...]] = [()]
    for unit in splits.tolist():
        path = waiting.pop()
        if unit == LEAF:
            yield path
        else:
            waiting += [(*path, (unit, -1)), (*path, (unit, 1))]
