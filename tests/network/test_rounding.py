"""The error bounds themselves, against sums in rational arithmetic."""

from __future__ import annotations

from fractions import Fraction
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_exact.network import Chain
from onnx_exact.network.rounding import (
    CACHED,
    SMALLEST,
    UNIT_ROUNDOFF,
    absolute_sum,
    forward_error,
    gamma,
    slack,
    smallest_nonzero,
    total_terms,
)
from tests.nets import DENORMAL, nasty, nasty_boxes, nasty_chains
from tests.oracle.exact import exact_layers, preactivations
from tests.structures import STRUCTURES


def test_gamma_is_beyond_what_n_roundings_can_do() -> None:
    for n in (1, 10, 3072):
        exact = Fraction(n) * Fraction(UNIT_ROUNDOFF)
        assert Fraction(gamma(n)) > exact / (1 - exact)


def test_units_are_those_of_float64() -> None:
    assert 1.0 + UNIT_ROUNDOFF == 1.0 < 1.0 + 2.0000001 * UNIT_ROUNDOFF
    assert SMALLEST > 0.0 == SMALLEST / 2


@settings(max_examples=200)
@given(st.lists(st.tuples(nasty, nasty), min_size=1, max_size=30), st.randoms())
def test_slack_covers_a_product_summed_in_any_order(pairs: list, random: Random) -> None:
    exact = sum(Fraction(a) * Fraction(b) for a, b in pairs)
    random.shuffle(pairs)
    computed = magnitude = 0.0
    for a, b in pairs:
        computed += a * b
        magnitude += abs(a * b)
    if not np.isfinite(magnitude):
        return
    bound = slack(np.array([magnitude]), len(pairs), 2 * len(pairs) * SMALLEST)[0]
    assert abs(Fraction(computed) - exact) <= Fraction(float(bound))


def test_slack_of_no_terms_is_zero() -> None:
    assert slack(np.zeros(2), 5).tolist() == [0.0, 0.0]


def test_a_constant_counts_as_a_term_unless_it_stands_alone() -> None:
    magnitude, constant = np.array([0.0, 1.0]), np.array([-3.0, -3.0])
    assert total_terms(magnitude, constant, 0.0).tolist() == [0.0, 4.0]
    assert total_terms(magnitude, constant, DENORMAL).tolist() == [3.0, 4.0]


def test_terms_that_overflowed_are_not_taken_for_zero() -> None:
    assert np.isnan(total_terms(np.array([np.nan]), np.array([1.0]), 0.0)).all()


def test_smallest_nonzero_looks_at_magnitudes_and_passes_zeros_over() -> None:
    assert smallest_nonzero(np.array([[0.0, -2.0], [5.0, -0.0]])) == 2.0
    assert smallest_nonzero(np.array([DENORMAL, 1.0])) == DENORMAL
    assert smallest_nonzero(np.zeros(3)) == np.inf


@pytest.mark.parametrize("place", [0, CACHED - 1, CACHED, 2 * CACHED])
def test_smallest_nonzero_looks_at_every_entry_of_a_large_array(place: int) -> None:
    values = np.full((2, CACHED + 1), -1.0)
    values.flat[place] = 0.5
    assert smallest_nonzero(values) == 0.5
    assert smallest_nonzero(np.asfortranarray(values)) == 0.5


factors = st.sampled_from([0.0, DENORMAL, 1e-310, 1e-200, 1e-160, 0.1, 1.0, 3.0, 1e100])


@settings(max_examples=200)
@given(st.integers(1, 4), st.integers(1, 4), st.data(), st.sampled_from(list(STRUCTURES)))
def test_sums_of_sizes_are_bounded_from_above_and_0_only_without_a_term(
    rows: int, columns: int, data: st.DataObject, name: str
) -> None:
    drawn = st.lists(factors, min_size=rows * columns, max_size=rows * columns)
    sizes = np.array(data.draw(drawn)).reshape(rows, columns)
    x = np.array(data.draw(st.lists(factors, min_size=columns, max_size=columns)))
    found = absolute_sum(STRUCTURES[name](sizes), x)
    for row, bound in zip(sizes, found, strict=True):
        exact = sum(
            (Fraction(float(a)) * Fraction(float(b)) for a, b in zip(row, x, strict=True)),
            Fraction(0),
        )
        assert exact <= Fraction(float(bound))
        assert (bound == 0.0) == (exact == 0)


def test_an_infinite_size_counts_where_its_entry_is_not_0() -> None:
    sizes = STRUCTURES["dense"](np.array([[1.0, 0.0], [0.0, 2.0], [1e300, 0.0]]))
    assert absolute_sum(sizes, np.array([1.0, np.inf])).tolist()[1] == np.inf
    assert np.isfinite(absolute_sum(sizes, np.array([1.0, np.inf]))[[0, 2]]).all()
    assert absolute_sum(sizes, np.array([1e300, 0.0])).tolist()[2] == np.inf
    np.testing.assert_array_equal(absolute_sum(sizes, np.zeros((4, 2))), np.zeros((4, 3)))


@settings(max_examples=200)
@given(nasty_chains(layers=1), st.data(), st.sampled_from([0.0, 1e-12, 1e-3]))
def test_a_layer_computed_from_inputs_that_are_off_is_within_its_error(
    chain: Chain, data: st.DataObject, share: float
) -> None:
    box = data.draw(nasty_boxes(chain.n_in))
    affine, x = chain.layers[0].affine, box.lower
    error = share * np.abs(x)
    with np.errstate(over="ignore", invalid="ignore"):
        moved, computed = x + error, affine.apply(x)
        found = forward_error(affine, np.abs(x), error + 2.0**-52 * np.abs(moved))
    exact = preactivations(exact_layers(chain), [Fraction(float(v)) for v in moved])[0]
    for value, truth, bound in zip(computed, exact, found, strict=True):
        if np.isfinite(bound):
            assert abs(Fraction(float(value)) - truth) <= Fraction(float(bound))
