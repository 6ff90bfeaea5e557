"""Intervals of one operation in a type: of its exact result, and of what that is rounded to.

Adding 0 and multiplying by a power of 2 rounds no number of the type, so that the bounds of such a
result are those over the reals, to the bit, even where they are no numbers of the type themselves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_exact.graph.bounds import interval
from onnx_exact.graph.bounds.interval import Interval
from onnx_exact.graph.bounds.types import FloatType


def add(kind: FloatType, a: Interval, b: Interval) -> Interval:
    """a + b."""
    return kind.outward(interval.add(a, b), _is_zero(a) | _is_zero(b))


def multiply(kind: FloatType, a: Interval, b: Interval) -> Interval:
    """a * b for independent a and b."""
    return kind.outward(interval.multiply(a, b), _is_power(a) | _is_power(b))


def divide(kind: FloatType, a: Interval, b: Interval) -> Interval:
    """a / b; nothing is known where b may be 0."""
    return kind.outward(interval.divide(a, b), _is_power(b))


def _is_zero(x: Interval) -> NDArray[np.bool_]:
    return np.asarray((x.lower == 0.0) & (x.upper == 0.0))


def _is_power(x: Interval) -> NDArray[np.bool_]:
    """Where x is a power of 2, of either sign."""
    return np.asarray((x.lower == x.upper) & (np.abs(np.frexp(x.lower)[0]) == 0.5))
