"""The gradient search and the first points: deterministic, in the box, and better than chance."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_exact.attack.pgd import Climb, Effort
from onnx_exact.attack.samples import extreme_corners, first_points
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.searches import search_layer
from onnx_exact.network import Box, Chain
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.query import Query
from onnx_exact.runtime.deadline import Deadline
from tests.nets import box_of, chain_of, cube, random_chain

INF = np.inf
PLANT = 10  # inputs


def planted(height: float = 0.6) -> Chain:
    """g = height - sum |x_j - c_j| is positive in a 10-dimensional diamond of small volume only."""
    centre = np.linspace(0.15, 0.85, PLANT)
    eye = np.eye(PLANT)
    first = Affine(np.vstack([eye, -eye]), np.concatenate([-centre, centre]))
    return Chain.of([first, Affine(-np.ones((1, 2 * PLANT)), np.array([height]))], relu_at_end=True)


def searched(
    chain: Chain, box: Box, layer: int, seed: int = 0, seconds: float | None = None
) -> Knowledge:
    knowledge = Knowledge(chain, box)
    rng = np.random.default_rng(seed)
    search_layer(knowledge, layer, Effort(), rng, INF, Deadline(seconds))
    return knowledge


def test_a_planted_witness_is_found_that_random_points_miss() -> None:
    chain, box = planted(), cube(PLANT)
    rng = np.random.default_rng(0)
    random = np.concatenate([box.sample(rng, 20_000), box.corners(rng, 5_000)])
    assert chain.preactivations(random)[1].max() < 0.0
    knowledge = searched(chain, box, 1)
    assert knowledge.seen_positive[1].all()
    assert chain.preactivations(knowledge.witnesses)[1].max() > 0.0


def test_a_unit_behind_units_that_are_off_is_reached_through_the_leak() -> None:
    """Only corner (1, ..., 1) of 2^12 switches the one hidden unit on that the output reads."""
    n = 12
    chain = chain_of(([[1.0] * n], [-(n - 0.5)]), ([[1.0]], [-0.25]), relu_at_end=True)
    knowledge = searched(chain, cube(n), 1)
    assert knowledge.seen_positive[1].all()


def test_both_signs_of_the_first_unit_are_shown_in_one_go() -> None:
    chain = random_chain(0, 3, 1)
    knowledge = searched(chain, cube(3, -1.0, 1.0), 0)
    assert knowledge.open_units == 0


@pytest.mark.parametrize("seed", range(3))
def test_the_same_seed_finds_the_same_and_every_witness_is_in_the_box(seed: int) -> None:
    chain = random_chain(5, 6, 12, 12, 8, shift=1.0)
    box = box_of([-0.1, 0.3, 0.1, 0.0, 1e-3, -7.0], [0.1, 0.7, 0.1, 1.0, 2e-3, 3.0])
    first, second = (searched(chain, box, 2, seed) for _ in range(2))
    assert len(first.witnesses) > 0
    np.testing.assert_array_equal(first.witnesses, second.witnesses)
    assert box.contains(first.witnesses)
    for layer in first.relu_layers:
        np.testing.assert_array_equal(first.seen_positive[layer], second.seen_positive[layer])


def test_a_passed_deadline_ends_the_search_before_it_starts() -> None:
    assert not len(searched(planted(), cube(PLANT), 1, seconds=0.0).witnesses)


def test_a_search_ends_with_its_multiplications() -> None:
    chain, box, rng = planted(-1e-3), cube(PLANT), np.random.default_rng(0)
    every = search_layer(Knowledge(chain, box), 1, Effort(), rng, INF, Deadline())
    some = search_layer(Knowledge(chain, box), 1, Effort(), rng, every / 4, Deadline())
    assert every / 4 <= some < every / 2


def test_a_climb_gives_points_that_show_their_own_query_and_drops_those_that_are_settled() -> None:
    chain, box = random_chain(5, 6, 12, 8), cube(6, -1.0, 1.0)
    queries = [Query(1, unit, positive) for unit in range(8) for positive in (True, False)]
    live = [np.arange(12)]
    nothing = np.empty((0, 6))
    climb = Climb(chain, live, box, queries, Effort(), np.random.default_rng(0), nothing)
    shown = np.zeros(len(queries), dtype=bool)
    while not climb.done:
        values = chain.preactivations(climb.advance())[1]
        shown |= [bool((q.sign * values[:, q.unit] > 0.0).any()) for q in queries]
        climb.keep(~shown)
    assert shown.sum() > 8


def test_a_layer_without_open_signs_is_not_searched() -> None:
    knowledge = searched(random_chain(0, 3, 1), cube(3, -1.0, 1.0), 0)
    before = len(knowledge.witnesses)
    assert search_layer(knowledge, 0, Effort(), np.random.default_rng(0), INF, Deadline()) == 0
    assert len(knowledge.witnesses) == before


@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_weights_beyond_float32_blind_the_search_and_nothing_else(scale: float) -> None:
    chain = chain_of(([[scale, -scale]], [0.0]), ([[scale]], [-(scale**2) / 2]), relu_at_end=True)
    knowledge = searched(chain, cube(2), 1)
    for layer, shown in enumerate(chain.preactivations(knowledge.witnesses)):
        assert knowledge.seen_positive[layer].tolist() == [bool((shown > 0).any())]


def points(box: Box, seed: int = 0) -> Array:
    return np.concatenate(
        list(first_points(random_chain(2, box.lower.size, 4).layers[0].affine, box, seed))
    )


@pytest.mark.parametrize(
    "box",
    [
        cube(3),
        box_of([0.0, -INF, -INF], [INF, 0.0, INF]),
        box_of([5.0, 100.0, -INF], [5.0, INF, -100.0]),
    ],
)
def test_first_points_are_finite_points_of_the_box_and_the_same_for_a_seed(box: Box) -> None:
    found = points(box)
    assert np.isfinite(found).all()
    assert box.contains(found)
    np.testing.assert_array_equal(found, points(box))
    assert not np.array_equal(found, points(box, seed=1))


def test_first_points_hold_the_extremes_of_every_first_layer_unit() -> None:
    chain, box = random_chain(2, 3, 4), cube(3, -1.0, 2.0)
    values = chain.preactivations(points(box))[0]
    weight, bias = chain.layers[0].affine.weight, chain.layers[0].affine.bias
    most = np.maximum(weight, 0.0) @ box.upper + np.minimum(weight, 0.0) @ box.lower + bias
    np.testing.assert_allclose(values.max(axis=0), most, rtol=1e-12)


def test_extreme_corners_maximise_and_minimise() -> None:
    up, down = extreme_corners(np.array([[1.0, -2.0, 0.0]]), box_of([0, 0, 0], [1, 2, 4]))
    assert up.tolist() == [[1.0, 0.0, 2.0]]
    assert down.tolist() == [[0.0, 2.0, 2.0]]


def test_over_an_infinite_side_points_go_far_enough_to_outweigh_a_bias() -> None:
    chain = chain_of(([[1.0]], [-5e4]), ([[1.0]], [0.0]))
    knowledge = Knowledge(chain, box_of([-INF], [INF]))
    for batch in first_points(chain.layers[0].affine, knowledge.box, 0):
        knowledge.show(batch)
    assert knowledge.seen_positive[0].all()
    assert knowledge.seen_negative[0].all()
