"""Branching on the input box, for chains with few inputs.

The box is split along one side at a time; every part is bounded by `parts` on its own, many parts
at once, and an open sign is settled once its bound excludes it on every part. Parts in which no
open sign is left are dropped; centres and corners of parts are run forward as witnesses. Depth
first, worst bound first: parts that are bounded together are then near one another, and few wait.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_exact.deadline import Deadline
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box
from onnx_exact.stability.knowledge import Knowledge
from onnx_exact.stability.parts import Bounded, Bounder, Signs
from onnx_exact.stability.trees import LEAF, BoxTree
from onnx_exact.stability.verdict import Evidence

MOST_INPUTS = 8
# Parts that are bounded at once: their matrices should fit in a processor's cache.
BATCH = 64
# Parts of one layer in all: bounds the memory and the patience.
MOST_PARTS = 2_000_000
# Where a part is this many levels or more from done, its halves are split without being bounded.
AGAIN = 2.0
MOST_AGAIN = 4.0
# The largest array whose release makes glibc keep the memory of arrays up to its size.
KEPT_BYTES = 2**25 - 2**16


@dataclass(frozen=True, eq=False)
class _Part:
    """A part of the box that is still to be bounded.

    Attributes:
        node: its place in the tree.
        lower, upper: shape (inputs,).
        signs: which of the signs are open on it, shape (signs,).
        stable: as in `parts.Bounded`, what the part it came from knows.
    """

    node: int
    lower: Array
    upper: Array
    signs: NDArray[np.bool_]
    stable: Signs


class Branching:
    """The search for the open signs of one layer; goes on where it was broken off.

    Args:
        knowledge: receives bounds, trees and witnesses.
        layer: whose splittable signs are to be settled.
    """

    def __init__(self, knowledge: Knowledge, layer: int) -> None:
        self._knowledge, self._layer = knowledge, layer
        positive, negative = knowledge.splittable_signs(layer)
        self._units = np.concatenate([np.flatnonzero(positive), np.flatnonzero(negative)])
        self._signs = np.concatenate([np.ones(positive.sum()), -np.ones(negative.sum())])
        self._open = np.ones(self._units.size, dtype=bool)
        self._pending: list[_Part] = []
        # Of every node: the side it is split along, its first child, which the second follows, and
        # the signs that its own bounds leave open, as bits.
        self._sides, self._children = array("h", [LEAF]), array("q", [LEAF])
        self._left: list[int] = [0]
        # On how many pending parts each sign is open.
        self._waiting = np.ones(self._units.size, dtype=np.int64)
        if not self._units.size:
            return
        affine = knowledge.chain.layers[layer].affine
        weight = affine.weight[self._units] * self._signs[:, None]
        rows = Affine(weight, affine.bias[self._units] * self._signs)
        self._bounder = Bounder(knowledge, rows, layer)
        box, nothing = knowledge.box, np.zeros(self._bounder.units, dtype=np.int8)
        self._pending = [_Part(0, box.lower, box.upper, self._open, nothing)]

    @property
    def parts(self) -> int:
        """Number of parts made so far, the whole box among them."""
        return len(self._sides)

    def run(self, deadline: Deadline, most_parts: int = MOST_PARTS) -> bool:
        """Splits until no sign of the layer is open; False where parts or time ran out first.

        Args:
            deadline: what is left then can be gone on with.
            most_parts: of all runs together.
        """
        self._forget()
        # Matrices of a batch come and go: if their memory went back to the system every time, half
        # of the time would be spent on getting it again. Releasing one large array prevents that.
        np.empty(KEPT_BYTES, dtype=np.uint8)
        while self._open.any() and self._pending and self.parts < most_parts:
            if deadline.passed:
                break
            self._step()
            self._conclude()
        return not any(signs.any() for signs in self._knowledge.open_signs(self._layer))

    def _step(self) -> None:
        """Bounds a batch of parts and splits those in which a sign is open."""
        batch, self._pending = self._pending[-BATCH:], self._pending[:-BATCH]
        self._waiting -= np.sum([part.signs for part in batch], axis=0)
        batch = [part for part in batch if (part.signs & self._open).any()]
        if not batch:
            return
        box = Box(np.array([p.lower for p in batch]), np.array([p.upper for p in batch]))
        asked = np.array([p.signs for p in batch]) & self._open
        bounded = self._bounder.bound(box, np.array([p.stable for p in batch]), asked)
        self._show(box, bounded, asked)
        left = asked & ~(bounded.bounds <= 0.0) & self._open
        worst = np.where(left, bounded.bounds, -np.inf).max(axis=1)
        # The last to be split is the first to be gone on with.
        for i in np.argsort(worst, kind="stable"):
            if left[i].any():
                part = replace(batch[i], signs=left[i], stable=bounded.stable[i])
                self._split(part, bounded.shares[i], min(bounded.levels[i], MOST_AGAIN))

    def _split(self, part: _Part, shares: Array, levels: float) -> None:
        """Adds the two halves of a part along one side, or their halves in turn."""
        side = int(shares.argmax())
        middle = 0.5 * part.lower[side] + 0.5 * part.upper[side]
        if not part.lower[side] < middle < part.upper[side]:
            # Nothing is left to split: on this part the signs stay open for ever.
            self._open = self._open & ~part.signs
            return
        lows, highs = part.lower.copy(), part.upper.copy()
        lows[side] = highs[side] = middle
        first = len(self._sides)
        self._sides[part.node], self._children[part.node] = side, first
        self._left[part.node] = _bits(part.signs)
        self._sides.extend((LEAF, LEAF))
        self._children.extend((LEAF, LEAF))
        self._left += [0, 0]
        halves = replace(part, node=first, upper=highs), replace(part, node=first + 1, lower=lows)
        if levels < AGAIN:
            self._waiting += 2 * part.signs
            self._pending += halves
            return
        shares = shares.copy()
        shares[side] *= 0.5
        for half in halves:
            self._split(half, shares, levels - AGAIN)

    def _show(self, box: Box, bounded: Bounded, asked: NDArray[np.bool_]) -> None:
        """Runs the centre of each part forward, and the corners its open signs point to."""
        centres = 0.5 * box.lower + 0.5 * box.upper
        corners = bounded.corners[asked & ~(bounded.bounds <= 0.0)]
        if self._knowledge.show(np.concatenate([centres, corners])):
            self._forget()

    def _forget(self) -> None:
        """Takes off what has been settled elsewhere meanwhile."""
        positive, negative = self._knowledge.open_signs(self._layer)
        still = np.where(self._signs > 0, positive[self._units], negative[self._units])
        self._open = self._open & still

    def _conclude(self) -> None:
        """Writes down the signs that are open in no part."""
        proved = self._open & (self._waiting == 0)
        if not proved.any():
            return
        self._open = self._open & ~proved
        units, positive = self._units[proved], self._signs[proved] > 0
        width = self._knowledge.chain.layers[self._layer].width
        lower, upper = np.full(width, -np.inf), np.full(width, np.inf)
        upper[units[positive]] = 0.0
        lower[units[~positive]] = 0.0
        self._knowledge.tighten(self._layer, Evidence.LINEAR, lower, upper)
        sides = self._preorder(_bits(proved))
        self._knowledge.trees.append(BoxTree(self._layer, units, positive, sides))

    def _preorder(self, signs: int) -> NDArray[np.int16]:
        """The part of the tree that some signs, as bits, need."""
        listed, waiting = array("h"), [0]
        while waiting:
            node = waiting.pop()
            if self._left[node] & signs:
                listed.append(self._sides[node])
                first = self._children[node]
                waiting += [first + 1, first]
            else:
                listed.append(LEAF)
        return np.array(listed, dtype=np.int16)


def _bits(signs: NDArray[np.bool_]) -> int:
    """Truth values as the bits of a number."""
    return int.from_bytes(np.packbits(signs).tobytes(), "big")
