"""The certified deviation against exact evaluations, and where it has to be exactly 0."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from onnx_exact.certify.bounds import Bounds
from onnx_exact.certify.deviation import Comparison, compare
from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.errors import TimeLimitError
from onnx_exact.methods import REDUCTIONS
from onnx_exact.network import Affine, Box, Chain, Layer
from onnx_exact.network.affine import Array
from onnx_exact.reduce import ReduceOptions, Reduction, UnitMap, reduce_chain
from tests.nets import chain_of, cube
from tests.oracle.exact import exact_layers, outputs
from tests.oracle.networks import SOURCES, random_case

F32 = np.dtype(np.float32)
NETWORKS = 60  # of each family
# Largest multiple of the deviation seen at points that the bound may be on most networks.
TIGHT = 20.0


def reduced(
    chain: Chain, box: Box, reductions: str = REDUCTIONS[0]
) -> tuple[Reduction, Comparison]:
    stability = analyze_chain(chain, box, Options(method="bounds"))
    reduction = reduce_chain(chain, stability, box, F32, ReduceOptions(reductions))
    bounds = Bounds.of(chain, stability, box)
    return reduction, compare(bounds, box, reduction.chain, reduction.origins, reduction.gone)


def points_of(box: Box, count: int = 12) -> Array:
    rng = np.random.default_rng(1)
    return np.vstack([box.sample(rng, count), box.corners(rng, count)])


def exact_deviation(before: Chain, after: Chain, points: Array) -> list[Fraction]:
    """The largest |new - old| of each output at the points, in rationals."""
    old, new = exact_layers(before), exact_layers(after)
    most = [Fraction(0)] * before.n_out
    for point in points.tolist():
        exact = [Fraction(x) for x in point]
        for i, (a, b) in enumerate(zip(outputs(old, exact), outputs(new, exact), strict=True)):
            most[i] = max(most[i], abs(a - b))
    return most


@pytest.mark.parametrize("family", SOURCES)
@pytest.mark.parametrize("reductions", REDUCTIONS)
def test_no_point_deviates_further(family: str, reductions: str) -> None:
    rounded = 0
    for seed in range(NETWORKS):
        case = random_case(family, seed)
        reduction, comparison = reduced(case.chain, case.box, reductions)
        assert np.isfinite(comparison.outputs).all()
        exact = exact_deviation(case.chain, reduction.chain, points_of(case.box))
        for bound, seen in zip(comparison.outputs.tolist(), exact, strict=True):
            assert Fraction(bound) >= seen
        if reduction.removal_only:
            assert (comparison.outputs == 0.0).all()
        rounded += any(seen > 0 for seen in exact)
    assert rounded > 0 or family == "dyadic"


@pytest.mark.parametrize("family", SOURCES)
def test_bounds_of_the_new_chain_hold(family: str) -> None:
    for seed in range(NETWORKS // 2):
        case = random_case(family, seed)
        reduction, comparison = reduced(case.chain, case.box)
        values = reduction.chain.preactivations(points_of(case.box))
        found = zip(values, comparison.bounds.lower, comparison.bounds.upper, strict=True)
        for value, lower, upper in found:
            room = 1e-12 * (1.0 + np.abs(value).max())
            assert (value >= lower - room).all()
            assert (value <= upper + room).all()


@pytest.mark.parametrize("family", SOURCES)
def test_a_weight_that_is_changed_counts_with_all_that_it_moves(family: str) -> None:
    """Whatever the new chain is, no point deviates further than the bound."""
    rng = np.random.default_rng(5)
    moved = 0
    for seed in range(NETWORKS):
        case = random_case(family, seed)
        reduction, _ = reduced(case.chain, case.box)
        layers = list(reduction.chain.layers)
        k = int(rng.integers(len(layers)))
        weight = layers[k].affine.weight.copy()
        weight[tuple(rng.integers(weight.shape))] += 2.0 ** -float(rng.integers(0, 12))
        layers[k] = Layer(Affine(weight, layers[k].affine.bias), layers[k].relu)
        changed = Chain(tuple(layers))
        stability = analyze_chain(case.chain, case.box, Options(method="bounds"))
        bounds = Bounds.of(case.chain, stability, case.box)
        found = compare(bounds, case.box, changed, reduction.origins, reduction.gone).outputs
        exact = exact_deviation(case.chain, changed, points_of(case.box))
        for bound, seen in zip(found.tolist(), exact, strict=True):
            assert bound == np.inf or Fraction(bound) >= seen
        moved += any(seen > 0 for seen in exact)
    assert moved > NETWORKS // 4


def test_a_changed_bias_of_the_output_is_the_deviation_itself() -> None:
    chain = chain_of(([[1.0, -1.0], [0.5, 1.0]], [-0.25, -0.5]), ([[1.0, 1.0]], [0.0]))
    _, same = reduced(chain, cube(2))
    assert same.outputs.tolist() == [0.0]
    stability = analyze_chain(chain, cube(2), Options(method="bounds"))
    last = chain.layers[1]
    changed = Chain(
        (chain.layers[0], Layer(Affine(last.affine.weight, np.array([2.0**-20])), False))
    )
    origins = [UnitMap.identity(0, 2), UnitMap.identity(1, 1)]
    bounds = Bounds.of(chain, stability, cube(2))
    (found,) = compare(bounds, cube(2), changed, origins).outputs
    assert 2.0**-20 <= found <= 2.0**-20 * (1 + 1e-12)


def test_a_changed_weight_of_a_linear_chain_counts_at_the_worst_corner() -> None:
    chain = chain_of(([[1.0, 2.0]], [5.0]), ([[1.0]], [0.0]))
    changed = chain_of(([[1.0 + 2.0**-10, 2.0]], [5.0]), ([[1.0]], [0.0]))
    box = cube(2, -1.0, 2.0)
    stability = analyze_chain(chain, box, Options(method="bounds"))
    origins = [UnitMap.identity(0, 1), UnitMap.identity(1, 1)]
    bounds = Bounds.of(chain, stability, box)
    (found,) = compare(bounds, box, changed, origins).outputs
    assert 2.0**-9 <= found <= 2.0**-9 * (1 + 1e-9)


def test_a_unit_that_is_taken_for_another_is_not_overlooked() -> None:
    chain = chain_of(([[1.0, -1.0], [-1.0, 1.0]], [0.0, 0.0]), ([[1.0, 0.0]], [0.0]))
    stability = analyze_chain(chain, cube(2), Options(method="bounds"))
    swapped = replace(UnitMap.identity(0, 2), place=np.array([1, 0]))
    bounds = Bounds.of(chain, stability, cube(2))
    origins = [swapped, UnitMap.identity(1, 1)]
    (found,) = compare(bounds, cube(2), chain, origins).outputs
    assert found >= 1.0


def test_outputs_that_are_not_mapped_have_no_bound() -> None:
    chain = chain_of(([[1.0]], [0.0]), ([[1.0], [2.0]], [0.0, 0.0]))
    stability = analyze_chain(chain, cube(1), Options(method="bounds"))
    swapped = replace(UnitMap.identity(1, 2), place=np.array([1, 0]))
    bounds = Bounds.of(chain, stability, cube(1))
    found = compare(bounds, cube(1), chain, [UnitMap.identity(0, 1), swapped])
    assert np.isinf(found.outputs).all()


def test_what_overflows_has_no_bound() -> None:
    huge = 1e200
    chain = chain_of(([[huge]], [0.0]), ([[huge]], [0.0]), ([[1.0]], [0.0]))
    other = chain_of(([[huge]], [0.0]), ([[2 * huge]], [0.0]), ([[1.0]], [0.0]))
    stability = analyze_chain(chain, cube(1), Options(method="bounds"))
    origins = [UnitMap.identity(i, 1) for i in range(3)]
    bounds = Bounds.of(chain, stability, cube(1))
    assert compare(bounds, cube(1), other, origins).outputs[0] == np.inf


def test_bounds_are_close_to_what_points_show() -> None:
    loose = compared = 0
    for seed in range(NETWORKS):
        case = random_case("normal", seed)
        reduction, comparison = reduced(case.chain, case.box)
        seen = max(exact_deviation(case.chain, reduction.chain, points_of(case.box)))
        if seen > 0:
            compared += 1
            loose += comparison.outputs.max() > TIGHT * seen
    assert compared
    assert loose <= compared // 4


@pytest.mark.parametrize("scale", [1.0, 2.0, 3.0])
def test_one_of_two_opposite_units_is_linear_but_for_the_other(scale: float) -> None:
    rows = [[1.0, -1.0], [-scale, scale], [1.0, 1.0], [-1.0, -1.0]]
    chain = chain_of((rows, [0.0, 0.0, -1.0, 1.0]), ([[1.0, -1.0, 2.0, 1.0]], [5.0]))
    box = cube(2)
    reduction, comparison = reduced(chain, box)
    assert reduction.chain.layers[0].width < 4
    exact = exact_deviation(chain, reduction.chain, points_of(box))
    assert Fraction(float(comparison.outputs[0])) >= exact[0]
    assert comparison.outputs[0] <= 1e-5


def test_a_comparison_may_be_ended_before_any_layer() -> None:
    case = random_case("normal", 3)
    stability = analyze_chain(case.chain, case.box, Options(method="bounds"))
    bounds = Bounds.of(case.chain, stability, case.box)
    origins = [UnitMap.identity(k, layer.width) for k, layer in enumerate(case.chain.layers)]
    asked = []

    def go_on() -> None:
        asked.append(len(asked))
        if len(asked) == len(case.chain.layers):
            raise TimeLimitError("late")

    with pytest.raises(TimeLimitError):
        compare(bounds, case.box, case.chain, origins, (), go_on)
    assert len(asked) == len(case.chain.layers)
