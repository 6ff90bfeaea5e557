"""The outputs of two models held against each other, and against a tolerance.

Where the chains that were replaced are known, they are judged by themselves: how far the nodes
behind them let the outputs move, over a rounding step or past a maximum, says nothing of the
result. Then only a tolerance that the user gives decides here, and that nothing finite becomes
infinite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact.errors import ValidationError
from onnx_exact.inputs.feeds import Feed

# The tolerance where nothing else judges two models, in units of the last place of an output's
# largest value. Real float32 networks with units removed, merged and folded were seen to differ by
# up to 55 such units, from nothing but another order of summing; these allow five times that.
# onnxruntime rounds float16 once a node rather than once a product, so fewer units do there.
ROUNDING_UNITS = {"float16": 16.0, "float32": 256.0, "float64": 256.0}
# The same in absolute terms, for outputs near zero that are differences of values near 1.
FLOOR_UNITS = 16.0


@dataclass(frozen=True)
class Tolerance:
    """What outputs may differ by.

    Attributes:
        rtol, atol: as the user gave them; a and b agree if |a - b| <= atol + rtol |a|. With one
            of them the other is 0.
        default: whether, without either, units in the last place are allowed instead of anything.
    """

    rtol: float | None
    atol: float | None
    default: bool

    @property
    def given(self) -> bool:
        """Whether the user gave one."""
        return self.rtol is not None or self.atol is not None

    @property
    def judges(self) -> bool:
        """Whether a difference can be too large."""
        return self.given or self.default

    def absolute(self, dtype: np.dtype[Any], size: float) -> float:
        """What is allowed for an output of that type and largest value, on top of `rtol`."""
        if self.given:
            return self.atol or 0.0
        if not self.default:
            return math.inf
        if dtype.kind != "f":
            return 0.0
        return float(np.finfo(dtype).eps) * (ROUNDING_UNITS[dtype.name] * size + FLOOR_UNITS)


class Comparison:
    """The largest differences seen, output by output."""

    def __init__(self, tolerance: Tolerance) -> None:
        self.points = 0
        self._tolerance = tolerance
        self._worst: dict[str, _Worst] = {}

    def add(self, feed: Feed, points: int, before: Feed, after: Feed) -> None:
        """Takes in the outputs of both models for one feed.

        Raises:
            ValidationError: outputs of other names, types or shapes, or nan or infinity where the
                model before has a finite value.
        """
        self.points += points
        if list(before) != list(after):
            raise ValidationError(
                "the rewritten model gives a sequence or map of other length", feed
            )
        for name, expected in before.items():
            found = after[name]
            if found.dtype != expected.dtype or found.shape != expected.shape:
                raise ValidationError(
                    f"output {name!r} was {expected.dtype} of shape {expected.shape} and is now"
                    f" {found.dtype} of shape {found.shape}",
                    feed,
                )
            if expected.dtype.kind == "f" and (np.isfinite(expected) & ~np.isfinite(found)).any():
                raise ValidationError(
                    f"output {name!r} differs: it was finite and is now nan or infinite", feed
                )
            self._worst.setdefault(name, _Worst(expected.dtype)).add(
                feed, expected, found, self._tolerance
            )

    def result(self) -> tuple[float, str]:
        """The largest difference, and the output where it was seen.

        Raises:
            ValidationError: one is beyond the tolerance; it names the worst output.
        """
        tolerance = self._tolerance
        beyond = {
            name: worst.excess / allowed if allowed else math.inf
            for name, worst in self._worst.items()
            if worst.excess > (allowed := worst.allowed(tolerance))
        }
        if beyond:
            name = max(beyond, key=lambda n: beyond[n])
            worst, relative = self._worst[name], tolerance.rtol or 0.0
            raise ValidationError(
                f"output {name!r} differs by {worst.excess_difference:.3g} where"
                f" {worst.allowed(tolerance):.3g} {f'+ {relative:g} |value| ' * bool(relative)}"
                f"is allowed; {len(beyond)} of {len(self._worst)} outputs differ",
                worst.feed,
            )
        name = max(self._worst, key=lambda n: self._worst[n].largest)
        return self._worst[name].largest, name


class _Worst:
    """The largest differences seen in one output."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._size = 0.0
        self.largest = 0.0  # absolute difference
        self.excess = 0.0  # the difference beyond rtol times the value
        self.excess_difference = 0.0
        self.feed: Feed | None = None

    def add(
        self, feed: Feed, before: NDArray[Any], after: NDArray[Any], tolerance: Tolerance
    ) -> None:
        """Takes in one pair of arrays of the same shape."""
        if not before.size:
            return
        difference, size = _differences(before, after)
        if not tolerance.judges:
            # Where the old model overflows there is nothing to be told.
            difference = np.where(np.isfinite(difference), difference, 0.0)
        self._size = max(self._size, float(size.max()))
        self.largest = max(self.largest, float(difference.max()))
        excess = difference - (tolerance.rtol or 0.0) * size
        worst = int(excess.argmax())
        if excess.flat[worst] > self.excess:
            self.excess = float(excess.flat[worst])
            self.excess_difference = float(difference.flat[worst])
            self.feed = {name: array.copy() for name, array in feed.items()}

    def allowed(self, tolerance: Tolerance) -> float:
        """What is allowed on top of a relative tolerance."""
        return tolerance.absolute(self._dtype, self._size)


def _differences(
    before: NDArray[Any], after: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """|a - b|, infinite where only one is a finite number, and |a|, 0 where it is not finite."""
    if before.dtype.kind not in "fiub":
        # Strings: equal or not.
        return np.where(before == after, 0.0, np.inf), np.zeros(before.shape)
    a, b = before.astype(np.float64), after.astype(np.float64)
    same = (before == after) | (np.isnan(a) & np.isnan(b))
    finite = np.isfinite(a) & np.isfinite(b)
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.where(finite, np.abs(a - b), np.inf))
    return difference, np.where(np.isfinite(a), np.abs(a), 0.0)
