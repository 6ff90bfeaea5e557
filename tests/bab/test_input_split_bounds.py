"""Bounds on many parts of the box at once against points of the parts and against one box each."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_exact.bab.input_split.bounds import Bounder
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.network import Box, Chain
from onnx_exact.network.affine import Array
from tests.nets import chain_of, cube, question_on, random_chain

PARTS = 20


def some_parts(seed: int, inputs: int, size: float) -> Box:
    """Parts of the cube from -1 to 1 of about a size."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(-1.0, 1.0 - size, (PARTS, inputs))
    return Box(low, low + size * rng.uniform(0.2, 1.0, low.shape))


def bounder_of(chain: Chain) -> Bounder:
    knowledge = Knowledge(chain, cube(chain.n_in, -1.0, 1.0))
    return Bounder(question_on(knowledge, len(chain.layers) - 1))


def nothing(bounder: Bounder) -> np.ndarray[tuple[int, int], np.dtype[np.int8]]:
    return np.zeros((PARTS, bounder.units), dtype=np.int8)


def points_of(box: Box, seed: int) -> Array:
    """Points of every part and its corners, shape (parts, points, inputs)."""
    rng = np.random.default_rng(seed)
    shares = rng.uniform(size=(PARTS, 300, box.lower.shape[1]))
    shares[:, ::3] = np.round(shares[:, ::3])
    return box.lower[:, None] + shares * (box.upper - box.lower)[:, None]


@pytest.mark.parametrize("size", [1.5, 0.3, 0.02])
@pytest.mark.parametrize("seed", range(4))
def test_no_point_of_a_part_exceeds_its_bounds(seed: int, size: float) -> None:
    chain, box = random_chain(seed, 3, 8, 8, 8, 5, shift=0.3), some_parts(seed, 3, size)
    bounder = bounder_of(chain)
    asked = np.ones((PARTS, 5), dtype=bool)
    bounded = bounder.bound(box, nothing(bounder), asked)
    points = points_of(box, seed)
    for part in range(PARTS):
        values = chain.preactivations(points[part])
        assert (values[-1] <= bounded.bounds[part] + 1e-9).all()
        below = np.concatenate(values[:-1], axis=1)
        assert (below[:, bounded.stable[part] > 0] >= -1e-9).all()
        assert (below[:, bounded.stable[part] < 0] <= 1e-9).all()


@pytest.mark.parametrize("seed", range(4))
def test_what_a_part_knows_holds_on_its_halves(seed: int) -> None:
    chain, box = random_chain(seed, 3, 8, 8, 8, 5), some_parts(seed, 3, 0.4)
    bounder = bounder_of(chain)
    asked = np.ones((PARTS, 5), dtype=bool)
    whole = bounder.bound(box, nothing(bounder), asked)
    upper = box.upper.copy()
    upper[:, 0] = 0.5 * box.lower[:, 0] + 0.5 * upper[:, 0]
    half = Box(box.lower, upper)
    given = bounder.bound(half, whole.stable, asked)
    # A sign once known is not lost.
    known = whole.stable != 0
    np.testing.assert_array_equal(given.stable[known], whole.stable[known])
    points = points_of(half, seed)
    for part in range(PARTS):
        assert (chain.preactivations(points[part])[-1] <= given.bounds[part] + 1e-9).all()


def test_the_side_on_which_nothing_depends_has_the_least_share() -> None:
    chain = chain_of(([[1.0, 0.0], [-1.0, 0.0]], [0.0, 0.0]), ([[1.0, 1.0]], [-0.1]))
    bounder = bounder_of(chain)
    box = Box(np.full((1, 2), -1.0), np.full((1, 2), 1.0))
    bounded = bounder.bound(box, np.zeros((1, 2), dtype=np.int8), np.ones((1, 1), dtype=bool))
    assert bounded.shares[0, 0] > bounded.shares[0, 1] > 0.0
