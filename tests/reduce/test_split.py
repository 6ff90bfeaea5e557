"""The split form: worked out by hand, against exact enumeration, and against the chain form."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.methods import CHAIN_FORM, SIZE, SPLIT_FORM
from onnx_exact.network import Affine, Chain, Layer, SplitChain
from onnx_exact.reduce import ReduceOptions, reduce_chain
from onnx_exact.reduce.run import WAYS
from onnx_exact.reduce.split import _most_apart, split
from tests.nets import cube
from tests.oracle.networks import SOURCES, random_case
from tests.oracle.regions import enumerate_regions, largest_difference
from tests.oracle.rounding import own_rounding
from tests.reduce.states import affine, state

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
NETWORKS = 80  # of each family


def as_chain(split_chain: SplitChain) -> Chain:
    """The same function as a chain: each bypassed value is relu(v) - relu(-v)."""
    layers = list(split_chain.layers)
    for index, around in enumerate(split_chain.bypasses):
        if around is None:
            continue
        first, second = layers[index - 1].affine, layers[index].affine
        none, one = np.zeros(len(around)), np.eye(len(around))
        weight = np.vstack([first.weight, around, -around])
        layers[index - 1] = Layer(Affine(weight, np.concatenate([first.bias, none, none])), True)
        read = Affine(np.hstack([second.weight, one, -one]), second.bias)
        layers[index] = Layer(read, layers[index].relu)
    return Chain(tuple(layers))


def test_stably_active_units_go_around_the_relu() -> None:
    """relu(x1 - x2) goes the usual way; 2 (x1 + x2 + 1) and 3 (x2 + 2) are read directly."""
    before = state(
        affine([[1, -1], [1, 1], [0, 1]], [0, 1, 2]), affine([[5, 2, 0], [5, 0, 3]], [7, 8])
    )
    form, choices = split(before, 1.0)
    assert form is not None
    first, second = form.chain.layers
    assert (first.affine.weight.tolist(), first.affine.bias.tolist()) == ([[1, -1]], [0])
    assert (second.affine.weight.tolist(), second.affine.bias.tolist()) == ([[5], [5]], [9, 14])
    assert form.chain.bypasses[0] is None
    assert np.asarray(form.chain.bypasses[1]).tolist() == [[2, 2], [0, 3]]
    assert [around.tolist() for around in form.around] == [[False, True, True], [False, False]]
    (choice,) = choices
    assert (choice.layer, choice.form) == (0, SPLIT_FORM)
    assert choice.numbers["connections_chain"] == 2 * (2 + 2)
    assert choice.numbers["connections_split"] == 2 * 2
    assert choice.numbers["rounding_split"] <= 1.001 * choice.numbers["rounding_chain"]


@pytest.mark.parametrize(
    "rows",
    [[[1, -1], [-1, 1]], [[1, 1], [0, 1]]],
    ids=["no stably active units", "nothing but these"],
)
def test_a_layer_of_one_kind_of_unit_stays(rows: list[list[float]]) -> None:
    before = state(affine(rows, [0, 0]), affine([[1, 2]], [3]))
    assert split(before, 1.0) == (None, ())


def test_a_layer_where_the_product_has_more_connections_stays() -> None:
    """One stably active unit, 4 inputs and 4 readers: 8 connections in place of 16."""
    rows = [[1, 1, 1, 1], *(np.eye(4) - 0.5).tolist()]
    before = state(affine(rows, [0] * 5), affine(np.ones((4, 5)).tolist(), [0] * 4))
    assert split(before, 1.0) == (None, ())


def test_a_product_that_deviates_too_much_stays_in_the_chain_form() -> None:
    third = float(np.float32(1 / 3))
    before = state(affine([[third, third], [1, -1]], [third, 0]), affine([[third, 1]], [third]))
    form, (choice,) = split(before, 0.0)
    assert form is None
    assert choice.form == CHAIN_FORM
    assert "deviate by more than is allowed" in choice.reason


@given(st.lists(st.integers(0, 9), max_size=8))
def test_no_other_layers_apart_save_more(gains: list[int]) -> None:
    found = _most_apart(gains)
    assert all(gains[place] > 0 and place + 1 not in found for place in found)
    best = max(
        sum(gains[place] for place in places)
        for size in range(len(gains) + 1)
        for places in combinations(range(len(gains)), size)
        if all(b - a > 1 for a, b in pairwise(places))
    )
    assert sum(gains[place] for place in found) == best


@pytest.mark.parametrize("family", SOURCES)
def test_the_split_form_computes_the_same_with_fewer_connections(family: str) -> None:
    """Exact over the whole domain, up to the rounding of the products."""
    taken = 0
    for seed in range(NETWORKS):
        case = random_case(family, seed)
        stability = analyze_chain(case.chain, case.box, Options(method="bounds"))
        options = ReduceOptions(goal=SIZE)
        reduction = reduce_chain(case.chain, stability, case.box, F32, options)
        in_chain = reduce_chain(case.chain, stability, case.box, F32)
        assert reduction.chain.connections == in_chain.chain.connections
        if reduction.split is None:
            assert reduction.network is reduction.chain
            assert not any(choice.form == SPLIT_FORM for choice in reduction.forms)
            continue
        taken += 1
        assert reduction.network is reduction.split.chain
        assert reduction.split.chain.connections < in_chain.chain.connections
        assert reduction.changed
        assert not reduction.removal_only
        widths = [layer.width for layer in reduction.split.chain.layers]
        assert sum(tally.units_after for tally in reduction.layers) == sum(widths)
        for tally in reduction.layers:
            assert tally.units == sum(getattr(tally, way) for way in WAYS) + tally.units_after
        regions = enumerate_regions(case.chain, case.box).regions
        allowed = own_rounding(case.chain, case.box, F32)
        for moved, limit in zip(
            largest_difference(regions, as_chain(reduction.split.chain)), allowed, strict=True
        ):
            assert moved <= limit, case
    assert taken >= 5, "too few networks whose split form has fewer connections"


def test_bypasses_of_a_deep_network_lie_apart() -> None:
    rng = np.random.default_rng(5)
    affines: list[Affine] = []
    for n_in, n_out in pairwise((6, 9, 9, 9, 9, 2)):
        weight = rng.normal(size=(n_out, n_in)) / np.sqrt(n_in)
        # The first two are unstable: 0 where the input is. All others are active.
        before = Chain.of(affines, relu_at_end=True).forward(np.zeros(6))[0] if affines else 0.0
        bias = np.where(np.arange(n_out) < 2, -(weight * before).sum(axis=1), 60.0)
        affines.append(Affine(weight, bias))
    chain = Chain.of(affines)
    box = cube(6, -1.0, 1.0)
    stability = analyze_chain(chain, box, Options(method="bounds"))
    reduction = reduce_chain(chain, stability, box, F64, ReduceOptions(goal=SIZE))
    assert reduction.split is not None
    at = [i for i, around in enumerate(reduction.split.chain.bypasses) if around is not None]
    assert len(at) >= 2
    assert all(b - a > 1 for a, b in pairwise(at))
    points = box.sample(rng, 500)
    expected = chain.forward(points)
    np.testing.assert_allclose(reduction.split.chain.forward(points), expected, rtol=1e-9)
    np.testing.assert_allclose(as_chain(reduction.split.chain).forward(points), expected, rtol=1e-9)
