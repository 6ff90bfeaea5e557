"""Interval bounds against exact extremes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_exact.bounds.interval import exact_extremes, interval_bounds, interval_maximum
from onnx_exact.network import Affine, Box, Chain
from tests.nets import (
    DENORMAL,
    NORMAL,
    assert_holds,
    exact_points,
    nasty_boxes,
    nasty_chains,
)
from tests.oracle.exact import exact_layers, preactivations

# Relative; far above the slack for a handful of terms, far below any real looseness.
TIGHT = 1e-13


@settings(max_examples=300)
@given(st.data())
def test_no_corner_lies_outside(data: st.DataObject) -> None:
    chain = data.draw(nasty_chains(layers=1))
    box = data.draw(nasty_boxes(chain.n_in))
    layers = exact_layers(chain)
    values = [preactivations(layers, point)[0] for point in exact_points(box)]
    assert_holds(*interval_bounds(chain.layers[0].affine, box.lower, box.upper), values)


@given(st.data())
def test_exact_extremes_are_attained_at_corners(data: st.DataObject) -> None:
    chain = data.draw(nasty_chains(layers=1))
    box = data.draw(nasty_boxes(chain.n_in))
    layers = exact_layers(chain)
    corners = [preactivations(layers, point)[0] for point in exact_points(box, inner=0)]
    for unit, values in enumerate(zip(*corners, strict=True)):
        found = exact_extremes(chain.layers[0].affine, unit, box.lower, box.upper)
        assert found == (min(values), max(values), 0)


@given(st.data())
def test_bounds_of_ordinary_numbers_are_tight(data: st.DataObject) -> None:
    ordinary = st.floats(0.01, 10.0).flatmap(lambda v: st.sampled_from([v, -v, 0.0]))
    chain = data.draw(nasty_chains(layers=1, numbers=ordinary))
    box = data.draw(nasty_boxes(chain.n_in, ordinary))
    affine = chain.layers[0].affine
    lower, upper = interval_bounds(affine, box.lower, box.upper)
    reach = np.maximum(np.abs(box.lower), np.abs(box.upper))
    scale = np.abs(affine.entries) @ reach + np.abs(affine.bias)
    for unit in range(affine.n_out):
        least, most, _ = exact_extremes(affine, unit, box.lower, box.upper)
        assert abs(float(most) - upper[unit]) <= TIGHT * scale[unit]
        assert abs(float(least) - lower[unit]) <= TIGHT * scale[unit]


def bounds(weight: list[float], bias: float, low: list[float], high: list[float]) -> tuple:
    affine = Affine(np.array([weight]), np.array([bias]))
    lower, upper = interval_bounds(affine, np.array(low), np.array(high))
    return lower[0], upper[0]


@pytest.mark.parametrize("bias", [0.0, -1.0, 0.1, -1e30, DENORMAL])
def test_terms_that_are_zero_add_nothing_not_even_slack(bias: float) -> None:
    assert bounds([0.0, 0.0], bias, [-1.0, 0.0], [5.0, 1e30]) == (bias, bias)
    assert bounds([3.0, 1e30], bias, [0.0, 0.0], [0.0, 0.0]) == (bias, bias)


def test_a_maximum_of_exactly_zero_is_zero() -> None:
    assert bounds([-3.0, -0.1], 0.0, [0.0, 0.0], [1.0, 1.0])[1] == 0.0
    assert bounds([3.0, 0.1], 0.0, [0.0, 0.0], [1.0, 1.0])[0] == 0.0


def test_infinite_sides_bound_only_what_they_cannot_move() -> None:
    inf = np.inf
    assert bounds([1.0], 0.5, [-inf], [inf]) == (-inf, inf)
    assert bounds([1.0], 0.0, [0.0], [inf]) == (0.0, inf)
    assert bounds([-1.0], 0.0, [0.0], [inf]) == (-inf, 0.0)
    assert bounds([1.0], 0.0, [-inf], [0.0]) == (-inf, 0.0)
    assert bounds([0.0, -1.0], 0.0, [-inf, 0.0], [inf, 0.0]) == (0.0, 0.0)
    assert bounds([1.0, 1.0], 0.0, [-inf, 2.0], [-1.0, inf]) == (-inf, inf)


@pytest.mark.parametrize("factor", [1.0, 1e-200, 1e30])
def test_what_an_infinite_side_cannot_move_allows_for_rounding(factor: float) -> None:
    """Sides that end on one side of 0, or some on either, and go on for ever on the other."""
    rng = np.random.default_rng(5)
    for case in range(200):
        weight, ends = np.abs(rng.normal(size=(2, 4)))
        weight, bias = factor * weight, -factor * float(weight @ ends)
        away = np.ones(4, dtype=bool) if case % 2 else rng.random(4) < 0.5
        sign = np.where(away, 1.0, -1.0)
        # Where the weights are as here, the least value is where every side ends.
        side = sign * ends
        low, high = np.where(away, side, -np.inf), np.where(away, np.inf, side)
        least = Fraction(bias) + sum(
            (Fraction(w) * Fraction(x) for w, x in zip(weight, ends, strict=True)), Fraction(0)
        )
        for turned in (1.0, -1.0):
            row = (turned * sign * weight).tolist()
            found = bounds(row, turned * bias, low.tolist(), high.tolist())
            if turned > 0.0:
                assert Fraction(float(found[0])) <= least
            else:
                assert -least <= Fraction(float(found[1]))


def test_what_overflows_has_no_bound_and_is_never_nan() -> None:
    assert bounds([1e200], 0.0, [-1e200], [1e200]) == (-np.inf, np.inf)
    # inf - inf on the way.
    assert bounds([1e200, -1e200], 0.0, [1e200] * 2, [1e200] * 2) == (-np.inf, np.inf)
    assert bounds([-1e200], 0.0, [1e200], [1e200]) == (-np.inf, np.inf)
    # Coefficients that overflowed before.
    value = interval_maximum(np.array([[np.inf, np.nan]]), np.zeros(1), -np.ones(2), np.ones(2))
    assert value.tolist() == [np.inf]


@pytest.mark.parametrize("bias", [1.0, 0.0, -1.0, -DENORMAL, 1e30])
@pytest.mark.parametrize(("w", "x"), [(1e-200, 1e-200), (DENORMAL, 0.4), (NORMAL, 2.0**-52)])
def test_products_that_underflow_are_not_lost(w: float, x: float, bias: float) -> None:
    least, most = bounds([w], bias, [-x], [x])
    exact = Fraction(w) * Fraction(x)
    assert Fraction(float(least)) <= Fraction(bias) - exact
    assert Fraction(bias) + exact <= Fraction(float(most))


def test_many_boxes_at_once_are_one_box_at_a_time() -> None:
    rng = np.random.default_rng(0)
    affine = Affine(rng.standard_normal((5, 4)), rng.standard_normal(5))
    low = rng.standard_normal((7, 4))
    high = low + rng.random((7, 4))
    high[2], low[3, 1] = np.inf, -np.inf
    lower, upper = interval_bounds(affine, low, high)
    assert lower.shape == upper.shape == (7, 5)
    for i in range(7):
        single = interval_bounds(affine, low[i], high[i])
        np.testing.assert_allclose(lower[i], single[0], rtol=TIGHT)
        np.testing.assert_allclose(upper[i], single[1], rtol=TIGHT)


def test_every_row_may_have_its_own_functional_in_every_box() -> None:
    rng = np.random.default_rng(1)
    weight, bias = rng.standard_normal((3, 2, 4)), rng.standard_normal((3, 2))
    low = rng.standard_normal((3, 4))
    value = interval_maximum(weight, bias, low, low + 1.0)
    for i in range(3):
        single = interval_maximum(weight[i], bias[i], low[i], low[i] + 1.0)
        np.testing.assert_allclose(value[i], single, rtol=TIGHT)


def test_bounds_are_those_of_the_chain_they_came_from() -> None:
    """A point box: both bounds close in on the forward pass."""
    chain = Chain.of([Affine(np.array([[2.0, -3.0]]), np.array([0.25]))])
    box = Box(np.array([1.5, 0.5]), np.array([1.5, 0.5]))
    lower, upper = interval_bounds(chain.layers[0].affine, box.lower, box.upper)
    assert lower[0] <= 1.75 <= upper[0]
    assert upper[0] - lower[0] < TIGHT * 10
