"""Where units live on, held to the values of both networks."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.methods import REDUCTIONS
from onnx_exact.network import Box, Chain
from onnx_exact.reduce import ReduceOptions, UnitMap, reduce_chain
from onnx_exact.reduce.layer import rewrite
from onnx_exact.reduce.realise import ALL_KINDS
from onnx_exact.reduce.run import Reduction
from onnx_exact.reduce.units import GONE, NEW
from tests.oracle.networks import SOURCES, random_case
from tests.reduce.states import affine, state

F64 = np.dtype(np.float64)
NETWORKS = 60  # of each family
# Relative to the largest value of the layer: what float64 products of a few terms may round off.
TOLERANCE = 1e-11


def assert_units_live_on(chain: Chain, box: Box, reduction: Reduction) -> int:
    """Every mapped unit is its factor times the new one, at points of the box; how many there are.

    For one that faces the other way its own pre-activation comes on top.

    A unit that is none of the original ones is named by no entry.
    """
    rng = np.random.default_rng(0)
    points = np.vstack([box.sample(rng, 50), box.corners(rng, 50)])
    old, new = chain.activations(points), reduction.chain.activations(points)
    linear = chain.preactivations(points)
    assert len(reduction.origins) == len(new)
    sources = [origin.source for origin in reduction.origins]
    assert sources == sorted(set(sources))
    assert sources[-1] == len(chain.layers) - 1
    mapped = 0
    for origin, values in zip(reduction.origins, new, strict=True):
        before = old[origin.source]
        assert origin.place.shape == origin.factor.shape == (before.shape[1],)
        assert (origin.place < values.shape[1]).all()
        assert (origin.factor != 0.0).all()
        assert (origin.factor[origin.place == GONE] == 1.0).all()
        lives = np.flatnonzero(origin.place >= 0)
        expected = np.abs(origin.factor[lives]) * values[:, origin.place[lives]]
        own = linear[origin.source][:, lives]
        expected = expected + np.where(origin.factor[lives] < 0.0, own, 0.0)
        np.testing.assert_allclose(
            before[:, lives], expected, rtol=0, atol=TOLERANCE * (1.0 + np.abs(before).max())
        )
        for number in np.unique(origin.place[origin.place < GONE]):
            together = np.flatnonzero(origin.place == number)
            assert together.size > 1
            shares = linear[origin.source][:, together] / origin.factor[together]
            np.testing.assert_allclose(shares, shares[:, :1] + 0.0 * shares, rtol=1e-6, atol=1e-9)
        mapped += lives.size
    return mapped


@pytest.mark.parametrize("family", SOURCES)
@pytest.mark.parametrize("reductions", REDUCTIONS)
def test_mapped_units_have_the_values_they_had(family: str, reductions: str) -> None:
    mapped = gone = 0
    for seed in range(NETWORKS):
        case = random_case(family, seed)
        stability = analyze_chain(case.chain, case.box, Options(method="bounds"))
        options = ReduceOptions(reductions)
        reduction = reduce_chain(case.chain, stability, case.box, F64, options)
        found = assert_units_live_on(case.chain, case.box, reduction)
        mapped += found
        gone += sum(layer.width for layer in case.chain.layers) - found
        # The outputs are what they were, one by one.
        last = reduction.origins[-1]
        assert last.place.tolist() == list(range(case.chain.n_out))
    assert min(mapped, gone) >= NETWORKS


def test_a_chain_that_stays_maps_every_unit_to_itself() -> None:
    before = state(affine([[1, -1], [-1, 2]], [0, 0]), affine([[1, 2]], [3]))
    stability = analyze_chain(before.chain, before.box, Options(method="bounds"))
    reduction = reduce_chain(before.chain, stability, before.box, F64)
    assert not reduction.changed
    assert [origin.source for origin in reduction.origins] == [0, 1]
    assert [origin.place.tolist() for origin in reduction.origins] == [[0, 1], [0]]


def test_multiples_are_read_from_the_unit_that_stays_and_opposites_face_the_other_way() -> None:
    before = state(
        affine([[1, -2], [2, -2], [6, -6], [1, -1], [-4, 4], [4, -4]], [0, 0, 0, 0, 0, 4]),
        affine([[1, 1, 1, 1, 1, 1]], [0]),
    )
    after = rewrite(before, 0, 1.0, ALL_KINDS, negligible=False).state
    origin = after.layers[0].origin
    assert origin.place.tolist() == [0, 1, 1, 1, 1, GONE]
    assert origin.factor.tolist() == [1.0, 1.0, 3.0, 0.5, -2.0, 1.0]


def test_a_unit_that_goes_takes_those_along_that_lie_on_its_hyperplane() -> None:
    places, factors = np.array([0, 1, 0, 0]), np.array([2.0, 1.0, 1.0, -0.5])
    origin = UnitMap.identity(2, 4).then(places, factors)
    assert origin.place.tolist() == [0, 1, 0, 0]
    kept = origin.keep(np.array([True, False]))
    assert (kept.source, kept.place.tolist()) == (2, [0, GONE, 0, 0])
    assert kept.factor.tolist() == [2.0, 1.0, 1.0, -0.5]
    # A second place is that of a unit that has come in.
    assert kept.units(2).tolist() == [2, NEW]
    gone = kept.then(np.array([GONE - 1, 0]), np.array([1.0, 1.0]))
    assert gone.place[0] == gone.place[2] == gone.place[3] < GONE
    assert gone.place[1] == GONE
    assert gone.factor.tolist() == [2.0, 1.0, 1.0, -0.5]
    assert gone.units(1).tolist() == [NEW]


def test_a_unit_that_goes_alone_is_just_gone() -> None:
    gone = UnitMap.identity(0, 2).then(np.array([GONE - 1, 0]), np.array([3.0, 1.0]))
    assert gone.place.tolist() == [GONE, 0]
    assert gone.factor.tolist() == [1.0, 1.0]


def test_units_that_are_gone_together_are_not_taken_for_others() -> None:
    first = UnitMap.identity(0, 5).then(np.array([-2, -2, 0, 1, 2]), np.ones(5))
    second = first.then(np.array([-2, -2, 0]), np.ones(3))
    assert len(set(second.place.tolist())) == 3
    assert second.place[0] == second.place[1] != second.place[2] == second.place[3]


def test_factors_multiply_along_the_way() -> None:
    first = UnitMap.identity(0, 3).then(np.array([0, 0, 1]), np.array([2.0, 1.0, 1.0]))
    second = first.then(np.array([0, 0]), np.array([-3.0, 1.0]))
    assert second.place.tolist() == [0, 0, 0]
    assert second.factor.tolist() == [-6.0, -3.0, 1.0]
