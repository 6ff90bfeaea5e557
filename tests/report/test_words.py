"""Bounds as they are printed are still bounds."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from onnx_exact.report.words import at_least, at_most

# Where three digits can be told from the next three.
SIZES = st.floats(1e-300, 1e300)
NUMBERS = st.just(0.0) | SIZES | SIZES.map(lambda size: -size)


@given(NUMBERS, st.integers(1, 4))
def test_printed_bounds_are_bounds_and_near(value: float, digits: int) -> None:
    low, high = at_least(value, digits), at_most(value, digits)
    assert Fraction(low) <= Fraction(value) <= Fraction(high)
    assert float(high) - float(low) <= 10.0 ** (1 - digits) * abs(value) * 1.01


def test_no_bound_is_printed_as_one() -> None:
    assert (at_least(-math.inf), at_most(math.inf)) == ("-inf", "inf")
