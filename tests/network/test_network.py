"""Affine maps, chains and boxes: what they accept, what they refuse, what they compute."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnx_exact.network import Affine, Box, Chain, Layer
from onnx_exact.network.domain import UNBOUNDED_SAMPLE_RADIUS
from tests.strategies import affines, boxes, chains

# Relative to the sum of the absolute terms: two orders of summation differ by no more.
RELATIVE_TOLERANCE = 1e-12
# What products that underflow may add, a few terms of them.
UNDERFLOW = 100 * float(np.finfo(np.float64).smallest_subnormal)
NOT_FINITE = [np.nan, np.inf, -np.inf]

seeds = st.integers(0, 2**32 - 1)
Array = NDArray[np.float64]


def points_for(n: int, seed: int, count: int = 5) -> Array:
    return np.random.default_rng(seed).normal(size=(count, n))


def image(affine: Affine, x: Array) -> tuple[Array, Array]:
    """One point through an affine map by explicit loops, and the sums of the absolute terms."""
    values, reach = np.zeros(affine.n_out), np.zeros(affine.n_out)
    for i in range(affine.n_out):
        terms = [float(affine.weight[i, j]) * float(x[j]) for j in range(affine.n_in)]
        values[i] = sum(terms) + affine.bias[i]
        reach[i] = sum(map(abs, terms)) + abs(affine.bias[i])
    return values, reach


@given(affines(), seeds)
def test_affine_computes_row_by_row(affine: Affine, seed: int) -> None:
    points = points_for(affine.n_in, seed)
    for x, y in zip(points, affine.apply(points), strict=True):
        values, reach = image(affine, x)
        assert (np.abs(y - values) <= RELATIVE_TOLERANCE * reach + UNDERFLOW).all()


@given(affines(), seeds)
def test_pulled_back_functional_has_the_same_value(affine: Affine, seed: int) -> None:
    x, y = points_for(affine.n_in, seed, 1), points_for(affine.n_out, seed, 3)
    pulled = affine.linear.pull_back(y) @ x[0]
    reach = np.abs(y) @ np.abs(affine.weight) @ np.abs(x[0])

    assert pulled.shape == (3,)
    direct = y @ (affine.weight @ x[0])
    assert (np.abs(pulled - direct) <= RELATIVE_TOLERANCE * reach + UNDERFLOW).all()


@given(affines(), st.data())
def test_rows_of_an_affine_map_are_its_outputs(affine: Affine, data: st.DataObject) -> None:
    kept = data.draw(st.lists(st.integers(0, affine.n_out - 1), min_size=1, unique=True))
    mask = np.isin(np.arange(affine.n_out), kept)

    np.testing.assert_array_equal(affine.rows(np.array(kept)).weight, affine.weight[kept])
    np.testing.assert_array_equal(affine.rows(mask).bias, affine.bias[mask])


@given(affines())
def test_no_row_left_is_refused(affine: Affine) -> None:
    with pytest.raises(ValueError, match="zero width"):
        affine.rows(np.zeros(affine.n_out, dtype=bool))


@given(affines(), st.data())
def test_one_other_entry_makes_another_map(affine: Affine, data: st.DataObject) -> None:
    i = data.draw(st.integers(0, affine.n_out - 1))
    j = data.draw(st.integers(0, affine.n_in - 1))
    weight, bias = affine.weight.copy(), affine.bias.copy()
    assert affine.equals(Affine(weight, bias))
    weight[i, j] = np.nextafter(weight[i, j], np.inf)
    bias[i] = np.nextafter(bias[i], np.inf)

    assert not affine.equals(Affine(weight, affine.bias))
    assert not affine.equals(Affine(affine.weight, bias))


def test_maps_of_different_shapes_are_different() -> None:
    assert not Affine(np.zeros((1, 2)), np.zeros(1)).equals(Affine(np.zeros((2, 1)), np.zeros(2)))


@pytest.mark.parametrize(
    ("weight", "bias"),
    [
        (np.zeros((0, 2)), np.zeros(0)),
        (np.zeros((2, 0)), np.zeros(2)),
        (np.zeros((2, 2)), np.zeros(3)),
        (np.zeros((2, 2)), np.zeros((2, 1))),
        (np.zeros(2), np.zeros(2)),
        (np.zeros((1, 1, 1)), np.zeros(1)),
    ],
)
def test_affine_refuses_shapes_that_do_not_fit(weight: Array, bias: Array) -> None:
    with pytest.raises(ValueError, match=r"zero width|do not fit"):
        Affine(weight, bias)


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("where", ["weight", "bias"])
def test_affine_refuses_entries_that_are_not_finite(value: float, where: str) -> None:
    arrays = {"weight": np.ones((2, 3)), "bias": np.ones(2)}
    arrays[where].flat[1] = value
    with pytest.raises(ValueError, match="not finite"):
        Affine(arrays["weight"], arrays["bias"])


@given(affines())
def test_affine_is_read_only(affine: Affine) -> None:
    for array in (affine.weight, affine.bias):
        assert array.dtype == np.float64
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0


def test_affine_keeps_its_numbers_when_the_callers_array_changes() -> None:
    weight, bias = np.ones((1, 2)), np.ones(1)
    affine = Affine(weight, bias)
    weight[:], bias[:] = 7.0, 7.0

    assert affine.equals(Affine(np.ones((1, 2)), np.ones(1)))
    assert weight.flags.writeable


def test_float32_weights_are_held_exactly() -> None:
    stored = np.float32(0.1)
    affine = Affine(np.full((1, 1), stored), np.full(1, stored))

    assert affine.weight.dtype == np.float64
    assert float(affine.weight[0, 0]) == float(stored)


@given(chains(), seeds)
def test_chain_computes_layer_by_layer(chain: Chain, seed: int) -> None:
    points = points_for(chain.n_in, seed)
    g, h = chain.preactivations(points), chain.activations(points)
    below = points
    for layer, before, after in zip(chain.layers, g, h, strict=True):
        for x, y in zip(below, before, strict=True):
            values, reach = image(layer.affine, x)
            assert (np.abs(y - values) <= RELATIVE_TOLERANCE * reach + UNDERFLOW).all()
        for i, j in np.ndindex(before.shape):
            cut = layer.relu and before[i, j] < 0.0
            assert after[i, j] == (0.0 if cut else before[i, j])
        below = after
    np.testing.assert_array_equal(chain.forward(points), h[-1])


@given(chains())
def test_one_point_may_come_without_its_axis(chain: Chain) -> None:
    point = np.ones(chain.n_in)
    np.testing.assert_array_equal(chain.forward(point), chain.forward(point[None]))
    assert chain.forward(point).shape == (1, chain.n_out)


@given(chains())
def test_sizes_of_a_chain_are_those_of_its_matrices(chain: Chain) -> None:
    entries = sum(int(layer.affine.n_in * layer.affine.n_out) for layer in chain.layers)
    units = sum(layer.affine.n_out for layer in chain.layers)

    if chain.is_constant:
        entries = 0
    assert chain.connections == entries
    assert chain.parameters == entries + units
    assert chain.relu_units == sum(layer.width for layer in chain.layers if layer.relu)
    assert (chain.n_in, chain.n_out) == (
        chain.layers[0].affine.n_in,
        chain.layers[-1].affine.n_out,
    )


@pytest.mark.parametrize(
    ("weight", "relu", "layers", "constant"),
    [(0.0, False, 1, True), (1.0, False, 1, False), (0.0, True, 1, False), (0.0, False, 2, False)],
)
def test_constant_is_one_linear_layer_without_weights(
    weight: float, relu: bool, layers: int, constant: bool
) -> None:
    chain = Chain((Layer(Affine(np.full((2, 2), weight), np.ones(2)), relu),) * layers)
    assert chain.is_constant is constant
    assert chain.connections == (0 if constant else 4 * layers)


@pytest.mark.parametrize("relu_at_end", [False, True])
def test_chain_of_affine_maps_has_a_relu_between_neighbours(relu_at_end: bool) -> None:
    maps = [Affine(np.ones((2, 2)), np.ones(2)) for _ in range(3)]
    chain = Chain.of(maps, relu_at_end)
    assert [layer.relu for layer in chain.layers] == [True, True, relu_at_end]
    assert [layer.affine for layer in chain.layers] == maps


def test_chain_refuses_no_layers() -> None:
    with pytest.raises(ValueError, match="at least one layer"):
        Chain(())


def test_chain_refuses_widths_that_do_not_fit() -> None:
    first, second = Affine(np.ones((3, 2)), np.ones(3)), Affine(np.ones((1, 2)), np.ones(1))
    with pytest.raises(ValueError, match="3 outputs feed 2 inputs"):
        Chain((Layer(first, True), Layer(second, False)))


@given(boxes(), seeds)
def test_samples_and_corners_lie_in_the_box(box: Box, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for points in (box.sample(rng, 20), box.corners(rng, 20), box.corners(rng, 20, 0.1)):
        assert points.shape == (20, *box.lower.shape)
        assert np.isfinite(points).all()
        assert box.contains(points)


@given(boxes(finite=True), seeds)
def test_corners_of_a_finite_box_are_its_corners(box: Box, seed: int) -> None:
    corners = box.corners(np.random.default_rng(seed), 20)
    assert ((corners == box.lower) | (corners == box.upper)).all()


@pytest.mark.parametrize(("share", "side"), [(0.0, "lower"), (1.0, "upper")])
def test_share_of_a_corner_is_that_of_its_upper_sides(share: float, side: str) -> None:
    box = Box(np.zeros(3), np.ones(3))
    corners = box.corners(np.random.default_rng(0), 10, share)
    np.testing.assert_array_equal(corners, np.broadcast_to(getattr(box, side), (10, 3)))


@given(boxes(), seeds)
def test_points_are_the_same_for_the_same_seed(box: Box, seed: int) -> None:
    first, second = (np.random.default_rng(seed) for _ in range(2))
    np.testing.assert_array_equal(box.sample(first, 5), box.sample(second, 5))
    np.testing.assert_array_equal(box.corners(first, 5), box.corners(second, 5))


@given(boxes(), seeds)
def test_clipping_moves_a_point_into_the_box_and_no_further(box: Box, seed: int) -> None:
    x = 10.0 * points_for(box.lower.size, seed)
    clipped = box.clip(x)

    assert box.contains(clipped)
    inside = (x >= box.lower) & (x <= box.upper)
    np.testing.assert_array_equal(clipped[inside], x[inside])
    outside = clipped[~inside]
    sides = np.where(x < box.lower, box.lower, box.upper)
    np.testing.assert_array_equal(outside, sides[~inside])


@given(boxes(finite=True))
def test_box_contains_its_ends_and_nothing_beyond(box: Box) -> None:
    ends = np.stack([box.lower, box.upper])
    assert box.finite
    assert box.contains(ends)
    assert not box.contains(np.nextafter(ends, np.inf))
    assert not box.contains(np.nextafter(ends, -np.inf))


def test_open_sides_are_sampled_near_the_finite_ones() -> None:
    box = Box(np.array([-np.inf, 5.0, -np.inf]), np.array([-5.0, np.inf, np.inf]))
    low, high = box.sides()
    radius = UNBOUNDED_SAMPLE_RADIUS

    assert not box.finite
    np.testing.assert_array_equal(low, [-5.0 - radius, 5.0, -radius])
    np.testing.assert_array_equal(high, [-5.0, 5.0 + radius, radius])


@given(boxes())
def test_box_is_read_only(box: Box) -> None:
    for array in (box.lower, box.upper):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        ([0.0], [0.0, 1.0], "differ"),
        ([np.nan], [1.0], "nan"),
        ([0.0], [np.nan], "nan"),
        ([np.inf], [np.inf], "inf"),
        ([-np.inf], [-np.inf], "inf"),
        ([1.0], [0.0], "exceeds"),
    ],
)
def test_box_refuses_bounds_that_are_none(
    lower: list[float], upper: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Box(np.array(lower), np.array(upper))
