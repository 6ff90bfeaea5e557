"""Optimised lower slopes: never looser, always sound, and downhill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from onnx_exact.bounds import crown
from onnx_exact.bounds.alpha_crown import optimized_upper_bounds, slope_gradients
from onnx_exact.deadline import Deadline
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box
from tests.nets import chain_of, cube, random_chain, relaxations_of
from tests.oracle.networks import SOURCES, random_case
from tests.oracle.regions import enumerate_regions

DIFFERENCE = 1e-6
# Relative to the largest derivative: central differences of a piecewise quadratic function.
GRADIENT_TOLERANCE = 1e-6


def signed(affine: Affine, sign: float) -> Affine:
    return Affine(sign * affine.weight, sign * affine.bias)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("family", SOURCES)
@pytest.mark.parametrize("seed", range(12))
def test_optimised_bounds_lie_between_the_exact_maximum_and_crown(
    family: str, seed: int, sign: float
) -> None:
    case = random_case(family, seed)
    below = relaxations_of(case.chain, case.box)[:-1]
    rows = signed(case.chain.layers[-1].affine, sign)
    plain, _ = crown.upper_bounds(rows, below, case.box)
    best, corners = optimized_upper_bounds(rows, below, case.box, Deadline())
    ranges = enumerate_regions(case.chain, case.box).ranges[-1]
    assert (best <= plain).all()
    assert case.box.contains(corners)
    for bound, (least, most) in zip(best, ranges, strict=True):
        assert max(sign * Fraction(least), sign * Fraction(most)) <= Fraction(float(bound))


def test_optimised_slopes_are_clearly_better_on_most_rows() -> None:
    improved = 0
    for seed in range(10):
        chain = random_chain(seed, 4, 8, 8, 6)
        box = cube(4)
        below = relaxations_of(chain, box)[:-1]
        rows = chain.layers[-1].affine
        plain, _ = crown.upper_bounds(rows, below, box)
        best, _ = optimized_upper_bounds(rows, below, box, Deadline())
        improved += int((best < plain - 1e-3).sum())
    assert improved >= 20


def test_a_passed_deadline_leaves_the_plain_bounds() -> None:
    chain = random_chain(0, 4, 8, 8, 6)
    below, rows = relaxations_of(chain, cube(4))[:-1], chain.layers[-1].affine
    plain, _ = crown.upper_bounds(rows, below, cube(4))
    best, _ = optimized_upper_bounds(rows, below, cube(4), Deadline(0.0))
    np.testing.assert_array_equal(best, plain)


def test_slopes_of_the_relaxations_are_left_alone() -> None:
    chain = random_chain(1, 4, 8, 8, 6)
    below = relaxations_of(chain, cube(4))[:-1]
    before = [layer.lower_slope.copy() for layer in below]
    optimized_upper_bounds(chain.layers[-1].affine, below, cube(4), Deadline())
    for layer, slope in zip(below, before, strict=True):
        np.testing.assert_array_equal(layer.lower_slope, slope)


def last_bound(
    rows: Affine, layers: Sequence[crown.Relaxation], box: Box, alphas: Sequence[Array]
) -> Array:
    """The bound at the input alone: intervals of the layers on the way say nothing."""
    blind = [
        replace(
            layer, low=np.full(layer.low.shape, -np.inf), high=np.full(layer.high.shape, np.inf)
        )
        for layer in layers
    ]
    return crown.upper_bounds(rows, blind, box, alphas)[0]


@pytest.mark.parametrize("seed", range(4))
def test_gradients_are_those_of_finite_differences(seed: int) -> None:
    chain, box = random_chain(seed, 3, 5, 4, 3), cube(3, -1.0, 1.0)
    below, rows = relaxations_of(chain, box)[:-1], chain.layers[-1].affine
    rng = np.random.default_rng(seed)
    alphas = [rng.uniform(0.2, 0.8, (3, layer.affine.n_out)) for layer in below]
    gradients = slope_gradients(rows, below, box, alphas)
    scale = max(np.abs(g).max() for g in gradients)
    for k, gradient in enumerate(gradients):
        for i in range(gradient.shape[1]):
            moved = [[a.copy() for a in alphas] for _ in range(2)]
            moved[0][k][:, i] += DIFFERENCE
            moved[1][k][:, i] -= DIFFERENCE
            up, down = (last_bound(rows, below, box, a) for a in moved)
            numeric = (up - down) / (2 * DIFFERENCE)
            np.testing.assert_allclose(gradient[:, i], numeric, atol=GRADIENT_TOLERANCE * scale)


def test_rows_that_are_proved_at_once_are_not_touched() -> None:
    chain = chain_of(([[1.0], [-1.0]], [0, 0]), ([[-1.0, -1.0]], [-1.0]))
    below, rows = relaxations_of(chain, cube(1, -1.0, 1.0))[:-1], chain.layers[-1].affine
    plain, _ = crown.upper_bounds(rows, below, cube(1, -1.0, 1.0))
    assert plain[0] <= 0.0
    best, _ = optimized_upper_bounds(rows, below, cube(1, -1.0, 1.0), Deadline())
    np.testing.assert_array_equal(best, plain)
