"""Splitting parts of the input box by the compiled kernel, several at once.

Prepares what the kernel needs: the layers padded into arrays, and what rounding may add to its
bounds. Threads do the work: the kernel needs no lock of the interpreter.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bab.input_split.kernel.arrays import (
    LANES,
    Found,
    Layers,
    Net,
    Parts,
    Rows,
    Space,
    Tree,
    found_room,
    part_room,
    parts_room,
    tree_room,
)
from onnx_exact.bab.question import Question
from onnx_exact.bab.trees import LEAF
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.rounding import gamma

# Signs that fit into the bits of a node.
MOST_SIGNS = 64
# Nodes of one part's tree at a time: a few hundredths of a second.
MOST_NODES = 1024
# Parts that wait within one tree: more than it can be deep.
MOST_WAITING = 1024
# Beyond this, products might overflow on the way, and nothing would be bounded.
MOST_TERMS = 1e150
# Less than any bound that matters, more than all that underflows on the way adds up to.
UNDERFLOW = 1e-140


@dataclass(frozen=True, eq=False)
class Start:
    """A part to begin with: its box, what is known of it, and the functionals that matter."""

    lower: Array
    upper: Array
    stable: NDArray[np.int8]
    asked: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Subtree:
    """What became of a part; its node is number 0.

    Attributes:
        sides, children, left: of the nodes, as `Tree` has them.
        waiting: what is left to be bounded, and the nodes of these.
        nodes: shape (waiting,).
        points: candidates for witnesses, shape (points, inputs).
        given_up: functionals that are no longer asked for: a point seems to show them, or nothing
            is left to split where they are open; shape (signs,).
    """

    sides: NDArray[np.int16]
    children: NDArray[np.int64]
    left: NDArray[np.uint64]
    waiting: list[Start]
    nodes: NDArray[np.int64]
    points: Array
    given_up: NDArray[np.bool_]


class Explorer:
    """Splits parts until some functionals of the layers below one layer are excluded on them.

    Args:
        question: on at most `MOST_SIGNS` signs; a ReLU follows every layer below.
        bits: by which `Subtree.left` names them, shape (signs,).
    """

    def __init__(self, question: Question, bits: NDArray[np.uint64]) -> None:
        self._net, self._rows = _prepare(question, bits)
        # Of all units below in a row, as rows and columns of padded arrays.
        widths = self._net.widths
        columns = np.concatenate([np.arange(n) for n in widths])
        self._places = np.repeat(np.arange(question.layer), widths), columns
        self._inputs, self._room = question.chain.n_in, threading.local()

    @staticmethod
    def suits(question: Question) -> bool:
        """Whether the kernel is there, and made for such layers and numbers."""
        below = question.chain.layers[: question.layer]
        if not below or not all(b.relu for b in below) or question.units.size > MOST_SIGNS:
            return False
        slack = allowances(question, question.rows, question.layer)
        return bool(np.isfinite(slack).all()) and find_spec("numba") is not None

    def explore(self, start: Start) -> Subtree:
        """The tree of one part, as far as there is room for it."""
        from onnx_exact.bab.input_split.kernel.explore import explore

        parts, tree, found, layers, space = self._emptied()
        parts.lower[0], parts.upper[0], parts.asked[0] = start.lower, start.upper, start.asked
        parts.stable[0][self._places] = start.stable
        parts.node[0] = 0
        waiting = explore(self._net, self._rows, parts, tree, found, layers, space)
        nodes = int(tree.nodes[0])
        left = [
            Start(
                parts.lower[i].copy(),
                parts.upper[i].copy(),
                parts.stable[i][self._places],
                parts.asked[i].copy(),
            )
            for i in range(waiting)
        ]
        return Subtree(
            tree.sides[:nodes].copy(),
            tree.children[:nodes].copy(),
            tree.left[:nodes].copy(),
            left,
            parts.node[:waiting].copy(),
            found.points[found.shown],
            found.shown | found.stuck,
        )

    def untouched(self, start: Start) -> Subtree:
        """What `explore` would say of a part if there were no room at all."""
        signs = start.asked.size
        return Subtree(
            np.full(1, LEAF, dtype=np.int16),
            np.full(1, LEAF, dtype=np.int64),
            np.zeros(1, dtype=np.uint64),
            [start],
            np.zeros(1, dtype=np.int64),
            np.zeros((0, self._inputs)),
            np.zeros(signs, dtype=np.bool_),
        )

    def _emptied(self) -> tuple[Parts, Tree, Found, Layers, Space]:
        """Room for one tree, the same one for all trees of a thread."""
        if not hasattr(self._room, "kept"):
            signs, n_in = self._rows.bias.size, self._inputs
            parts = parts_room(self._net, n_in, signs, MOST_WAITING)
            tree, found = tree_room(MOST_NODES), found_room(n_in, signs)
            self._room.kept = parts, tree, found, *part_room(self._net, n_in)
        kept: tuple[Parts, Tree, Found, Layers, Space] = self._room.kept
        _, tree, found, *_ = kept
        tree.sides[:], tree.children[:], tree.left[:], tree.nodes[:] = LEAF, LEAF, 0, 1
        found.shown[:], found.stuck[:] = False, False
        return kept


def _prepare(question: Question, bits: NDArray[np.uint64]) -> tuple[Net, Rows]:
    """The layers below, padded, and the functionals, with what rounding may add to their bounds."""
    rows, layer = question.rows, question.layer
    below = [b.affine for b in question.chain.layers[:layer]]
    slacks = [allowances(question, affine, k) for k, affine in enumerate([*below, rows])]
    most = max(max(affine.n_in, affine.n_out) for affine in below)
    most += -most % LANES
    shape = (layer, most)
    weight, bias, slack = np.zeros((*shape, most)), np.zeros(shape), np.zeros(shape)
    lower, upper = np.zeros(shape), np.zeros(shape)
    for k, affine in enumerate(below):
        n = affine.n_out
        weight[k, :n, : affine.n_in], bias[k, :n], slack[k, :n] = (
            affine.entries,
            affine.bias,
            slacks[k],
        )
        lower[k, :n], upper[k, :n] = question.lower[k], question.upper[k]
    net = Net(
        widths=np.array([affine.n_out for affine in below], dtype=np.int64),
        weight=weight,
        bias=bias,
        across=np.ascontiguousarray(weight.transpose(0, 2, 1)),
        lower=lower,
        upper=upper,
        slack=slack,
    )
    functionals = (
        np.ascontiguousarray(rows.entries),
        np.ascontiguousarray(rows.bias),
    )
    return net, Rows(*functionals, slacks[layer], bits)


def allowances(question: Question, rows: Affine, layer: int) -> Array:
    """What rounding may add to an upper bound on functionals of a layer's inputs, shape (rows,).

    Going back, a coefficient is at most a sum of products of magnitudes of weights: slopes lie
    between 0 and 1. Everything that is added up on the way is at most that times a magnitude of
    what a unit passes on, over the whole box; the offset of a line above a ReLU is at most the
    unit's upper bound. Each step adds at most gamma times all of it, whatever the slopes, the
    part, and the order of the sums (Higham, Accuracy and Stability of Numerical Algorithms, 3.1).

    Args:
        question: of which chain, and what is known below.
        rows: the functionals.
        layer: whose inputs they take.

    Returns:
        Infinite where a functional may be too large.
    """
    layers, box = question.chain.layers[:layer], question.box
    inputs, most = np.maximum(np.abs(box.lower), np.abs(box.upper)), rows.n_in
    # What overflows is infinite or nan, and neither is less than `MOST_TERMS`.
    with np.errstate(over="ignore", invalid="ignore"):
        reaches, passed = [], inputs
        for k, below in enumerate(layers):
            upper = np.maximum(question.upper[k], 0.0)
            reach = below.affine.linear.absolute().apply(passed) + np.abs(below.affine.bias)
            # What a layer is off by is no more than gamma times this, as what rounding adds is.
            reaches.append(reach + upper + below.affine.off(passed) / gamma(0))
            passed, most = upper, max(most, below.affine.n_in)
        coefficients = np.abs(rows.entries)
        total = np.abs(rows.bias) + rows.off(passed) / gamma(0)
        for below, reach in zip(reversed(layers), reversed(reaches), strict=True):
            total = total + coefficients @ reach
            coefficients = below.affine.linear.absolute().pull_back(coefficients)
        total = total + coefficients @ inputs
        # Eight for the rounding of slopes, middles and of this very sum; a step for every layer.
        allowance = 8.0 * (layer + 2) * gamma(2 * most + 32) * total + UNDERFLOW
    return np.asarray(np.where(total < MOST_TERMS, allowance, np.inf))
