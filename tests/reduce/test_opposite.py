"""Opposite units on networks worked out by hand and on random ones with such units put in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Status
from onnx_exact.network import Affine, Box, Chain
from onnx_exact.reduce import reduce_chain
from onnx_exact.reduce.opposite import opposite
from onnx_exact.reduce.state import State
from onnx_exact.reduce.units import NEW
from tests.oracle.regions import enumerate_regions, largest_difference
from tests.oracle.rounding import own_rounding
from tests.reduce.states import affine, numbers, state

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


def test_two_pairs_that_one_output_reads_share_a_linear_unit() -> None:
    """
    h1 - h2 + 2 h3 + h4 with g2 = -2 g1 and g4 = -g3 is
    (h1 - 2 h1) + (2 h3 + h3) - g2 + g4 = -h1 + 3 h3 + 2 g1 - g3,  2 g1 - g3 = x1 - 3 x2.
    """
    before = state(
        affine([[1, -1], [-2, 2], [1, 1], [-1, -1]], [0, 0, -1, 1]), affine([[1, -1, 2, 1]], [5])
    )
    after, refused = opposite(before, 1.0)
    assert refused == ()
    (weight, bias), (read, out) = numbers(after)
    assert weight == [[1, -1], [1, 1], [1, -3]]
    assert read == [[-1, 3, 1]]
    # x1 - 3 x2 is at least -3, and 2 g1 - g3 = x1 - 3 x2 + 1.
    assert bias == pytest.approx([0, -1, 3], abs=1e-6)
    assert out == pytest.approx([5 + 1 - 3], abs=1e-5)
    assert after.layers[0].units.tolist() == [0, 2, NEW]
    assert after.layers[0].status.tolist() == [Status.UNSTABLE, Status.UNSTABLE, Status.ACTIVE]


def test_a_pair_joins_the_stably_active_units() -> None:
    before = state(affine([[1, -1], [-1, 1], [1, 1]], [0, 0, 1]), affine([[1, 2, 3]], [0]))
    after, _ = opposite(before, 1.0)
    (weight, _), (read, _) = numbers(after)
    # h1 + 2 (h1 - x1 + x2) + 3 (x1 + x2 + 1)
    assert weight == [[1, -1], [1, 5]]
    assert read == [[3, 1]]


@pytest.mark.parametrize(
    ("rows", "bias"),
    [
        ([[1, -1], [-1, 1]], [0, 0]),
        ([[1, -1], [-1, 1], [1, 1]], [0.5, 0.5, 1]),
        ([[1, -1], [-1, np.nextafter(1, 2)], [1, 1]], [0, 0, 1]),
        ([[1, -1], [2, -2], [1, 1]], [0, 0, 1]),
    ],
    ids=["a pair alone", "another bias", "nearly opposite", "the same direction"],
)
def test_what_saves_no_unit_or_is_not_opposite_stays(
    rows: list[list[float]], bias: list[float]
) -> None:
    before = state(affine(rows, bias), affine([[1.0] * len(rows)], [0]), dtype=F64)
    assert opposite(before, 1.0) == (before, ())


def test_halving_that_rounds_too_much_is_refused_with_numbers() -> None:
    third = float(np.float32(1 / 3))
    before = state(
        affine([[third, -0.7], [-third, 0.7], [1, 1]], [0.1, -0.1, 1]),
        affine([[third, 0.3, 1]], [0]),
    )
    after, refused = opposite(before, 0.0)
    assert after is before
    assert refused[0].numbers["deviation"] > refused[0].numbers["allowed"] == 0.0


def test_units_without_bounds_are_refused() -> None:
    chain = Chain.of([affine([[1, -1], [-1, 1], [1, 1]], [0, 0, 1]), affine([[1, 2, 3]], [0])])
    box = Box(np.zeros(2), np.full(2, np.inf))
    stability = analyze_chain(chain, box, Options(method="bounds"))
    reduction = reduce_chain(chain, stability, box, F32)
    assert not reduction.changed
    assert any("not bounded" in refusal.reason for refusal in reduction.refused)


def with_opposites(rng: np.random.Generator, dtype: Any) -> Chain:
    """Two hidden layers, each with three pairs and units of all kinds beside them."""
    affines = []
    for n_in, n_out in ((2, 9), (9, 8), (8, 2)):
        weight = (rng.integers(-8, 9, size=(n_out, n_in)) / 4).astype(dtype).astype(np.float64)
        bias = (rng.integers(-8, 9, size=n_out) / 4).astype(np.float64)
        if n_out > 2:
            for pair, factor in enumerate((1.0, 2.0, 0.5)):
                weight[2 * pair + 1] = -factor * weight[2 * pair]
                bias[2 * pair + 1] = -factor * bias[2 * pair]
        affines.append(Affine(weight, bias))
    return Chain.of(affines)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_random_networks_compute_the_same_with_fewer_units(dtype: Any) -> None:
    fewer = 0
    for seed in range(40):
        chain = with_opposites(np.random.default_rng(seed), dtype)
        box = Box(np.full(2, -1.0), np.ones(2))
        stability = analyze_chain(chain, box, Options(method="bounds"))
        before = State.of(chain, stability, box, dtype)
        after, _ = opposite(before, 1.0)
        if after is before:
            continue
        fewer += 1
        assert after.chain.relu_units < chain.relu_units
        assert after.chain.connections < chain.connections
        moved = largest_difference(enumerate_regions(chain, box).regions, after.chain)
        for found, limit in zip(moved, own_rounding(chain, box, dtype), strict=True):
            assert found <= limit
    assert fewer >= 20


def test_all_reductions_together_halve_opposite_units() -> None:
    chain = with_opposites(np.random.default_rng(1), F32)
    box = Box(np.full(2, -1.0), np.ones(2))
    stability = analyze_chain(chain, box, Options(method="bounds"))
    reduction = reduce_chain(chain, stability, box, F32)
    assert reduction.layers[0].merged >= 1
    moved = largest_difference(enumerate_regions(chain, box).regions, reduction.chain)
    for found, limit in zip(moved, own_rounding(chain, box, F32), strict=True):
        assert found <= limit
