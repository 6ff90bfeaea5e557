"""Branching on ReLUs for the open signs of a layer, in one process or in several."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_exact.bab.relu_split.search import exclude_sign, split_sign
from onnx_exact.bab.trees import ReluTree
from onnx_exact.bounds.crown import Relaxation
from onnx_exact.deadline import Deadline
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.memory import keep_memory
from onnx_exact.network.affine import Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.threads import one_thread

# Signs of a layer that may be left open one after another: the rest is farther from settled.
MOST_FAILURES = 12
# What is done within so many seconds is not worth starting processes for.
ALONE_SECONDS = 3.0

# The unit, and whether it is its positive values that are to be excluded or shown.
Sign = tuple[int, bool]


@dataclass(frozen=True, eq=False)
class _Found:
    """What a process of its own found: points worth showing, or the tree that excludes the sign."""

    points: Array
    tree: ReluTree | None


class Splitter:
    """Settles signs layer by layer.

    Args:
        knowledge: receives bounds, trees and witnesses.
        deadline: of all layers together.
        jobs: processes, by joblib and whatever backend it is set to.
        tell: called before each sign.
    """

    def __init__(
        self, knowledge: Knowledge, deadline: Deadline, jobs: int, tell: Callable[[int], None]
    ) -> None:
        self._knowledge, self._deadline, self._jobs, self._tell = knowledge, deadline, jobs, tell
        self._used = 0.0
        self._failed = 0

    def settle(
        self, layer: int, signs: Iterable[Sign], below: Sequence[Relaxation], seconds: float
    ) -> None:
        """Tries one sign of a layer after another, until too many in a row stay open.

        Args:
            layer: index.
            signs: the most promising first.
            below: relaxations of the layers before, at least one.
            seconds: for a single sign.
        """
        self._failed, begin = 0, time.monotonic()
        asked = self._asked(layer, signs)
        for unit, positive in asked:
            limit = Deadline(self._within(seconds))
            self._count(split_sign(self._knowledge, layer, unit, positive, below, limit))
            if self._jobs > 1 and self._used + time.monotonic() - begin > ALONE_SECONDS:
                self._settle_together(layer, asked, below, seconds)
        self._used += time.monotonic() - begin

    def _settle_together(
        self, layer: int, asked: Iterator[Sign], below: Sequence[Relaxation], seconds: float
    ) -> None:
        """Several signs at once; whatever is shown meanwhile counts for those not begun yet."""
        from joblib import Parallel, delayed

        chain, box = self._knowledge.chain, self._knowledge.box
        pool = Parallel(self._jobs, return_as="generator", pre_dispatch="n_jobs", batch_size=1)
        answers: Iterable[tuple[Sign, _Found]] = pool(
            delayed(_split_apart)(chain, box, layer, sign, below, self._within(seconds))
            for sign in asked
        )
        for (unit, positive), found in answers:
            self._knowledge.show(found.points)
            if found.tree:
                exclude_sign(self._knowledge, found.tree)
            self._count(not self._is_open(layer, unit, positive))

    def _asked(self, layer: int, signs: Iterable[Sign]) -> Iterator[Sign]:
        """The signs that are still open when their turn comes, as long as trying pays."""
        for unit, positive in signs:
            if self._failed >= MOST_FAILURES or self._deadline.passed:
                return
            if self._is_open(layer, unit, positive):
                self._tell(layer)
                yield unit, positive

    def _is_open(self, layer: int, unit: int, positive: bool) -> bool:
        return bool(self._knowledge.splittable_signs(layer)[0 if positive else 1][unit])

    def _count(self, settled: bool) -> None:
        self._failed = 0 if settled else self._failed + 1

    def _within(self, seconds: float) -> float:
        return min(seconds, self._deadline.remaining)


def _split_apart(
    chain: Chain, box: Box, layer: int, sign: Sign, below: Sequence[Relaxation], seconds: float
) -> tuple[Sign, _Found]:
    """Tries a sign in a process of its own, which knows nothing but the relaxations."""
    unit, positive = sign
    knowledge = Knowledge(chain, box)
    keep_memory()
    with one_thread(), np.errstate(over="ignore", invalid="ignore"):
        split_sign(knowledge, layer, unit, positive, below, Deadline(seconds))
    tree = next((tree for tree in knowledge.trees if isinstance(tree, ReluTree)), None)
    return sign, _Found(knowledge.witnesses, tree)
