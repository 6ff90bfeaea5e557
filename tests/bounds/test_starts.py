"""Slopes of 0 beside default ones, and the better of both as a start."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_exact.bounds.alpha_crown import optimize
from onnx_exact.bounds.cases import better_start, bounds_of, default_cases
from onnx_exact.bounds.crown import flat_slopes, upper_bounds
from tests.nets import cube, random_chain, relaxations_of


@pytest.mark.parametrize("seed", range(5))
def test_the_better_of_default_slopes_and_slopes_of_0_is_chosen_for_each_functional(
    seed: int,
) -> None:
    chain, box = random_chain(seed, 4, 9, 9, 12), cube(4, -1.0, 1.0)
    below, rows = relaxations_of(chain, box)[:-1], chain.layers[-1].affine
    plain = upper_bounds(rows, below, box)[0]
    flat = upper_bounds(rows, below, box, flat_slopes(below))[0]
    start = better_start(rows, below, box)
    np.testing.assert_array_equal(bounds_of(rows, below, box, start)[0], np.fmin(plain, flat))
    assert (flat < plain).any()
    values = chain.preactivations(box.sample(np.random.default_rng(seed), 500))[-1]
    assert (values <= flat).all()


def test_what_is_found_for_some_cases_takes_their_places_and_no_others() -> None:
    chain, box = random_chain(1, 4, 9, 9, 6), cube(4, -1.0, 1.0)
    below, rows = relaxations_of(chain, box)[:-1], chain.layers[-1].affine
    few = optimize(rows, below, box, 1, goal=-np.inf)
    some = np.array([4, 1])
    start = default_cases(below, 6).rows(some)
    more = optimize(rows.rows(some), below, box, 60, start, goal=-np.inf)
    put = few.replaced(some, more)
    others = np.array([0, 2, 3, 5])
    for old, new, whole in (
        (few.bounds, more.bounds, put.bounds),
        (few.points, more.points, put.points),
        (few.corners, more.corners, put.corners),
        *zip(few.losses, more.losses, put.losses, strict=True),
        *zip(few.cases.slopes, more.cases.slopes, put.cases.slopes, strict=True),
    ):
        np.testing.assert_array_equal(whole[some], new)
        np.testing.assert_array_equal(whole[others], old[others])
