"""Numbers in float64 that are known to within an error each, as composing weights makes them.

Errors are rounded upward; results that are exact have none, so that what only moves or scales by
powers of two stays exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_exact.verifier.rounding import EXTRA, ROUNDOFF, SMALLEST, Array, add_up, mul_up


def _summed(a: Array, b: Array) -> Array:
    """Upper bounds on sums of products, but for rounding; what underflows is not lost."""
    return np.asarray(a @ b + SMALLEST * ((a > 0.0).astype(float) @ (b > 0.0).astype(float)))


@dataclass(frozen=True, eq=False)
class Ball:
    """|x - mid| <= err entry by entry; None for no error at all."""

    mid: Array
    err: Array | None = None

    @property
    def error(self) -> Array:
        """The errors, 0 where there are none."""
        return np.zeros_like(self.mid) if self.err is None else self.err

    @property
    def size(self) -> Array:
        """Upper bounds on the magnitudes."""
        return np.abs(self.mid) if self.err is None else add_up(np.abs(self.mid), self.err)

    @property
    def column(self) -> Ball:
        """Its entries one below the other."""
        return Ball(self.mid[:, None], None if self.err is None else self.err[:, None])

    def _made(self, mid: Array, other: Ball, err: Array, rounding: Array, n: int) -> Ball:
        """A result that is off by `err`, and by the rounding of n operations on `rounding`."""
        if self.err is None and other.err is None and not rounding.any():
            return Ball(mid)
        slack = (n + EXTRA) * (ROUNDOFF * rounding + SMALLEST * (rounding > 0.0))
        return Ball(mid, (err + slack) * (1.0 + (n + EXTRA) * ROUNDOFF))

    def __mul__(self, other: Ball) -> Ball:
        mid = self.mid * other.mid
        err = mul_up(np.abs(self.mid), other.error) + mul_up(self.error, other.size)
        # Products of numbers of float32 are exact: they do not underflow either.
        with np.errstate(over="ignore"):
            short = bool(np.all(np.abs(other.mid) == 1.0)) or all(
                (v == v.astype(np.float32)).all() for v in (self.mid, other.mid)
            )
        used = (self.mid != 0.0) & (other.mid != 0.0) & (not short)
        return self._made(mid, other, err, np.maximum(np.abs(mid), SMALLEST) * used, 1)

    def __add__(self, other: Ball) -> Ball:
        mid = self.mid + other.mid
        back = mid - self.mid
        lost = (self.mid - (mid - back)) + (other.mid - back)
        return self._made(mid, other, self.error + other.error, np.abs(mid) * (lost != 0.0), 1)

    def __matmul__(self, other: Ball) -> Ball:
        err = _summed(np.abs(self.mid), other.error) + _summed(self.error, other.size)
        rounding = _summed(np.abs(self.mid), np.abs(other.mid))
        return self._made(self.mid @ other.mid, other, err, rounding, self.mid.shape[1])

    @property
    def inverse(self) -> Ball:
        """1 / x; without a bound where x may be 0."""
        mid = 1.0 / self.mid
        if self.err is None and (np.abs(np.frexp(self.mid)[0]) == 0.5).all():
            return Ball(mid)
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = self.error / (np.abs(self.mid) - self.error)
        relative = np.where(self.error < np.abs(self.mid), relative, np.inf)
        return Ball(mid, np.abs(mid) * (relative + EXTRA * ROUNDOFF) * 1.0000001 + SMALLEST)

    @property
    def root(self) -> Ball:
        """The square root of positive numbers."""
        mid = np.sqrt(self.mid)
        # |sqrt(x) - sqrt(m)| = |x - m| / (sqrt(x) + sqrt(m)).
        return Ball(mid, (self.error / mid + EXTRA * ROUNDOFF * mid) * 1.0000001)
