"""Sums, products and quotients in float64 against the rationals that they stand for."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_exact.network.affine import Affine, Error
from onnx_exact.network.approximate import Approximate, affine_of, quotient

finite = st.floats(allow_nan=False, allow_infinity=False, width=64)
moderate = st.floats(-1e120, 1e120, allow_nan=False, width=64)
small_errors = st.floats(0.0, 1e3, allow_nan=False)


def exact(values: np.ndarray) -> list[Fraction]:
    return [Fraction(float(v)) for v in values.ravel()]


def error_of(numbers: Approximate) -> list[Fraction]:
    if numbers.error is None:
        return [Fraction(0)] * numbers.value.size
    return exact(numbers.error)


@given(finite, finite, st.sampled_from("+*"))
def test_sums_and_products_are_off_by_no_more_than_they_say(a: float, b: float, op: str) -> None:
    x, y = Approximate(np.array([a])), Approximate(np.array([b]))
    found = x + y if op == "+" else x * y
    if not np.isfinite(found.value).all():
        return
    true = Fraction(a) + Fraction(b) if op == "+" else Fraction(a) * Fraction(b)
    off = abs(Fraction(float(found.value[0])) - true)
    if found.error is None:
        assert off == 0
    elif np.isfinite(found.error).all():
        assert off <= error_of(found)[0]


@given(moderate, moderate, small_errors, small_errors, st.sampled_from("+*"))
def test_errors_of_the_terms_are_carried_on(
    a: float, b: float, e: float, f: float, op: str
) -> None:
    x = Approximate(np.array([a]), np.array([e]))
    y = Approximate(np.array([b]), np.array([f]))
    found = x + y if op == "+" else x * y
    for s in (-1, 1):
        for t in (-1, 1):
            p, q = Fraction(a) + s * Fraction(e), Fraction(b) + t * Fraction(f)
            true = p + q if op == "+" else p * q
            assert abs(Fraction(float(found.value[0])) - true) <= error_of(found)[0]


@given(moderate.filter(lambda v: abs(v) > 1e-300) | st.sampled_from([1.7e308, -1.1e308]))
def test_reciprocals_are_off_by_no_more_than_they_say(c: float) -> None:
    found = quotient(np.ones(1), np.array([c]))
    assert abs(Fraction(float(found.value[0])) - 1 / Fraction(c)) <= error_of(found)[0]


@pytest.mark.parametrize("c", [1.0, -2.0, 0.125, 2.0**100])
def test_reciprocals_of_powers_of_two_are_exact(c: float) -> None:
    assert quotient(np.ones(1), np.array([c])).error is None


@given(st.integers(0, 2**32), st.sampled_from([1.0, 1e-160, 1e100]), st.booleans())
def test_products_of_matrices_are_off_by_no_more_than_they_say(
    seed: int, size: float, with_errors: bool
) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(3, 5)) * size, rng.normal(size=(5, 2))
    left[rng.random(left.shape) < 0.4] = 0.0
    errors = [np.abs(rng.normal(size=v.shape)) * 1e-3 * with_errors for v in (left, right)]
    factors = [
        Approximate(v, e if with_errors else None)
        for v, e in zip((left, right), errors, strict=True)
    ]
    found = factors[0] @ factors[1]
    signs = [rng.choice([-1.0, 1.0], size=v.shape) for v in (left, right)]
    a, b = (
        [
            [Fraction(float(x)) + Fraction(float(s * e)) for x, s, e in zip(*rows, strict=True)]
            for rows in zip(v, sign, error, strict=True)
        ]
        for v, sign, error in zip((left, right), signs, errors, strict=True)
    )
    for i in range(3):
        for j in range(2):
            true = sum((a[i][k] * b[k][j] for k in range(5)), Fraction(0))
            off = abs(Fraction(float(found.value[i, j])) - true)
            assert off <= (0 if found.error is None else Fraction(float(found.error[i, j])))


def test_products_of_matrices_of_whole_numbers_are_exact() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 9, (4, 6)) / 8.0, rng.integers(-9, 9, (6, 3)) * 1.0
    assert (Approximate(a) @ Approximate(b)).error is None


def test_products_of_float32_numbers_are_exact() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=50).astype(np.float32).astype(np.float64) for _ in range(2))
    assert (Approximate(a) * Approximate(b)).error is None


tiny = st.sampled_from([2.0**-600, -(2.0**-600), 2.0**-1074, 2.0**-537, 0.25, 0.0, 1.0, 3.0])


@given(st.lists(tiny, min_size=8, max_size=8))
def test_what_underflows_is_within_its_error(numbers: list[float]) -> None:
    """Products, and products with numbers that are off themselves by what underflowed before."""
    left, right = np.array(numbers[:4]).reshape(2, 2), np.array(numbers[4:]).reshape(2, 2)
    once = Approximate(left) @ Approximate(right)
    twice, times = Approximate(left) @ once, Approximate(right) * once

    def true(i: int, j: int) -> Fraction:
        return sum((Fraction(left[i, k]) * Fraction(right[k, j]) for k in range(2)), Fraction(0))

    for i in range(2):
        for j in range(2):
            for found, exactly in (
                (once, true(i, j)),
                (twice, sum((Fraction(left[i, k]) * true(k, j) for k in range(2)), Fraction(0))),
                (times, Fraction(right[i, j]) * true(i, j)),
            ):
                off = abs(Fraction(float(found.value[i, j])) - exactly)
                assert off <= Fraction(float(found.off[i, j]))


def test_what_is_lost_in_a_sum_is_its_error() -> None:
    found = Approximate(np.array([2.0**60])) + Approximate(np.array([1.0]))
    assert found.value.tolist() == [2.0**60]
    assert found.error is not None
    assert 1.0 <= found.error[0] < 1.001


def test_what_overflows_has_no_map() -> None:
    large = Approximate(np.array([[1e300]]))
    with pytest.raises(ValueError, match=r"finite|known"):
        affine_of(large * Approximate(np.array([[1e300]])), Approximate(np.zeros(1)))


@given(st.integers(0, 2**32), st.booleans())
def test_a_map_is_off_by_no_more_than_it_says(seed: int, shared: bool) -> None:
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(3, 4)), rng.normal(size=3)
    error = Error(np.abs(rng.normal(size=(3, 4))) * 1e-6, np.abs(rng.normal(size=3)) * 1e-6)
    size = np.abs(rng.normal(size=4))
    found = Affine(weight, bias, error).off(size, shared=shared)
    for i in range(3):
        true = sum(
            (e * x for e, x in zip(exact(error.weight[i]), exact(size), strict=True)),
            Fraction(0) if shared else Fraction(float(error.bias[i])),
        )
        assert true <= Fraction(float(found[i]))


def test_infinite_inputs_count_only_where_a_weight_is_off() -> None:
    error = Error(np.array([[0.0, 1.0], [1.0, 0.0]]), np.zeros(2))
    off = Affine(np.ones((2, 2)), np.zeros(2), error).off(np.array([np.inf, 1.0]))
    assert np.isfinite(off).tolist() == [True, False]
