"""Merging of dependent active units, on networks solved by hand."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_exact.decide.verdict import Status
from onnx_exact.network import Chain
from onnx_exact.reduce import ReduceOptions
from tests.nets import box_of, chain_of, cube
from tests.reduce.states import F32, F64, difference, every_kind, reduced, verdicts

INF = np.inf


def merged_layer(rows: list[list[float]], biases: list[float], out: list[float]) -> Chain:
    """The first unit is unstable and keeps the layer from being folded."""
    n = len(rows[0])
    return chain_of(([[1.0, -1.0, *[0] * (n - 2)], *rows], [0.0, *biases]), ([[1.0, *out]], [0.5]))


@every_kind
@pytest.mark.parametrize(
    ("rows", "biases", "out"),
    [
        ([[1, 2], [1, 2]], [1, 3], [2, 5]),  # a duplicate with another bias
        ([[1, 2], [0.5, 1]], [1, 3], [2, 5]),  # a multiple
        ([[1, 2], [-2, -4]], [0, 7], [2, 5]),  # a negative multiple, active all the same
        ([[1, 0], [0, 1], [1, 1]], [0, 0, 0.25], [1, 1, 4]),  # a sum
    ],
)
def test_dependent_active_units_are_merged(
    rows: list, biases: list, out: list, options: ReduceOptions
) -> None:
    chain = merged_layer(rows, biases, out)
    reduction = reduced(chain, cube(2), F32, options)
    assert reduction.layers[0].merged >= 1
    assert difference(chain, reduction.chain, cube(2)) <= 1e-6 * 30
    assert not reduction.removal_only


def test_a_merge_by_hand() -> None:
    """h_2 = h_1 + 2 with weight 5: the outgoing weight of h_1 becomes 2 + 5, the bias 0.5 + 10."""
    reduction = reduced(merged_layer([[1, 2], [1, 2]], [1, 3], [2, 5]), cube(2))
    assert reduction.layers[0].merged == 1
    last = reduction.chain.layers[-1].affine
    kept = reduction.chain.layers[0].affine.bias.tolist()
    assert sorted(last.weight[0].tolist()) == [1, 7]
    assert last.bias[0] == (10.5 if kept[1] == 1 else 0.5 - 4)


@pytest.mark.parametrize("status", [Status.UNSTABLE, Status.UNDECIDED])
def test_duplicates_that_are_not_active_are_not_merged_as_active(status: Status) -> None:
    chain = merged_layer([[1, 2], [1, 2]], [1, 3], [2, 5])
    stability = verdicts([Status.UNSTABLE, Status.ACTIVE, status], None)
    assert not reduced(chain, cube(2), stability=stability).changed


def test_a_merge_beyond_the_rounding_of_the_model_is_refused() -> None:
    """The third row is the sum of the others but for 1e-6: more than float32 may add."""
    chain = merged_layer([[1, 0.5], [0.25, 1], [1.25, 1.500001]], [0, 0, 0.25], [1, 1, 1])
    reduction = reduced(chain, cube(2), F32)
    assert reduction.layers[0].merged <= 2  # two inputs: the rank is 2
    rounding = 2.0**-24 * 10
    assert difference(chain, reduction.chain, cube(2)) <= rounding
    near = merged_layer([[1.0, 0.5], [1.0 + 1e-7, 0.5]], [0, 0], [1, 1e6])
    kept = reduced(near, cube(2), F64)
    assert kept.layers[0].merged == 0
    assert any(r.what == "merge" and "rounding" in r.reason for r in kept.refused)
    assert near is kept.chain


def test_over_an_unbounded_box_only_exact_merges_are_made_and_refusals_have_finite_figures() -> (
    None
):
    box = box_of([0.0, 0.0], [INF, INF])
    exact = merged_layer([[1, 2], [2, 4]], [1, 3], [2, 4])
    assert reduced(exact, box, F32).layers[0].merged == 1
    rough = merged_layer([[0.1, 0.2], [0.3, 0.7], [0.37, 0.79]], [0, 0, 1], [0.3, 0.7, 0.11])
    reduction = reduced(rough, box, F64)
    assert [r.what for r in reduction.refused] == ["merge"]
    assert all(np.isfinite(n) for r in reduction.refused for n in r.numbers.values())


@pytest.mark.parametrize("size", [1e-200, 5e-324, 1e200])
def test_rows_without_a_norm_are_merged_or_left_in_peace(size: float) -> None:
    chain = merged_layer([[size, 0], [0, size], [size, size]], [1, 1, 1], [1, 2, 3])
    reduction = reduced(chain, cube(2), F64)
    points = np.array([[0.0, 0.0], [1.0, 0.5], [0.3, 1.0]])
    np.testing.assert_allclose(reduction.chain.forward(points), chain.forward(points), rtol=1e-12)
