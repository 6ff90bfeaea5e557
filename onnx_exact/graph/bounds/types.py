"""The number types of ONNX: what rounding to one of them does to an interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from onnx_exact.graph.bounds.interval import Interval
from onnx_exact.network.affine import Array


@dataclass(frozen=True)
class FloatType:
    """A binary floating-point type.

    Attributes:
        digits: of the significand, in bits, the leading one included.
        least_exponent: the smallest normal number is 2^least_exponent.
        largest: the largest finite number.
    """

    digits: int
    least_exponent: int
    largest: float

    @property
    def epsilon(self) -> float:
        """One unit in the last place of 1, twice the unit roundoff."""
        return float(2.0 ** (1 - self.digits))

    @property
    def smallest_normal(self) -> float:
        """Anything smaller may be flushed to 0."""
        return float(2.0**self.least_exponent)

    def gamma(self, operations: float) -> float:
        """gamma_n = n u / (1 - n u) (Higham 2002, section 3.1), infinite from n u = 1 on."""
        share = operations * self.epsilon / 2.0
        return share / (1.0 - share) if share < 1.0 else float("inf")

    def down(self, values: Array) -> Array:
        """The largest number of the type that is not above each value."""
        power = np.frexp(values)[1] - self.digits
        power = np.maximum(power, self.least_exponent + 1 - self.digits)
        rounded = np.ldexp(np.floor(np.ldexp(values, -power)), power)
        rounded = np.where(np.isfinite(values), rounded, values)
        rounded = np.where(rounded > self.largest, self.largest, rounded)
        return np.where(rounded < -self.largest, -np.inf, rounded)

    def up(self, values: Array) -> Array:
        """The smallest number of the type that is not below each value."""
        return -self.down(-values)

    def outward(self, x: Interval, exact: NDArray[np.bool_] | None = None) -> Interval:
        """Contains every value of x and what it is rounded to, to nearest or not.

        A side beyond the largest number may overflow and is infinite.

        Args:
            x: of the results over the reals.
            exact: where the results are numbers of the type unless they leave its normal range.
        """
        low, high = self.down(x.lower), self.up(x.upper)
        if exact is not None:
            low = np.where(exact & self._is_normal(x.lower), x.lower, low)
            high = np.where(exact & self._is_normal(x.upper), x.upper, high)
        return Interval(low, high, x.overflows)

    def _is_normal(self, values: Array) -> NDArray[np.bool_]:
        size = np.abs(values)
        return np.asarray((size == 0.0) | ((size >= self.smallest_normal) & (size <= self.largest)))

    def limited(self, x: Interval) -> Interval:
        """The same, but for sides beyond the largest number."""
        low = np.where(x.lower < -self.largest, -np.inf, np.minimum(x.lower, self.largest))
        high = np.where(x.upper > self.largest, np.inf, np.maximum(x.upper, -self.largest))
        return Interval(low, high, x.overflows)

    def flushed(self, x: Interval) -> Interval:
        """Contains every value of x, and 0 where x may be below the normal range."""
        least = self.smallest_normal
        low = np.where((x.lower > 0.0) & (x.lower < least), 0.0, x.lower)
        high = np.where((x.upper < 0.0) & (x.upper > -least), 0.0, x.upper)
        return Interval(low, high, x.overflows)


FLOAT_TYPES: dict[int, FloatType] = {
    TensorProto.FLOAT16: FloatType(11, -14, 65504.0),
    TensorProto.BFLOAT16: FloatType(8, -126, float(2.0**128 - 2.0**120)),
    TensorProto.FLOAT: FloatType(24, -126, float(np.finfo(np.float32).max)),
    TensorProto.DOUBLE: FloatType(53, -1022, float(np.finfo(np.float64).max)),
}

# Least and greatest number of each; those of 64 bits are rounded outward in float64.
INTEGER_TYPES: dict[int, tuple[float, float]] = {
    TensorProto.BOOL: (0.0, 1.0),
    **{
        getattr(TensorProto, f"UINT{bits}"): (0.0, float(2.0**bits - 1.0))
        for bits in (8, 16, 32, 64)
    },
    **{
        getattr(TensorProto, f"INT{bits}"): (
            -float(2.0 ** (bits - 1)),
            float(2.0 ** (bits - 1) - 1.0),
        )
        for bits in (8, 16, 32, 64)
    },
}
