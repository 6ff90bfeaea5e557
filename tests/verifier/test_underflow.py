"""Numbers of folds in the checker where products underflow."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onnx_exact.verifier.balls import Ball

tiny = st.sampled_from([2.0**-600, -(2.0**-600), 2.0**-1074, 2.0**-537, 2.0**-10, 0.0, 1.0, 3.0])


@given(st.lists(tiny, min_size=3, max_size=3), st.booleans())
def test_what_underflows_is_within_the_error_of_what_follows(
    numbers: list[float], matrices: bool
) -> None:
    """a b, and (a b) c, where a b may be 0 in float64 and c is a short number."""
    a, b, c = (Ball(np.array([[v]])) for v in numbers)
    first = a @ b if matrices else a * b
    second = first @ c if matrices else first * c
    x, y, z = map(Fraction, numbers)
    for found, exact in ((first, x * y), (second, x * y * z)):
        off = abs(Fraction(float(found.mid[0, 0])) - exact)
        assert off <= Fraction(float(found.error[0, 0]))
