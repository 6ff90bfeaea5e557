"""A new chain held against the old one, in float64 and in onnxruntime, at points of the domain.

In float64 first, where rounding hides little. The nodes that were written compute what the reduced
chain does, within the rounding of two evaluations; and that is the old chain within the certified
deviation and the rounding of two evaluations. Where there is no certified deviation (an infinite
domain) the second half is left out. Whatever is beyond is refused.

Then in onnxruntime, where both round. What the old chain is off from its own float64 value at the
same points says what rounding does there, in an ill-conditioned network as in any other: a multiple
of it is what the new chain may differ from the old by. What is beyond that is reported, up to what
rounding could do by a running error analysis, which is thousands of times what it does; what is
beyond that is refused.

Where a chain lies behind another its inputs differ in the two models. What they explain, the
difference of the old chain's values in float64, is taken off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from onnx_exact.errors import ValidationError
from onnx_exact.graph.index import Index
from onnx_exact.graph.layout import Layout
from onnx_exact.graph.locate import LocatedChain
from onnx_exact.inputs.feeds import Feed
from onnx_exact.network.affine import Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.network.split import SplitChain
from onnx_exact.validate.forward import FLOAT64, Pass, nodes_rounding, run_forward
from onnx_exact.validate.rounding import SeenRounding
from onnx_exact.validate.written import WrittenChain

# Numbers in one layer of the points that are judged at once: bounds the memory.
ENTRIES_AT_ONCE = 2**21


@dataclass(frozen=True, eq=False)
class Rewritten:
    """A chain of the old model and what took its place.

    Attributes:
        located: the old chain.
        network: the new one, with the numbers that are to be in the file.
        box: the domain of its inputs.
        certified: a bound on |new - old| over the box in real arithmetic; None where none is known.
        plain: whether a runtime computes with the old chain's own numbers.
    """

    located: LocatedChain
    network: Chain | SplitChain
    box: Box
    certified: float | None
    plain: bool


@dataclass(frozen=True)
class ChainDeviation:
    """How far a new chain was from the old one in onnxruntime, at the output where it is furthest.

    Attributes:
        of: the tensor that the chain makes.
        observed: largest difference of new and old.
        rounding: largest difference of old and its own float64 value.
        expected: what is expected of rounding at most: a multiple of that.
        float64: largest difference of the new chain as written and the old one, both in float64.
    """

    of: str
    observed: float
    rounding: float
    expected: float
    float64: float

    @property
    def unexpected(self) -> bool:
        """Whether rounding as it is observed does not explain the difference."""
        return self.observed > self.expected


@dataclass(frozen=True, eq=False)
class _Values:
    """A chain's inputs and outputs in both models for one feed, as points.

    None stands for values that are those of the field before.
    """

    feed: Feed
    read_before: Array
    read_after: Array | None
    within: Array | None
    made_before: Array
    made_after: Array
    written: Array
    original: Array | None

    def part(self, points: slice) -> _Values:
        """Some of the points."""

        def cut(array: Array | None) -> Array | None:
            return None if array is None else array[points]

        return replace(
            self,
            read_before=self.read_before[points],
            read_after=cut(self.read_after),
            within=cut(self.within),
            made_before=self.made_before[points],
            made_after=self.made_after[points],
            written=self.written[points],
            original=cut(self.original),
        )


class ChainJudge:
    """Judges one chain, some hundreds of points at a time."""

    def __init__(self, rewritten: Rewritten, old: ModelProto, new: ModelProto) -> None:
        """Takes both chains out of their files.

        Args:
            rewritten: the chain.
            old, new: the models, with external data loaded; not needed any more after that.

        Raises:
            ValidationError: the new chain reads something else.
        """
        self._chain, located = rewritten, rewritten.located
        self.read, self.made = located.input, located.output
        self._into, self._out = located.sites[0].layout_in, located.sites[-1].layout_out
        original = Index(old)
        self._written = WrittenChain(new, self.read, self.made, original)
        # What a runtime computes where more was folded into the chain's numbers.
        folded = not rewritten.plain and located.dtype != FLOAT64
        self._original = WrittenChain(old, self.read, self.made, original) if folded else None
        layers = (*located.chain.layers, *rewritten.network.layers)
        self._widest = max(located.chain.n_in, *(layer.width for layer in layers))
        self._values: list[_Values] = []
        self._observed, self._float64 = np.zeros(located.chain.n_out), 0.0
        self._nodes = self._nodes_as_run = np.zeros(located.chain.n_out)
        self._rounding = SeenRounding(located.chain.n_out, located.dtype, not rewritten.plain)

    def add(self, feed: Feed, before: Feed, after: Feed) -> None:
        """Takes in the chain's tensors, by name, of both models for one feed.

        Raises:
            ValidationError: of points that were added so far.
        """
        made = [_points(values[self.made], self._out) for values in (before, after)]
        read = read_after = _points(before[self.read], self._into)
        if not read.size:
            return
        if after[self.read] is not before[self.read]:
            read_after = _points(after[self.read], self._into)
        # Rounding in front of the chain may leave its domain, where nothing was promised.
        inside = self._chain.box.contains(read_after)
        within = read_after if inside else self._chain.box.clip(read_after)
        shape = after[self.read].shape
        written = _points(self._written.run(_tensor(within, self._into, shape)), self._out)
        original = None
        if self._original is not None:
            original = _points(self._original.run(_tensor(read, self._into, shape)), self._out)
        moved = None if read_after is read else read_after
        clipped = None if inside else within
        values = _Values(feed, read, moved, clipped, made[0], made[1], written, original)
        at_once = max(1, ENTRIES_AT_ONCE // self._widest)
        for start in range(0, len(read), at_once):
            self._values.append(values.part(slice(start, start + at_once)))
            if sum(len(v.read_before) for v in self._values) >= at_once:
                self.judge()

    def judge(self) -> None:
        """Judges the points that were added since the last time.

        Raises:
            ValidationError: the new chain is not the old one.
        """
        values, self._values = self._values, []
        if not values:
            return
        dtype, chain = self._chain.located.dtype, self._chain.located.chain
        before = after = _all(values, "read_before")
        old = old_after = run_forward(chain, before, dtype)
        if any(v.read_after is not None for v in values):
            after = _all(values, "read_after", "read_before")
            old_after = run_forward(chain, after, dtype)
        within, old_within = after, old_after
        if any(v.within is not None for v in values):
            within = _all(values, "within", "read_after", "read_before")
            old_within = run_forward(chain, within, dtype)
        new = run_forward(self._chain.network, within, dtype)
        self._nodes, self._nodes_as_run = (
            nodes_rounding(self._chain.located, before, kind) for kind in (FLOAT64, dtype)
        )
        self._see(values, old, new)
        self._in_float64(values, old_within, new)
        self._in_onnxruntime(values, old, old_after, new)

    def _see(self, values: Sequence[_Values], old: Pass, new: Pass) -> None:
        """Looks at what rounding does to the old chain."""
        before = _all(values, "made_before")
        known = np.isfinite(before) & old.finite[:, None]
        own = old.values if self._original is None else _all(values, "original")
        errors = _most(_apart(before, own, known))
        sizes = _most(np.where(known, np.abs(before), 0.0))
        self._rounding.add(errors, old.runtime, new.runtime, sizes)
        if self._original is not None:
            self._refuse(
                values,
                _apart(own, old.values, known),
                self._rounding.expected + old.float64 + self._nodes,
                "the chain that was read is not the original's: in float64",
            )

    def _in_float64(self, values: Sequence[_Values], old: Pass, new: Pass) -> None:
        written = _all(values, "written")
        finite = old.finite & new.finite
        between = self._rounding.between_nodes
        self._refuse(
            values,
            _apart(written, new.values, finite),
            2 * new.float64 + between + self._nodes,
            "the chain that was written is not the reduced one: in float64",
        )
        apart = _apart(written, old.values, finite)
        self._float64 = max(self._float64, float(apart.max(initial=0.0)))
        if self._chain.certified is not None:
            self._refuse(
                values,
                apart,
                self._chain.certified + old.float64 + new.float64 + between + self._nodes,
                "the new chain is not the old one: in float64",
            )

    def _in_onnxruntime(
        self, values: Sequence[_Values], old: Pass, old_after: Pass, new: Pass
    ) -> None:
        before, after = _all(values, "made_before"), _all(values, "made_after")
        known = np.isfinite(before)
        self._refuse(
            values,
            np.where(known & ~np.isfinite(after), np.inf, 0.0),
            np.zeros(before.shape[1]),
            "nan or infinity where the original's values are finite: the new chain",
        )
        finite = (old.finite & old_after.finite & new.finite)[:, None] & known
        with np.errstate(invalid="ignore"):
            moved = old_after.values - old.values
            apart = np.where(finite, np.abs(after - before - moved), 0.0)
        self._observed = np.maximum(self._observed, _most(apart))
        self._refuse(
            values,
            apart,
            self._rounding.expected
            + (old.runtime + new.runtime + 2.0 * self._nodes_as_run)
            + (self._chain.certified or 0.0),
            "the new chain differs from the old one by more than rounding can: in onnxruntime",
        )

    def _refuse(self, values: Sequence[_Values], apart: Array, allowed: Array, what: str) -> None:
        """Raises if a difference is larger than what is allowed for that output."""
        excess = apart - allowed
        if not (excess > 0.0).any():
            return
        row, output = np.unravel_index(int(np.nanargmax(excess)), excess.shape)
        ends = np.cumsum([len(v.read_before) for v in values])
        feed = values[int(np.searchsorted(ends, row, side="right"))].feed
        raise ValidationError(
            f"{what}, entry {output} of {self.made!r} differs by {apart[row, output]:.3g} where"
            f" {allowed[output]:.3g} is allowed",
            {name: array.copy() for name, array in feed.items()},
        )

    def result(self) -> ChainDeviation:
        """What was seen, at the output that differs most for its rounding.

        Raises:
            ValidationError: of points that were added last.
        """
        self.judge()
        expected = self._rounding.expected
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(self._observed > 0.0, self._observed / expected, 0.0)
        worst = int(ratio.argmax())
        return ChainDeviation(
            self.made,
            float(self._observed[worst]),
            float(self._rounding.errors[worst]),
            float(expected[worst]),
            self._float64,
        )


def _all(values: Sequence[_Values], *names: str) -> Array:
    """One kind of values for all points: of each feed the first by these names that there is."""
    kinds = ([getattr(v, name) for name in names] for v in values)
    return np.concatenate([next(a for a in kind if a is not None) for kind in kinds])


def _points(tensor: NDArray[np.generic], layout: Layout) -> Array:
    """A tensor as points, float64 of shape (positions, features)."""
    axes = (slice(layout.start), slice(layout.start, layout.stop), slice(layout.stop, None))
    lead, features, trail = (math.prod(tensor.shape[part]) for part in axes)
    split = np.asarray(tensor, dtype=np.float64).reshape(lead, features, trail)
    return np.ascontiguousarray(split.transpose(0, 2, 1)).reshape(-1, features)


def _tensor(points: Array, layout: Layout, shape: tuple[int, ...]) -> Array:
    """The tensor of that shape that has these points."""
    lead = math.prod(shape[: layout.start])
    split = points.reshape(lead, -1, points.shape[1])
    return np.ascontiguousarray(split.transpose(0, 2, 1)).reshape(shape)


def _apart(first: Array, second: Array, where: NDArray[np.bool_]) -> Array:
    """|first - second|, infinite where only one is finite, 0 where `where` does not hold."""
    where = where if where.ndim == 2 else where[:, None]
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(first - second)
    return np.where(where, np.where(np.isnan(apart), np.inf, apart), 0.0)


def _most(values: Array) -> Array:
    """The largest of each column."""
    return np.asarray(values.max(axis=0, initial=0.0))
