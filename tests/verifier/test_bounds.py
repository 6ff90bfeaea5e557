"""Bounds of the checker hold in exact arithmetic, whatever slopes and multipliers are proposed."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_exact.network import Chain
from onnx_exact.verifier.bounds import Branch, Ranges, intervals, upper_bounds
from onnx_exact.verifier.chain import Layer
from onnx_exact.verifier.products import Products
from onnx_exact.verifier.rounding import Array, add_up, dot_up, mul_up, sum_of_products, sum_up
from tests.oracle.networks import SOURCES, random_case
from tests.oracle.regions import enumerate_regions
from tests.verifier.bounding import plain_ranges

# Denormals, huge ones, and those that cancel.
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=64)
USUAL = st.floats(-1e150, 1e150) | st.sampled_from([0.0, 1.0, -1.0, 1e-320, 5e-324, -5e-324])
LISTS = st.lists(st.tuples(USUAL, USUAL), min_size=1, max_size=8)


def below(exact: Fraction, found: float) -> bool:
    """Whether `found` is an upper bound, or none."""
    return not np.isfinite(found) or exact <= Fraction(found)


@given(NUMBERS, NUMBERS)
def test_sums_and_products_are_rounded_upward(a: float, b: float) -> None:
    with np.errstate(all="ignore"):
        total, product = (float(f(np.array(a), np.array(b))) for f in (add_up, mul_up))
    assert below(Fraction(a) + Fraction(b), total)
    assert below(Fraction(a) * Fraction(b), product)
    assert not np.isneginf(total)
    assert not np.isneginf(product)


@given(LISTS)
def test_longer_sums_are_rounded_upward(pairs: list[tuple[float, float]]) -> None:
    a, b = (np.array(v) for v in zip(*pairs, strict=True))
    exact = [Fraction(x) * Fraction(y) for x, y in pairs]
    with np.errstate(all="ignore"):
        assert below(sum(exact, Fraction(0)), float(dot_up(a, b)))
        assert below(sum(map(Fraction, a.tolist()), Fraction(0)), float(sum_up(a)))


@given(LISTS, USUAL)
def test_a_sum_of_products_is_rounded_once(pairs: list[tuple[float, float]], more: float) -> None:
    a, b = (np.array(v) for v in zip(*pairs, strict=True))
    exact = sum((Fraction(x) * Fraction(y) for x, y in pairs), Fraction(more))
    with np.errstate(all="ignore"):
        found = sum_of_products(a, b, more)
    assert below(exact, found)
    if np.isfinite(found):
        assert (found == 0.0) == (exact == 0)
        assert exact >= Fraction(np.nextafter(np.nextafter(found, -np.inf), -np.inf))


def test_a_maximum_of_exactly_zero_is_found_where_float64_rounds() -> None:
    """0.1 + 0.2 - 0.3 of the numbers as stored is 2^-55 in float64; the bias makes it exactly 0."""
    weight = np.array([[0.1, 0.2, -0.3]])
    exact = sum(map(Fraction, weight[0].tolist()), Fraction(0))
    layer = Layer(weight, np.array([-float(exact)]), None, None, True)
    low, high = intervals(layer, np.ones(3), np.ones(3), exact=True)
    assert exact != 0
    assert (low[0], high[0]) == (0.0, 0.0)


CASES = [(family, seed) for family in SOURCES for seed in range(8)]


@pytest.mark.parametrize(("family", "seed"), CASES)
def test_bounds_hold_for_any_slopes_and_multipliers(family: str, seed: int) -> None:
    """Slopes far beyond [0, 1] and multipliers of any sign make a bound worse, never wrong."""
    case = random_case(family, seed)
    layers = layers_of(case.chain)
    ranges = plain_ranges(layers, case.box.lower, case.box.upper)
    exact = enumerate_regions(case.chain, case.box).ranges
    rng = np.random.default_rng(seed)
    arithmetic = Products(layers)
    for k, layer in enumerate(layers):
        for i, (least, greatest) in enumerate(exact[k]):
            assert below(greatest, ranges.upper[k][i])
            assert below(-least, -ranges.lower[k][i])
        before = Ranges(ranges.lower[:k], ranges.upper[:k], ranges.box, ranges.relu)
        for scale in (0.0, 1.0, 1e6):
            branches = [
                Branch(rng.normal(size=b.width), scale * rng.normal(size=b.width))
                for b in layers[:k]
            ]
            found = upper_bounds(layer.weight, layer.bias, before, arithmetic, branches)
            for (_, greatest), bound in zip(exact[k], found, strict=True):
                assert below(greatest, bound), case


@pytest.mark.parametrize("exponent", [-300, -150, -40, 40, 150, 300])
def test_bounds_hold_for_weights_of_any_size(exponent: int) -> None:
    """What under- or overflows has a bound that holds, or none."""
    case = random_case("dyadic", 3)
    scale = 2.0**exponent
    layers = tuple(
        Layer(x.weight * scale, x.bias * scale, None, None, x.relu) for x in layers_of(case.chain)
    )
    chain = case.chain
    with np.errstate(all="ignore"):
        ranges = plain_ranges(layers, case.box.lower, case.box.upper)
        arithmetic = Products(layers)
        for k, layer in enumerate(layers):
            before = Ranges(ranges.lower[:k], ranges.upper[:k], ranges.box, ranges.relu)
            found = upper_bounds(layer.weight, layer.bias, before, arithmetic)
            for point in case.box.sample(np.random.default_rng(0), 5):
                value = forward(chain, Fraction(scale), point, k)
                assert all(below(g, bound) for g, bound in zip(value, found, strict=True))


def forward(chain: Chain, scale: Fraction, point: object, last: int) -> list[Fraction]:
    """Pre-activations of a layer in rationals, with all numbers of the chain times `scale`."""
    h = [Fraction(v) for v in np.asarray(point).tolist()]
    for k, layer in enumerate(chain.layers):
        rows = zip(layer.affine.weight.tolist(), layer.affine.bias.tolist(), strict=True)
        h = [
            scale * (sum((Fraction(w) * x for w, x in zip(row, h, strict=True)), Fraction(b)))
            for row, b in rows
        ]
        if k == last:
            break
        h = [max(v, Fraction(0)) for v in h] if layer.relu else h
    return h


def layers_of(chain: Chain) -> tuple[Layer, ...]:
    return tuple(Layer(x.affine.weight, x.affine.bias, None, None, x.relu) for x in chain.layers)


@pytest.mark.parametrize(("family", "seed"), CASES)
def test_signs_that_points_show_are_true(family: str, seed: int) -> None:
    case = random_case(family, seed)
    points = case.box.corners(np.random.default_rng(seed), 6)
    shown = Products(layers_of(case.chain)).forward(points)
    for k, (positive, negative) in enumerate(shown):
        for row, point in enumerate(points):
            for i, g in enumerate(forward(case.chain, Fraction(1), point, k)):
                assert not positive[row, i] or g > 0
                assert not negative[row, i] or g < 0
                assert positive[row, i] or negative[row, i] or abs(g) < Fraction(1, 10**12)


@pytest.mark.parametrize("seed", range(4))
def test_products_hold_in_ball_arithmetic(seed: int) -> None:
    """T (W h + b) - A h at points of a box is at most what is said, for usual widths."""
    from flint import arb, arb_mat, ctx

    ctx.prec = 200
    rng = np.random.default_rng(seed)
    units, inputs, rows = 40, 60, 5
    weight, bias = rng.normal(size=(units, inputs)), rng.normal(size=units)
    through = rng.normal(size=(rows, units)) * 10.0 ** rng.integers(-8, 8, (rows, units))
    low = rng.normal(size=inputs)
    high = low + rng.random(inputs)
    found, most = Products((Layer(weight, bias, None, None, True),)).pull_back(
        0, through, low, high
    )

    def matrix(values: Array) -> arb_mat:
        return arb_mat(*values.shape, values.ravel().tolist())

    left = matrix(through) * matrix(weight) - matrix(found)
    for _ in range(20):
        h = np.where(rng.random(inputs) < 0.5, low, high)[:, None]
        values = left * matrix(h) + matrix(through) * matrix(bias[:, None])
        assert all(v <= arb(m) for v, m in zip(values.entries(), most.tolist(), strict=True))
    slack = np.array(most) - through @ bias
    assert (slack <= 1e-12 * (np.abs(through) @ (np.abs(weight).sum(axis=1) * 3.0 + 1.0))).all()
