"""Optimised lower slopes: never looser, always sound, and downhill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from onnx_exact.bounds import alpha_crown, crown
from onnx_exact.bounds.alpha_crown import optimize
from onnx_exact.bounds.cases import SLOPE_STEPS, Cases, bounds_of, default_cases
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box
from tests.nets import chain_of, cube, random_chain, relaxations_of
from tests.oracle.networks import SOURCES, random_case
from tests.oracle.regions import enumerate_regions

STEPS = 20
# What float32 may take for better, relative.
SINGLE = 1e-5


def signed(affine: Affine, sign: float) -> Affine:
    return Affine(sign * affine.entries, sign * affine.bias)


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
    if not below:
        return
    found = optimize(rows, below, case.box, STEPS)
    best, corners = found.bounds, found.corners
    ranges = enumerate_regions(case.chain, case.box).ranges[-1]
    assert (best <= plain + SINGLE * np.abs(plain)).all()
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
        best = optimize(rows, below, box, STEPS).bounds
        improved += int((best < plain - 1e-3).sum())
    assert improved >= 20


def test_slopes_of_the_relaxations_are_left_alone() -> None:
    chain = random_chain(1, 4, 8, 8, 6)
    below = relaxations_of(chain, cube(4))[:-1]
    before = [layer.lower_slope.copy() for layer in below]
    optimize(chain.layers[-1].affine, below, cube(4), STEPS)
    for layer, slope in zip(below, before, strict=True):
        np.testing.assert_array_equal(layer.lower_slope, slope)


def test_rows_that_are_proved_at_once_keep_their_slopes() -> None:
    chain = chain_of(([[1.0], [-1.0]], [0, 0]), ([[-1.0, -1.0]], [-1.0]))
    box = cube(1, -1.0, 1.0)
    below, rows = relaxations_of(chain, box)[:-1], chain.layers[-1].affine
    plain, _ = crown.upper_bounds(rows, below, box)
    assert plain[0] <= 0.0
    found = optimize(rows, below, box, STEPS)
    np.testing.assert_array_equal(found.bounds, plain)
    np.testing.assert_array_equal(found.cases.slopes[0][0], below[0].lower_slope)


def test_what_is_found_can_be_kept_and_attains_the_bound() -> None:
    chain, box = random_chain(2, 4, 8, 8, 6), cube(4)
    below, rows = relaxations_of(chain, box)[:-1], chain.layers[-1].affine
    found = optimize(rows, below, box, STEPS)
    kept = Cases((), tuple(np.rint(a * SLOPE_STEPS) / SLOPE_STEPS for a in found.cases.slopes), ())
    np.testing.assert_array_equal(bounds_of(rows, below, box, kept)[0], found.bounds)
    again = optimize(rows, below, box, STEPS)
    np.testing.assert_array_equal(again.bounds, found.bounds)


def test_a_goal_that_is_reached_ends_the_steps() -> None:
    chain, box = random_chain(2, 4, 8, 8, 6), cube(4)
    below, rows = relaxations_of(chain, box)[:-1], chain.layers[-1].affine
    plain, _ = crown.upper_bounds(rows, below, box)
    far = optimize(rows, below, box, STEPS, goal=-np.inf)
    near = optimize(rows, below, box, STEPS, goal=plain + 1.0)
    assert (far.bounds < plain).any()
    np.testing.assert_array_equal(np.stack(near.cases.slopes)[:, 0], [r.lower_slope for r in below])


def test_every_box_has_its_own_slopes() -> None:
    chain, rng = random_chain(3, 3, 8, 8, 2), np.random.default_rng(0)
    low = rng.uniform(-1.0, 0.0, (6, 3))
    boxes = Box(low, low + rng.uniform(0.2, 1.0, (6, 3)))
    row = chain.layers[-1].affine.rows(np.array([1]))
    together = optimize(row, relaxations_of(chain, boxes)[:-1], boxes, STEPS)
    for i in range(6):
        alone = Box(boxes.lower[i], boxes.upper[i])
        single = optimize(row, relaxations_of(chain, alone)[:-1], alone, STEPS)
        assert together.bounds[i] == pytest.approx(single.bounds[0], rel=1e-3, abs=1e-3)
        assert alone.contains(together.corners[i][None])
        assert alone.contains(together.points[i][None])


@pytest.mark.parametrize("kind", ["rows", "boxes", "signs"])
def test_cases_that_do_not_fit_into_memory_at_once_come_out_the_same(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    chain, box = random_chain(4, 4, 8, 8, 6), cube(4)
    rows, start = chain.layers[-1].affine, None
    if kind == "boxes":
        low = np.random.default_rng(1).uniform(-1.0, 0.0, (6, 4))
        rows, box = rows.rows(np.array([0])), Box(low, low + 0.7)
    below = relaxations_of(chain, box)[:-1]
    if kind == "signs":
        rng = np.random.default_rng(2)
        signs = [rng.integers(-1, 2, (6, 8)).astype(np.int8) * r.unstable for r in below]
        rows, start = rows.rows(np.array([0])), default_cases(below, 6, signs)
    whole = optimize(rows, below, box, STEPS, start)
    monkeypatch.setattr(alpha_crown, "MOST_ENTRIES", 32)
    parts = optimize(rows, below, box, STEPS, start)
    np.testing.assert_allclose(parts.bounds, whole.bounds, rtol=1e-3, atol=1e-3)
    for a, b in zip(parts.losses, whole.losses, strict=True):
        assert a.shape == b.shape


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
def test_steps_lead_below_every_random_choice_of_slopes(seed: int) -> None:
    chain, box = random_chain(seed, 3, 5, 4, 3), cube(3, -1.0, 1.0)
    below, rows = relaxations_of(chain, box)[:-1], chain.layers[-1].affine
    found = optimize(rows, below, box, 200, goal=-np.inf)
    best = last_bound(rows, below, box, found.cases.slopes)
    rng = np.random.default_rng(seed)
    for _ in range(300):
        alphas = [
            np.where(r.unstable, rng.random((3, r.affine.n_out)), r.lower_slope) for r in below
        ]
        some = last_bound(rows, below, box, alphas)
        assert (best <= some + 0.01 * np.abs(some)).all()
