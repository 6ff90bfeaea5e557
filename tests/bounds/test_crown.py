"""Backward linear bounds against exact values, on numbers that break naive arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_exact.bounds import crown
from onnx_exact.bounds.interval import interval_bounds
from onnx_exact.network import Affine, Box
from tests.nets import (
    DENORMAL,
    NORMAL,
    assert_holds,
    bounded,
    box_of,
    chain_of,
    cube,
    exact_values,
    nasty,
    nasty_boxes,
    nasty_chains,
    random_chain,
    relaxations_of,
)
from tests.oracle.networks import SOURCES, random_case
from tests.oracle.regions import enumerate_regions

TIGHT = 1e-12  # relative, for sums taken in another order
tiny = st.sampled_from(
    [0.0, DENORMAL, -DENORMAL, 1e-310, -1e-200, 1e-160, NORMAL, 1.0, -1.0, 1e150]
)
huge = st.sampled_from([0.0, 1.0, -1.0, 1e100, -1e150, 1e200, -1e300, 1e-200])


@settings(max_examples=250)
@given(st.data(), st.sampled_from([nasty, tiny, huge]))
def test_no_value_lies_outside_the_bounds_of_any_layer(
    data: st.DataObject, numbers: st.SearchStrategy
) -> None:
    chain = data.draw(nasty_chains(numbers=numbers))
    box = data.draw(nasty_boxes(chain.n_in, numbers))
    knowledge, _ = bounded(chain, box)
    values = exact_values(chain, box)
    for index in range(len(chain.layers)):
        at_layer = [value[index] for value in values]
        assert_holds(knowledge.lower[index], knowledge.upper[index], at_layer)


@settings(max_examples=200)
@given(st.data(), st.sampled_from([nasty, tiny, huge]))
def test_any_lower_slopes_are_sound(data: st.DataObject, numbers: st.SearchStrategy) -> None:
    chain = data.draw(nasty_chains(numbers=numbers))
    box = data.draw(nasty_boxes(chain.n_in, numbers))
    _, layers = bounded(chain, box)
    rows, below = chain.layers[-1].affine, layers.below(len(chain.layers) - 1)
    slope = st.sampled_from([0.0, 1.0, 0.5, 1e-300, DENORMAL]) | st.floats(0.0, 1.0)
    slopes = []
    for layer in below:
        free = layer.unstable
        drawn = [[data.draw(slope) for _ in free] for _ in range(rows.n_out)]
        slopes.append(np.where(free, np.array(drawn), layer.lower_slope))
    upper, _ = crown.upper_bounds(rows, below, box, slopes)
    values = [value[-1] for value in exact_values(chain, box)]
    assert_holds(np.full(rows.n_out, -np.inf), upper, values)


@pytest.mark.parametrize("family", SOURCES)
@pytest.mark.parametrize("seed", range(15))
def test_bounds_hold_the_exact_range_and_are_within_the_intervals(family: str, seed: int) -> None:
    case = random_case(family, seed)
    truth = enumerate_regions(case.chain, case.box)
    knowledge, _ = bounded(case.chain, case.box)
    low, high = case.box.lower, case.box.upper
    for index, layer in enumerate(case.chain.layers):
        lower, upper = interval_bounds(layer.affine, low, high)
        assert (knowledge.lower[index] >= lower).all()
        assert (knowledge.upper[index] <= upper).all()
        for unit, (least, most) in enumerate(truth.ranges[index]):
            assert Fraction(float(knowledge.lower[index][unit])) <= least
            assert most <= Fraction(float(knowledge.upper[index][unit]))
        low, high = (np.maximum(b, 0.0) if layer.relu else b for b in (lower, upper))


def test_a_correlation_that_intervals_lose_is_kept() -> None:
    """h = (x + 1, 2 - x), both active: h_0 + h_1 = 3 exactly, by intervals only within [0, 6]."""
    chain = chain_of(([[1], [-1]], [1, 2]), ([[1, 1]], [0]))
    knowledge, _ = bounded(chain, cube(1, -1.0, 2.0))
    assert knowledge.upper[1][0] == pytest.approx(3.0, rel=TIGHT)
    assert knowledge.lower[1][0] == pytest.approx(3.0, rel=TIGHT)


def test_the_relaxation_of_one_unit_solved_by_hand() -> None:
    r"""relu(x) over [-1, 3] has the upper line 3/4 x + 3/4 and, since 3 > 1, the lower slope 1.

    g = -2 relu(x) + x:  its maximum by the lower line is max -x = 1, by the interval max x = 3.
    """
    affine = Affine(np.array([[1.0]]), np.zeros(1))
    relaxation = crown.relax(affine, True, np.array([-1.0]), np.array([3.0]), np.array([3.0]))
    assert relaxation.upper_slope.tolist() == [0.75]
    assert relaxation.upper_offset[0] == pytest.approx(0.75, rel=TIGHT)
    assert relaxation.lower_slope.tolist() == [1.0]
    assert (relaxation.low.tolist(), relaxation.high.tolist()) == ([0.0], [3.0])
    box = cube(1, -1.0, 3.0)
    up, corner = crown.upper_bounds(Affine(np.array([[2.0]]), np.array([1.0])), [relaxation], box)
    assert up[0] == pytest.approx(7.0, rel=TIGHT)
    assert corner.tolist() == [[1.5]]


@pytest.mark.parametrize(
    ("low", "high", "slope"),
    [(-2.0, -1.0, 0.0), (-2.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 1.0, 1.0), (1.0, 2.0, 1.0)],
)
def test_stable_units_are_not_relaxed(low: float, high: float, slope: float) -> None:
    affine = Affine(np.array([[1.0]]), np.zeros(1))
    relaxation = crown.relax(affine, True, np.array([low]), np.array([high]), np.array([2.0]))
    assert relaxation.upper_slope.tolist() == relaxation.lower_slope.tolist() == [slope]
    assert relaxation.upper_offset.tolist() == [0.0]


def test_a_layer_without_relu_is_not_relaxed() -> None:
    affine = Affine(np.array([[1.0]]), np.zeros(1))
    relaxation = crown.relax(affine, False, np.array([-2.0]), np.array([1.0]), np.array([2.0]))
    assert relaxation.upper_slope.tolist() == relaxation.lower_slope.tolist() == [1.0]
    assert (relaxation.low.tolist(), relaxation.magnitude.tolist()) == ([-2.0], [2.0])


@settings(max_examples=300)
@given(
    st.floats(min_value=DENORMAL, max_value=1e300), st.floats(min_value=DENORMAL, max_value=1e300)
)
def test_the_upper_line_lies_above_relu_at_both_ends_exactly(a: float, b: float) -> None:
    affine = Affine(np.array([[1.0]]), np.zeros(1))
    reach = np.array([max(a, b)])
    relaxation = crown.relax(affine, True, np.array([-a]), np.array([b]), reach)
    slope, offset = (
        Fraction(float(v[0])) for v in (relaxation.upper_slope, relaxation.upper_offset)
    )
    assert offset - slope * Fraction(a) >= 0
    assert offset + slope * Fraction(b) >= Fraction(b)
    assert 0 <= slope <= 1


def test_a_unit_without_terms_keeps_its_exact_zero() -> None:
    """The layer below is inactive, so that the bias alone is left: no slack makes it positive."""
    chain = chain_of(([[-0.1, -0.3]], [-0.1]), ([[0.7]], [0.0]), ([[1e3]], [0.0]))
    knowledge, _ = bounded(chain, cube(2))
    for index in (1, 2):
        assert knowledge.lower[index].tolist() == knowledge.upper[index].tolist() == [0.0]


@pytest.mark.parametrize("shape", [(3, 4, 4, 2), (2, 5, 3), (4, 3)])
def test_many_boxes_at_once_are_one_box_at_a_time(shape: tuple[int, ...]) -> None:
    chain = random_chain(3, *shape)
    rng = np.random.default_rng(0)
    low = rng.uniform(-1.0, 0.0, (6, shape[0]))
    boxes = Box(low, low + rng.random((6, shape[0])))
    rows = chain.layers[-1].affine
    together, corners = crown.upper_bounds(rows, relaxations_of(chain, boxes)[:-1], boxes)
    assert together.shape == (6, shape[-1])
    for i in range(6):
        box = Box(boxes.lower[i], boxes.upper[i])
        alone, corner = crown.upper_bounds(rows, relaxations_of(chain, box)[:-1], box)
        np.testing.assert_allclose(together[i], alone, rtol=TIGHT)
        np.testing.assert_allclose(
            np.broadcast_to(corners, (6, *corner.shape))[i], corner, rtol=TIGHT
        )


def test_without_layers_the_bounds_are_those_of_intervals() -> None:
    chain = random_chain(0, 3, 4)
    affine, box = chain.layers[0].affine, cube(3, -1.0, 2.0)
    upper, coefficients = crown.upper_bounds(affine, [], box)
    np.testing.assert_array_equal(upper, interval_bounds(affine, box.lower, box.upper)[1])
    np.testing.assert_array_equal(coefficients, affine.entries)


def test_what_overflows_on_the_way_has_no_bound_and_hides_no_other() -> None:
    """Unit 0 of layer 1 overflows; unit 1 does not read what does."""
    chain = chain_of(
        ([[1e200], [-1e200], [1.0]], [0, 0, 0]),
        ([[1e200, -1e200, 0], [0, 0, 1.0]], [0, -2.0]),
        ([[1.0, 0.0], [0.0, 1.0]], [0, 0]),
    )
    knowledge, _ = bounded(chain, cube(1, -1.0, 1.0))
    assert knowledge.lower[1][0] == -np.inf
    assert knowledge.upper[1][0] == np.inf
    assert knowledge.upper[1][1] == pytest.approx(-1.0, rel=TIGHT)
    assert knowledge.upper[2][0] == np.inf
    assert knowledge.upper[2][1] == 0.0


@pytest.mark.parametrize(
    ("first", "second", "third"),
    [
        # Each product of two factors is normal, or the last brings back what was lost.
        (1e-200, 1e-200, 1e300),
        (1e-160, 1e-170, 1e300),
        (DENORMAL, 0.5, 1e300),
        (1e200, 1e-200, 1e-200),
        (1e-300, 1e300, 1e-300),
    ],
)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_values_that_pass_through_underflow_are_not_lost(
    first: float, second: float, third: float, sign: float
) -> None:
    chain = chain_of(
        ([[first], [first]], [0, -first / 2]),
        ([[second, -second]], [0]),
        ([[sign * third]], [0]),
        relu_at_end=True,
    )
    box = box_of([-1.0], [1.0])
    knowledge, _ = bounded(chain, box)
    for value in exact_values(chain, box):
        for index in range(3):
            assert_holds(knowledge.lower[index], knowledge.upper[index], [value[index]])
