"""Removing, collapsing and folding, solved by hand, and what all reductions together keep."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import LayerVerdicts, Stability, Status
from onnx_exact.network import Affine, Box, Chain, Layer
from onnx_exact.network.affine import Array
from onnx_exact.reduce import ReduceOptions, reduce_chain
from onnx_exact.reduce.simplify import by_intervals
from tests.nets import chain_of, cube, random_chain
from tests.oracle.networks import Case
from tests.oracle.regions import enumerate_regions, largest_difference
from tests.reduce.states import (
    ALL,
    F16,
    F32,
    F64,
    PUBLISHED,
    difference,
    every_kind,
    reduced,
    verdicts,
)
from tests.strategies import cases


def weights(chain: Chain) -> list[Array]:
    return [layer.affine.weight for layer in chain.layers]


# Removing


@every_kind
def test_inactive_units_are_removed_and_nothing_else_changes(options: ReduceOptions) -> None:
    chain = chain_of(
        ([[1, -1], [-1, -1], [-2, 1], [0.1, -0.3]], [0.1, -0.25, -1.5, 0.0]),
        ([[3, 7, 8, 0.7], [2, 5, 9, -0.9]], [1, 2]),
    )
    reduction = reduced(chain, cube(2), F64, options)
    assert reduction.removal_only
    assert reduction.layers[0].removed == 2
    assert [w.tolist() for w in weights(reduction.chain)] == [
        [[1, -1], [0.1, -0.3]],
        [[3, 0.7], [2, -0.9]],
    ]
    assert reduction.chain.layers[0].affine.bias.tolist() == [0.1, 0.0]
    assert difference(chain, reduction.chain, cube(2)) == 0.0


@every_kind
def test_undecided_and_unstable_units_stay(options: ReduceOptions) -> None:
    chain = chain_of(([[-1.0], [1.0], [-2.0]], [-1, 0, -3]), ([[1, 2, 3]], [0]))
    both = [Status.UNDECIDED, Status.UNSTABLE, Status.INACTIVE]
    reduction = reduced(chain, cube(1, -1.0, 1.0), options=options, stability=verdicts(both, None))
    assert reduction.layers[0].units_after == 2
    assert weights(reduction.chain)[1].tolist() == [[1, 2]]


@every_kind
def test_nothing_decided_is_nothing_changed(options: ReduceOptions) -> None:
    chain = chain_of(([[1.0, 0.5], [-1.0, 1.0]], [-0.5, 0]), ([[1, 2]], [0]))
    undecided = verdicts([Status.UNDECIDED] * 2, None)
    reduction = reduced(chain, cube(2), options=options, stability=undecided)
    assert not reduction.changed
    assert reduction.chain is chain
    assert reduction.refused == ()


@every_kind
def test_outputs_keep_their_width_also_where_they_are_inactive(options: ReduceOptions) -> None:
    chain = chain_of(([[1.0], [-1.0]], [0, -1]), relu_at_end=True)
    reduction = reduced(chain, cube(1, -0.5, 0.5), options=options)
    assert reduction.chain.n_out == 2
    assert reduction.layers[0].removed == 0


# Collapsing


@pytest.mark.parametrize(
    ("chain", "value"),
    [
        # Every unit of the first layer is off: relu(2) - 3 relu(0) and 1/2.
        (
            chain_of(([[-1.0], [-2.0]], [-1, 0]), ([[1, 1], [1, 1]], [2, -1]), ([[1, -3]], [0.5])),
            2.5,
        ),
        # Zero weights.
        (chain_of(([[0.0]], [2.0]), ([[3.0]], [-1.0])), 5.0),
        (chain_of(([[1.0]], [0.0]), ([[0.0]], [-1.0]), relu_at_end=True), 0.0),
        # The last layer alone is off.
        (chain_of(([[1.0]], [0.0]), ([[-1.0]], [-0.5]), relu_at_end=True), 0.0),
    ],
)
@every_kind
def test_a_constant_network_becomes_its_constant(
    chain: Chain, value: float, options: ReduceOptions
) -> None:
    reduction = reduced(chain, cube(1), options=options)
    assert reduction.chain.is_constant
    assert reduction.chain.layers[0].affine.bias.tolist() == [value]
    assert reduction.chain.connections == 0
    assert difference(chain, reduction.chain, cube(1)) == 0.0


@every_kind
def test_a_constant_that_is_one_already_is_left_alone(options: ReduceOptions) -> None:
    chain = Chain((Layer(Affine(np.zeros((2, 3)), np.ones(2)), False),))
    assert not reduced(chain, cube(3), options=options).changed


@every_kind
def test_a_constant_is_stored_in_the_dtype_of_the_model(options: ReduceOptions) -> None:
    chain = chain_of(([[0.0]], [1.0]), ([[0.25]], [1 / 3]))
    for dtype in (F16, F32, F64):
        stored = reduced(chain, cube(1), dtype, options).chain.layers[0].affine.bias[0]
        assert stored == float(dtype.type(0.25 + 1 / 3))


@every_kind
def test_a_constant_beyond_the_dtype_is_refused(options: ReduceOptions) -> None:
    chain = chain_of(([[0.0], [0.0]], [60000, 1]), ([[2, 0]], [0]), ([[1]], [0]))
    reduction = reduced(chain, cube(1), F16, options)
    assert ("collapse", "the constant does not fit float16") in {
        (refusal.what, refusal.reason) for refusal in reduction.refused
    }
    assert reduced(chain, cube(1), F32, options).chain.is_constant


@every_kind
def test_zero_rows_whose_constant_was_refused_leave_a_unit_in_every_layer(
    options: ReduceOptions,
) -> None:
    chain = chain_of(([[0.0], [0.0]], [1, 2]), ([[20000, 20000]], [0]), ([[2]], [0]))
    assert not reduced(chain, cube(1), F16, options).chain.is_constant


# Folding


def test_an_active_layer_is_folded_into_the_next() -> None:
    r"""h = (x + 1, x + 2 y + 1),  2 h_0 - h_1 + 1 = x - 2 y + 2."""
    chain = chain_of(([[1, 0], [1, 2]], [1, 1]), ([[2, -1]], [1]))
    reduction = reduced(chain, cube(2))
    assert [w.tolist() for w in weights(reduction.chain)] == [[[1, -2]]]
    assert reduction.chain.layers[0].affine.bias.tolist() == [2]
    assert reduction.layers[0].folded == 2
    assert not reduction.removal_only


def test_a_fold_that_would_add_connections_is_refused() -> None:
    """4 inputs, one unit, 4 outputs: 8 connections would become 16."""
    chain = chain_of(([[1, 1, 1, 1]], [1]), ([[1], [2], [3], [4]], [0, 0, 0, 0]))
    reduction = reduced(chain, cube(4))
    assert not reduction.changed
    (refusal,) = reduction.refused
    assert (refusal.what, refusal.layer) == ("fold", 0)
    assert "more connections" in refusal.reason
    assert dict(refusal.numbers) == {"connections_folded": 16.0, "connections": 8.0}


@every_kind
def test_a_fold_beyond_the_dtype_is_refused(options: ReduceOptions) -> None:
    chain = chain_of(([[300, 100], [100, 400]], [1, 1]), ([[300, 1], [1, 300]], [0, 0]))
    assert reduced(chain, cube(2), F32, options).chain.layers[0].affine.weight[0, 0] == 90100
    reduction = reduced(chain, cube(2), F16, options)
    assert any("does not fit float16" in refusal.reason for refusal in reduction.refused)
    assert len(reduction.chain.layers) == 2


@every_kind
@pytest.mark.parametrize(
    ("statuses", "dropped"),
    [
        ([Status.ACTIVE, Status.ACTIVE], True),
        ([Status.ACTIVE, Status.UNSTABLE], False),
        ([Status.ACTIVE, Status.UNDECIDED], False),
        ([Status.ACTIVE, Status.INACTIVE], False),
    ],
)
def test_the_last_relu_goes_only_where_every_output_is_active(
    statuses: list[Status], dropped: bool, options: ReduceOptions
) -> None:
    chain = chain_of(([[1.0, 0], [0, 1]], [1, 0]), relu_at_end=True)
    reduction = reduced(chain, cube(2), options=options, stability=verdicts(statuses))
    assert reduction.chain.layers[0].relu is not dropped
    assert reduction.changed is dropped
    assert weights(reduction.chain)[0].tolist() == [[1, 0], [0, 1]]
    assert reduction.removal_only


def test_a_layer_with_one_undecided_unit_is_not_folded() -> None:
    chain = chain_of(([[1, 0], [1, 2]], [1, 1]), ([[2, -1]], [1]))
    mixed = verdicts([Status.ACTIVE, Status.UNDECIDED], None)
    assert not reduced(chain, cube(2), stability=mixed).changed


# All together


@every_kind
@pytest.mark.parametrize("dtype", [F16, F32, F64])
def test_what_is_stored_is_what_the_dtype_holds(dtype: Any, options: ReduceOptions) -> None:
    changed = 0
    for seed in range(12):
        chain = random_chain(seed, 3, 6, 6, 3, shift=0.5)
        affines = [
            Affine(*(v.astype(dtype).astype(np.float64) for v in (a.weight, a.bias)))
            for a in (layer.affine for layer in chain.layers)
        ]
        chain = Chain.of(affines)
        stability = analyze_chain(chain, cube(3), Options(method="bounds"))
        changed += reduced(chain, cube(3), dtype, options, stability).changed
    assert changed >= 6


@every_kind
def test_reducing_twice_finds_nothing_new(options: ReduceOptions) -> None:
    for seed in range(10):
        chain = random_chain(seed, 3, 6, 6, 3, shift=0.5)
        once = reduced(chain, cube(3), F64, options)
        again = reduced(once.chain, cube(3), F64, options)
        assert again.chain.connections <= once.chain.connections
        assert sum(t.removed for t in again.layers) == 0


def test_the_original_is_never_written_to() -> None:
    chain = random_chain(1, 3, 6, 6, 3, shift=0.5)
    before = [(layer.affine.weight.copy(), layer.affine.bias.copy()) for layer in chain.layers]
    assert reduced(chain, cube(3), F64).changed
    for layer, (weight, bias) in zip(chain.layers, before, strict=True):
        np.testing.assert_array_equal(layer.affine.weight, weight)
        np.testing.assert_array_equal(layer.affine.bias, bias)


@settings(max_examples=80)
@given(cases(), st.sampled_from([PUBLISHED, ALL]))
def test_any_network_with_any_units_undecided_computes_the_same(
    case: Case, options: ReduceOptions
) -> None:
    """A random share of the verdicts is taken back: what is left has to be right on its own."""
    stability = analyze_chain(case.chain, case.box, Options(method="bounds"))
    rng = np.random.default_rng(0)
    layers = []
    for layer in stability.layers:
        if layer is None:
            layers.append(None)
            continue
        forget = rng.random(layer.units) < 0.3
        status = np.where(forget, np.int8(Status.UNDECIDED), layer.status).astype(np.int8)
        layers.append(
            LayerVerdicts(
                status,
                layer.evidence,
                np.where(forget, np.minimum(layer.lower, -1.0), layer.lower),
                np.where(forget, np.maximum(layer.upper, 1.0), layer.upper),
                layer.seen_positive,
                layer.seen_negative,
            )
        )
    partly = Stability(
        tuple(layers), stability.witnesses, stability.output_lower, stability.output_upper
    )
    reduction = reduced(case.chain, case.box, F64, options, partly)
    moved = largest_difference(enumerate_regions(case.chain, case.box).regions, reduction.chain)
    scale = 1.0 + max(float(np.abs(b).max()) for b in (partly.output_lower, partly.output_upper))
    limit = Fraction(0) if reduction.removal_only else Fraction(1e-12) * Fraction(scale)
    assert max(moved) <= limit


def test_dead_outputs_of_a_chain_stay_and_are_told() -> None:
    """How many there are is known to others."""
    weight, bias = np.eye(3), np.array([-2.0, 0.5, -2.0])
    chain = Chain((Layer(Affine(weight, bias), relu=True),))
    box = Box(np.zeros(3), np.ones(3))
    found = reduce_chain(chain, by_intervals(chain, box), box, np.dtype(np.float32))
    assert not found.changed
    (refusal,) = found.refused
    assert "outputs of the chain" in refusal.reason
    assert refusal.numbers == {"units": 2.0}
