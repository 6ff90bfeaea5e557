"""Branching on the input box, for chains with few inputs.

The box is split along one side at a time; every part is bounded on its own, many parts at once, and
an open sign is settled once its bound excludes it on every part. Parts in which no open sign is
left are dropped; centres and corners of parts are proposed as witnesses. Depth first, worst bound
first: parts that are bounded together are then near one another, and few wait. Where there are many
parts to come, and numba is there, a compiled kernel takes over (`compiled`).

A tree that is known can be replayed: its leaves are bounded by nothing but what a certificate may
rest on, and split further where that does not suffice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bab.input_split.bounds import AGAIN, MOST_AGAIN, Bounded, Bounder
from onnx_exact.bab.input_split.compiled import MOST_SIGNS, Explorer, Start, Subtree
from onnx_exact.bab.question import Found, Question
from onnx_exact.bab.search import Node, Search
from onnx_exact.bab.trees import LEAF, Growing, Tree
from onnx_exact.bounds.crown import Signs
from onnx_exact.budgets import BUDGETS
from onnx_exact.network.affine import Array
from onnx_exact.network.domain import Box
from onnx_exact.runtime.deadline import Deadline
from onnx_exact.runtime.memory import keep_memory
from onnx_exact.runtime.threads import one_thread

MOST_INPUTS = 8
# Parts that are bounded at once, and at most before any is split: work for several processes.
BATCH = 128
ROUND = 1024
# Parts that the kernel takes at once, and into how many tasks they are divided for each thread.
KERNEL_ROUND = 256
KERNEL_TASKS = 8

# Bounds batches of parts: of each the box, what is known of the units, and which signs are asked
# for, as `Bounder.bound` takes them.
Batch: TypeAlias = tuple[Box, Signs, NDArray[np.bool_]]
BoundAll: TypeAlias = Callable[[Bounder, list[Batch]], Iterable[Bounded]]
# Has the kernel split parts.
ExploreAll: TypeAlias = Callable[[Explorer, list[Start]], Iterable[Subtree]]


@dataclass(frozen=True, eq=False)
class _Part(Node):
    """A part of the box.

    Attributes:
        lower, upper: shape (inputs,).
        signs: which of the signs are open on it, shape (signs,).
        stable: as in `bounds.Bounded`, what the part it came from knows.
    """

    lower: Array
    upper: Array
    signs: NDArray[np.bool_]
    stable: Signs


class BoxSearch(Search[_Part]):
    """The search for some signs of one layer.

    Attributes:
        question: what is asked; may come to know more between two runs.
        open: which of its signs are neither excluded nor given up, shape (signs,).

    Args:
        question: see above.
        known: a tree to replay.
    """

    patience = BUDGETS.box_patience

    def __init__(self, question: Question, known: Tree | None = None) -> None:
        self.question, self.open = question, np.ones(question.units.size, dtype=bool)
        self._replays, tree = known is not None, Growing()
        # The signs that each node's own bounds leave open, as bits.
        self._left: list[int] = [0]
        units = sum(below.width for below in question.chain.layers[: question.layer])
        box, stable = question.box, np.zeros(units, dtype=np.int8)
        parts = [_Part(0, 1.0, box.lower, box.upper, self.open.copy(), stable)]
        if known is not None:
            leaves = tree.regrow(known.splits)
            self._left = [0 if on == LEAF else _bits(self.open) for on in tree.splits]
            boxes = _boxes(known.splits, box)
            parts = [
                replace(parts[0], place=leaf, share=1.0 / len(leaves), lower=low, upper=high)
                for leaf, (low, high) in zip(leaves, boxes, strict=True)
            ]
        super().__init__(parts, tree)
        # On how many pending parts each sign is open.
        self._waiting = np.full(self.open.size, len(parts))

    def run(
        self, most: int, deadline: Deadline, jobs: int = 1, *, compiled: bool = False
    ) -> Iterator[Found]:
        """As `Search.run`; between two answers signs may be closed by `close`.

        Args:
            most, deadline: see there.
            jobs: processes, by joblib and whatever backend it is set to, or the kernel's threads;
                they change nothing but the time.
            compiled: by the compiled kernel, where there is one for this layer.
        """
        question = self.question
        if not self.open.any() or not self.pending:
            return
        if compiled and Explorer.suits(question):
            bits = [_bits(row) for row in np.eye(self.open.size, dtype=bool)]
            explorer = Explorer(question, np.array(bits, dtype=np.uint64))
            with _threads(jobs, deadline) as explore_all:
                while self.goes_on(most, deadline):
                    yield from self._grow(explorer, explore_all)
            return
        with _processes(jobs) as bound_all:
            self._bounder, self._bound_all = Bounder(question, plain=self._replays), bound_all
            yield from super().run(most, deadline)

    def goes_on(self, most: int, deadline: Deadline) -> bool:
        """Whether a sign is open, and it may yet be settled."""
        return bool(self.open.any()) and super().goes_on(most, deadline)

    def close(self, signs: NDArray[np.bool_]) -> None:
        """Asks for some signs no longer."""
        self.open = self.open & ~signs

    def _take(self, count: int) -> list[_Part]:
        """The last parts, without those in which no sign is open any more."""
        taken, self.pending = self.pending[-count:], self.pending[:-count]
        self._waiting -= np.sum([part.signs for part in taken], axis=0)
        self.done += sum(part.share for part in taken)
        return [part for part in taken if (part.signs & self.open).any()]

    def _wait(self, part: _Part) -> None:
        self._waiting += part.signs
        self.done -= part.share
        self.pending.append(part)

    def _grow(self, explorer: Explorer, explore_all: ExploreAll) -> Iterator[Found]:
        """Has the kernel split the last parts as far as it has room to."""
        taken = self._take(KERNEL_ROUND)
        starts = [Start(p.lower, p.upper, p.stable, p.signs & self.open) for p in taken]
        given_up, points = np.zeros_like(self.open), [np.zeros((0, self.question.chain.n_in))]
        for part, subtree in zip(taken, explore_all(explorer, starts), strict=True):
            numbers = self.tree.graft(part.place, subtree.sides, subtree.children)
            self._left[part.place] = int(subtree.left[0])
            self._left += subtree.left[1:].tolist()
            points.append(subtree.points)
            given_up |= subtree.given_up
            sides = np.maximum(part.upper - part.lower, np.finfo(float).tiny)
            for place, rest in zip(subtree.nodes.tolist(), subtree.waiting, strict=True):
                share = part.share * float(np.prod((rest.upper - rest.lower) / sides))
                self._wait(
                    _Part(
                        *(int(numbers[place]), share, rest.lower, rest.upper),
                        *(rest.asked, rest.stable),
                    )
                )
        yield Found(np.concatenate(points))
        # What the kernel has no hope for, and no point shows, stays open for ever.
        self.close(given_up)
        yield from self._proved()

    def step(self) -> Iterator[Found]:
        """Bounds the last parts and splits those in which a sign is open."""
        # A share of those that wait: where these are few, the next ones are best known first.
        taken = self._take(min(max(len(self.pending) // 8, BATCH), ROUND))
        starts = range(0, len(taken), BATCH)
        batches = [self._batch(taken[start : start + BATCH]) for start in starts]
        further: list[tuple[float, _Part, Array, float]] = []
        answers = self._bound_all(self._bounder, batches)
        for start, (box, _, asked), bounded in zip(starts, batches, answers, strict=True):
            yield Found(_points(box, bounded, asked))
            left = asked & ~(bounded.bounds <= 0.0) & self.open
            worst = np.where(left, bounded.bounds, -np.inf).max(axis=1)
            for i in np.flatnonzero(left.any(axis=1)):
                part, levels = taken[start + i], 0.0
                if not self._replays:
                    part = replace(part, signs=left[i], stable=bounded.stable[i])
                    levels = min(float(bounded.levels[i]), MOST_AGAIN)
                further.append((float(worst[i]), part, bounded.shares[i], levels))
        # The last to be split is the first to be gone on with.
        for _, part, shares, levels in sorted(further, key=lambda entry: entry[0]):
            self._split(part, shares, levels)
        yield from self._proved()

    def _batch(self, parts: list[_Part]) -> Batch:
        box = Box(np.array([p.lower for p in parts]), np.array([p.upper for p in parts]))
        asked = np.array([p.signs for p in parts]) & self.open
        return box, np.array([p.stable for p in parts]), asked

    def _split(self, part: _Part, shares: Array, levels: float) -> None:
        """Adds the two halves of a part along one side, or their halves in turn."""
        side = int(shares.argmax())
        middle = 0.5 * part.lower[side] + 0.5 * part.upper[side]
        if not part.lower[side] < middle < part.upper[side]:
            # Nothing is left to split: on this part the signs stay open for ever.
            self.close(part.signs)
            return
        lows, highs = part.lower.copy(), part.upper.copy()
        lows[side] = highs[side] = middle
        first, share = self.tree.split(part.place, side), 0.5 * part.share
        self._left[part.place] = _bits(part.signs)
        self._left += [0, 0]
        for half in (
            replace(part, place=first, share=share, upper=highs),
            replace(part, place=first + 1, share=share, lower=lows),
        ):
            if levels < AGAIN:
                self._wait(half)
            else:
                closer = np.where(np.arange(shares.size) == side, 0.5, 1.0) * shares
                self._split(half, closer, levels - AGAIN)

    def _proved(self) -> Iterator[Found]:
        """A tree for the signs that are open in no part."""
        proved = self.open & (self._waiting == 0)
        if not proved.any():
            return
        self.close(proved)
        question, splits = self.question.only(proved), np.array(self.tree.splits)
        kept = self._kept(proved)
        nodes = self.tree.preorder(kept)
        listed = np.where(kept[nodes], splits[nodes], LEAF).astype(np.int32)
        tree = Tree(question.layer, question.units, question.positive, listed)
        yield Found(np.zeros((0, question.chain.n_in)), (tree,))

    def _kept(self, signs: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The nodes that are split because of some signs."""
        if signs.size > MOST_SIGNS:
            return np.array([(left & _bits(signs)) != 0 for left in self._left])
        left = np.array(self._left, dtype=np.uint64)
        return np.asarray(left & np.uint64(_bits(signs)), dtype=np.bool_)


def _points(box: Box, bounded: Bounded, asked: NDArray[np.bool_]) -> Array:
    """The centre of each part, and the corners that its open signs point to."""
    centres = 0.5 * box.lower + 0.5 * box.upper
    return np.concatenate([centres, bounded.corners[asked & ~(bounded.bounds <= 0.0)]])


def _boxes(splits: NDArray[np.int32], box: Box) -> Iterator[tuple[Array, Array]]:
    """The parts that the leaves of a tree in preorder stand for."""
    waiting = [(box.lower, box.upper)]
    for side in splits.tolist():
        low, high = waiting.pop()
        if side == LEAF:
            yield low, high
            continue
        left, right = high.copy(), low.copy()
        left[side] = right[side] = 0.5 * low[side] + 0.5 * high[side]
        waiting += [(right, high), (low, left)]


def _bits(signs: NDArray[np.bool_]) -> int:
    """Truth values as the bits of a number."""
    return int.from_bytes(np.packbits(signs).tobytes(), "big")


@contextmanager
def _processes(jobs: int) -> Iterator[BoundAll]:
    """What bounds batches of parts, in one process or in several."""
    if jobs == 1:
        yield lambda bounder, batches: (bounder.bound(*batch) for batch in batches)
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


def _explore(explorer: Explorer, starts: Sequence[Start], deadline: Deadline) -> list[Subtree]:
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
