"""Nothing that was finite becomes infinite."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.network import Affine, Box, Chain
from onnx_exact.reduce import ReduceOptions, reduce_chain
from onnx_exact.reduce.overflow import may_overflow
from tests.reduce.states import F16, F32, F64

numbers = st.sampled_from([0.0, 1.0, -1.0, 3.0, -0.25]) | st.floats(-8.0, 8.0, width=32)


@given(st.lists(numbers, min_size=4, max_size=4), st.lists(numbers, min_size=6, max_size=6))
def test_no_order_of_summing_goes_beyond_what_is_bounded(
    row: list[float], sides: list[float]
) -> None:
    """Scaled so that the largest partial sum is just what a type holds, and a bit more."""
    low = [min(sides[2 * i : 2 * i + 2]) for i in range(3)]
    high = [max(sides[2 * i : 2 * i + 2]) for i in range(3)]
    terms = [[Fraction(w) * Fraction(v) for v in ends] for w, *ends in zip(row, low, high)]  # noqa: B905
    most = Fraction(0)
    for picks in ((a, b, c) for a in terms[0] for b in terms[1] for c in terms[2]):
        for order in permutations((*picks, Fraction(row[3]))):
            total = Fraction(0)
            for term in order:
                total += term
                most = max(most, abs(total))
    if not most:
        return
    limit = Fraction(float(np.finfo(np.float32).max))
    for share, wanted in ((Fraction(99, 100), False), (Fraction(101, 100), True)):
        factor = float(share * limit / most)
        affine = Affine(np.array([row[:3]]) * factor, np.array(row[3:]) * factor)
        assert may_overflow(affine, np.array(low), np.array(high), F32) is wanted


def shifted(scale: float, rows: int) -> tuple[Chain, Box]:
    """Units that are always on, half of them taken off again, beside one that changes sign.

    A single linear unit would do for them, shifted so that it is always on.
    """
    beside = np.zeros(rows)
    beside[:2] = -scale, scale
    first = Affine(np.vstack([np.eye(rows) * scale, beside]), np.zeros(rows + 1))
    read = np.where(np.arange(rows + 1) < rows // 2, 1.0, -1.0)[None, :]
    return Chain.of([first, Affine(read, np.zeros(1))]), Box(np.zeros(rows), np.ones(rows))


@pytest.mark.parametrize(
    ("dtype", "scale"), [(F16, 3000.0), (F32, 1.6e37), (F64, 8e306)], ids=["f16", "f32", "f64"]
)
def test_a_rewrite_by_which_a_sum_may_overflow_is_refused_with_its_reason(
    dtype: Any, scale: float
) -> None:
    chain, box = shifted(scale, 40)
    stability = analyze_chain(chain, box, Options(method="bounds"))
    reduction = reduce_chain(chain, stability, box, dtype, ReduceOptions())
    x = np.where(np.arange(40) < 20, 1.0, 0.0)[None, :]
    with np.errstate(over="ignore"):
        h = x.astype(dtype)
        for layer in reduction.chain.layers:
            h = h @ layer.affine.weight.T.astype(dtype) + layer.affine.bias.astype(dtype)
            h = np.maximum(h, 0) if layer.relu else h
    assert np.isfinite(h).all()
    assert any("exceed the largest" in refusal.reason for refusal in reduction.refused)


@pytest.mark.parametrize(
    ("dtype", "scale"), [(F16, 1000.0), (F32, 1e36), (F64, 1e306)], ids=["f16", "f32", "f64"]
)
def test_the_same_rewrite_is_made_where_there_is_room(dtype: Any, scale: float) -> None:
    chain, box = shifted(scale, 40)
    stability = analyze_chain(chain, box, Options(method="bounds"))
    reduction = reduce_chain(chain, stability, box, dtype, ReduceOptions())
    assert reduction.chain.connections < chain.connections


def test_a_layer_that_might_overflow_anyway_is_reduced() -> None:
    chain, box = shifted(1e38, 40)
    stability = analyze_chain(chain, box, Options(method="bounds"))
    reduction = reduce_chain(chain, stability, box, F32, ReduceOptions())
    assert reduction.chain.connections <= chain.connections
