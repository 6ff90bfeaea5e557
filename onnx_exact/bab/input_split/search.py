"""Branching on the input box, for chains with few inputs.

The box is split along one side at a time; every part is bounded by `parts` on its own, many parts
at once, and an open sign is settled once its bound excludes it on every part. Parts in which no
open sign is left are dropped; centres and corners of parts are run forward as witnesses. Depth
first, worst bound first: parts that are bounded together are then near one another, and few wait.
Where there are many parts to come, and numba is there, a compiled kernel takes over (`subtrees`).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bab.input_split.bounds import AGAIN, MOST_AGAIN, Bounded, Bounder, Signs
from onnx_exact.bab.input_split.compiled import MOST_SIGNS, Explorer, Start, Subtree
from onnx_exact.bab.trees import LEAF, BoxTree, preorder
from onnx_exact.deadline import Deadline
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.verdict import Evidence
from onnx_exact.memory import keep_memory
from onnx_exact.network.affine import Array
from onnx_exact.network.domain import Box
from onnx_exact.threads import one_thread

MOST_INPUTS = 8
# Parts that are bounded at once, and at most before any is split: work for several processes.
BATCH = 128
ROUND = 1024
# Parts of one layer in all: bounds the memory, at some 20 bytes for each.
MOST_PARTS = 50_000_000
# Parts that the kernel takes at once, and into how many tasks they are divided for each thread.
KERNEL_ROUND = 256
KERNEL_TASKS = 8


# Bounds batches of parts: of each the box, what is known of the units, and which signs are asked
# for, as `Bounder.bound` takes them.
Batch: TypeAlias = tuple[Box, Signs, NDArray[np.bool_]]
BoundAll: TypeAlias = Callable[[Bounder, list[Batch]], list[Bounded]]
# Has the kernel split parts.
ExploreAll: TypeAlias = Callable[[Explorer, list[Start]], Iterable[Subtree]]


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
        self._rows = affine.signed(self._units, self._signs)
        units = sum(below.width for below in knowledge.chain.layers[:layer])
        box, nothing = knowledge.box, np.zeros(units, dtype=np.int8)
        self._pending = [_Part(0, box.lower, box.upper, self._open, nothing)]

    @property
    def parts(self) -> int:
        """Number of parts made so far, the whole box among them."""
        return len(self._sides)

    def run(self, deadline: Deadline, most_parts: int = MOST_PARTS, jobs: int = 1) -> bool:
        """Splits until no sign of the layer is open; False where parts or time ran out first.

        Args:
            deadline: what is left then can be gone on with.
            most_parts: of all runs together.
            jobs: processes, by joblib and whatever backend it is set to; they change nothing but
                the time.
        """
        self._forget()
        if self._open.any() and self._pending:
            bounder = Bounder(self._knowledge, self._rows, self._layer)
            with _processes(jobs) as bound_all:
                while self._goes_on(deadline, most_parts):
                    self._step(bounder, bound_all)
                    self._conclude()
        return self._settled

    def run_compiled(self, deadline: Deadline, most_parts: int = MOST_PARTS, jobs: int = 1) -> bool:
        """What `run` does, by the compiled kernel where there is one for this layer.

        Args:
            deadline, most_parts: as for `run`.
            jobs: threads; they change nothing but the time.
        """
        if not self._units.size or not Explorer.suits(self._knowledge, self._rows, self._layer):
            return self.run(deadline, most_parts, jobs)
        self._forget()
        if self._open.any() and self._pending:
            bits = np.array([_bits(row) for row in np.eye(self._units.size, dtype=bool)])
            explorer = Explorer(self._knowledge, self._rows, self._layer, bits.astype(np.uint64))
            with _threads(jobs, deadline) as explore_all:
                while self._goes_on(deadline, most_parts):
                    self._grow(explorer, explore_all)
                    self._conclude()
        return self._settled

    def _goes_on(self, deadline: Deadline, most_parts: int) -> bool:
        """Whether there is anything to split, and time for it."""
        left = bool(self._open.any() and self._pending)
        return left and self.parts < most_parts and not deadline.passed

    @property
    def _settled(self) -> bool:
        return not any(signs.any() for signs in self._knowledge.open_signs(self._layer))

    def _grow(self, explorer: Explorer, explore_all: ExploreAll) -> None:
        """Has the kernel split the last parts as far as it has room to."""
        taken, self._pending = self._pending[-KERNEL_ROUND:], self._pending[:-KERNEL_ROUND]
        self._waiting -= np.sum([part.signs for part in taken], axis=0)
        taken = [part for part in taken if (part.signs & self._open).any()]
        starts = [Start(p.lower, p.upper, p.stable, p.signs & self._open) for p in taken]
        given_up = np.zeros_like(self._open)
        for part, subtree in zip(taken, explore_all(explorer, starts), strict=True):
            self._graft(part.node, subtree)
            self._knowledge.show(subtree.points)
            given_up |= subtree.given_up
        self._forget()
        # What the kernel has no hope for, and no point shows, stays open for ever.
        self._open = self._open & ~given_up

    def _graft(self, node: int, subtree: Subtree) -> None:
        """Adds the nodes below one that the kernel has split, and what it has left."""
        first = len(self._sides)
        children = np.where(subtree.children == LEAF, LEAF, subtree.children + first - 1)
        self._sides[node], self._children[node] = int(subtree.sides[0]), int(children[0])
        self._left[node] = int(subtree.left[0])
        self._sides.frombytes(subtree.sides[1:].tobytes())
        self._children.frombytes(children[1:].tobytes())
        self._left += subtree.left[1:].tolist()
        for place, start in zip(subtree.nodes.tolist(), subtree.waiting, strict=True):
            number = first + place - 1 if place else node
            part = _Part(number, start.lower, start.upper, start.asked, start.stable)
            self._waiting += start.asked
            self._pending.append(part)

    def _step(self, bounder: Bounder, bound_all: BoundAll) -> None:
        """Bounds the last parts and splits those in which a sign is open."""
        # A share of those that wait: where these are few, the next ones are best known first.
        size = min(max(len(self._pending) // 8, BATCH), ROUND)
        taken, self._pending = self._pending[-size:], self._pending[:-size]
        self._waiting -= np.sum([part.signs for part in taken], axis=0)
        taken = [part for part in taken if (part.signs & self._open).any()]
        starts = range(0, len(taken), BATCH)
        batches = [self._batch(taken[start : start + BATCH]) for start in starts]
        further: list[tuple[float, _Part, Array, float]] = []
        answers = bound_all(bounder, batches)
        for start, (box, _, asked), bounded in zip(starts, batches, answers, strict=True):
            self._show(box, bounded, asked)
            left = asked & ~(bounded.bounds <= 0.0) & self._open
            worst = np.where(left, bounded.bounds, -np.inf).max(axis=1)
            for i in np.flatnonzero(left.any(axis=1)):
                part = replace(taken[start + i], signs=left[i], stable=bounded.stable[i])
                levels = min(float(bounded.levels[i]), MOST_AGAIN)
                further.append((float(worst[i]), part, bounded.shares[i], levels))
        # The last to be split is the first to be gone on with.
        for _, part, shares, levels in sorted(further, key=lambda entry: entry[0]):
            self._split(part, shares, levels)

    def _batch(self, parts: list[_Part]) -> Batch:
        box = Box(np.array([p.lower for p in parts]), np.array([p.upper for p in parts]))
        asked = np.array([p.signs for p in parts]) & self._open
        return box, np.array([p.stable for p in parts]), asked

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
        sides = preorder(np.array(self._sides), np.array(self._children), self._kept(proved))
        self._knowledge.trees.append(BoxTree(self._layer, units, positive, sides))

    def _kept(self, signs: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The nodes that are split because of some signs."""
        if signs.size > MOST_SIGNS:
            return np.array([(left & _bits(signs)) != 0 for left in self._left])
        left = np.array(self._left, dtype=np.uint64)
        return np.asarray(left & np.uint64(_bits(signs)), dtype=np.bool_)


def _bits(signs: NDArray[np.bool_]) -> int:
    """Truth values as the bits of a number."""
    return int.from_bytes(np.packbits(signs).tobytes(), "big")


@contextmanager
def _processes(jobs: int) -> Iterator[BoundAll]:
    """What bounds batches of parts, in one process or in several."""
    if jobs == 1:
        yield lambda bounder, batches: [bounder.bound(*batch) for batch in batches]
        return
    from joblib import Parallel, delayed

    with Parallel(n_jobs=jobs, batch_size=1, pre_dispatch="all") as pool:
        yield lambda bounder, batches: pool(delayed(_bound)(bounder, batch) for batch in batches)


@contextmanager
def _threads(jobs: int, deadline: Deadline) -> Iterator[ExploreAll]:
    """What has the kernel split parts until a deadline passes, in one thread or in several."""
    if jobs == 1:
        yield lambda explorer, starts: _explore(explorer, starts, deadline)
        return
    from joblib import Parallel, delayed

    with Parallel(n_jobs=jobs, batch_size=1, require="sharedmem") as pool:

        def explore_all(explorer: Explorer, starts: list[Start]) -> Iterable[Subtree]:
            size = -(-len(starts) // (KERNEL_TASKS * jobs)) or 1
            chunks = [starts[first : first + size] for first in range(0, len(starts), size)]
            return chain(*pool(delayed(_explore)(explorer, chunk, deadline) for chunk in chunks))

        yield explore_all


def _explore(explorer: Explorer, starts: list[Start], deadline: Deadline) -> list[Subtree]:
    """Splits one part after another; what is left when the deadline passes stays as it is."""
    return [
        explorer.untouched(start) if deadline.passed else explorer.explore(start)
        for start in starts
    ]


def _bound(bounder: Bounder, batch: Batch) -> Bounded:
    """Bounds a batch of parts in a process of its own."""
    keep_memory()
    with one_thread():
        return bounder.bound(*batch)
