"""Verdicts and reductions against an exact enumeration of the linear regions, on random networks.

No comparison has a tolerance but two, both named here: which units a solver may leave undecided,
and what the rounding of stored weights may move an output by.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Evidence, Stability, Status
from onnx_exact.methods import METHODS
from onnx_exact.network import Chain
from onnx_exact.reduce import Reduction, reduce_chain
from tests.oracle.exact import exact_layers, outputs, preactivations
from tests.oracle.networks import SOURCES, Case, random_case
from tests.oracle.regions import Enumeration, enumerate_regions, largest_difference
from tests.oracle.rounding import own_rounding
from tests.strategies import cases

# Of each family; `python -m benchmarks.oracle` tries ten thousand others. A tie costs "auto"
# seconds, and dyadic networks are full of them.
NETWORKS = {"normal": 90, "dyadic": 40}
# Methods that claim to decide every unit, given time; the others are held to being right.
COMPLETE = [method for method in METHODS if method != "bounds"]
# A unit whose range ends this close to 0, relative to the range, may be left undecided.
UNDECIDED_MARGIN = Fraction(1, 10**6)
DTYPES: list[np.dtype[np.floating[Any]]] = [np.dtype(f"float{bits}") for bits in (16, 32, 64)]
EXAMPLES = {"auto": 30}
MOST_EXAMPLES = 100
# How often a thing has to occur among the networks for a test of it to mean something.
SOME = 3

every_network = pytest.mark.parametrize(
    ("family", "seed"), [(family, seed) for family in SOURCES for seed in range(NETWORKS[family])]
)
every_method = pytest.mark.parametrize("method", METHODS)


@dataclass(frozen=True, eq=False)
class Study:
    """A network, the truth about it, and what the package says."""

    case: Case
    truth: Enumeration
    stability: Stability


@cache
def truth_of(family: str, seed: int) -> tuple[Case, Enumeration]:
    case = random_case(family, seed)
    return case, enumerate_regions(case.chain, case.box)


def study(family: str, seed: int, method: str = "auto") -> Study:
    return _study(family, seed, method)


@cache
def _study(family: str, seed: int, method: str) -> Study:
    case, truth = truth_of(family, seed)
    return Study(case, truth, analyze_chain(case.chain, case.box, Options(method=method)))


def study_of(case: Case, method: str) -> Study:
    truth = enumerate_regions(case.chain, case.box)
    return Study(case, truth, analyze_chain(case.chain, case.box, Options(method=method)))


def wrong_verdicts(found: Study) -> list[str]:
    """Decided units whose verdict is not true. A unit that is 0 throughout is both stable ones."""
    wrong = []
    for place, status, true, (least, greatest) in units_of(found):
        holds = {
            Status.UNDECIDED: True,
            Status.INACTIVE: greatest <= 0,
            Status.ACTIVE: least >= 0,
            Status.UNSTABLE: true is Status.UNSTABLE,
        }[status]
        if not holds:
            wrong.append(f"{place}: {status.name} over [{float(least)}, {float(greatest)}]")
    return wrong


def needlessly_undecided(found: Study) -> list[str]:
    """Undecided units whose range ends well away from 0 on both sides."""
    left = []
    for place, status, _, (least, greatest) in units_of(found):
        scale = max(Fraction(1), -least, greatest)
        away = min(abs(least), abs(greatest)) > UNDECIDED_MARGIN * scale
        if status is Status.UNDECIDED and away:
            left.append(f"{place} over [{float(least)}, {float(greatest)}]")
    return left


def units_of(found: Study) -> list[tuple[str, Status, Status, tuple[Fraction, Fraction]]]:
    """Every ReLU unit: its place, the verdict, the true verdict and its exact range."""
    units = []
    rows = zip(found.stability.layers, found.truth.statuses, found.truth.ranges, strict=True)
    for index, (verdicts, true, ranges) in enumerate(rows):
        if verdicts is None or true is None:
            assert verdicts is None
            assert true is None
            continue
        for unit, status in enumerate(verdicts.status):
            place = f"layer {index} unit {unit}"
            units.append((place, Status(int(status)), true[unit], ranges[unit]))
    return units


@every_method
@every_network
def test_every_verdict_is_true(family: str, seed: int, method: str) -> None:
    found = study(family, seed, method)
    assert not wrong_verdicts(found), found.case


@pytest.mark.parametrize("method", COMPLETE)
@every_network
def test_every_unit_away_from_zero_is_decided(family: str, seed: int, method: str) -> None:
    found = study(family, seed, method)
    assert not needlessly_undecided(found), found.case


@pytest.mark.parametrize("method", COMPLETE)
def test_no_unit_of_a_normal_network_is_undecided(method: str) -> None:
    """Random normal weights have no ties for a tolerance to stumble over."""
    undecided = [study("normal", seed, method).stability for seed in range(NETWORKS["normal"])]
    assert sum(stability.count(Status.UNDECIDED) for stability in undecided) == 0


@every_method
@every_network
def test_bounds_hold_the_exact_range(family: str, seed: int, method: str) -> None:
    found = study(family, seed, method)
    reported = [
        None if verdicts is None else (verdicts.lower, verdicts.upper)
        for verdicts in found.stability.layers
    ]
    reported.append((found.stability.output_lower, found.stability.output_upper))
    for bounds, ranges in zip(reported, (*found.truth.ranges, found.truth.outputs), strict=True):
        if bounds is None:
            continue
        for low, high, (least, greatest) in zip(*bounds, ranges, strict=True):
            assert float(low) <= least, found.case
            assert greatest <= float(high), found.case


@every_network
def test_witnesses_lie_in_the_box_and_show_each_unstable_unit_on_both_sides(
    family: str, seed: int
) -> None:
    found = study(family, seed)
    layers = exact_layers(found.case.chain)
    assert found.case.box.contains(found.stability.witnesses)
    shown = [
        preactivations(layers, [Fraction(float(x)) for x in point])
        for point in found.stability.witnesses
    ]
    for index, verdicts in enumerate(found.stability.layers):
        if verdicts is None:
            continue
        positive = [any(g[index][i] > 0 for g in shown) for i in range(verdicts.units)]
        negative = [any(g[index][i] < 0 for g in shown) for i in range(verdicts.units)]
        np.testing.assert_array_equal(verdicts.seen_positive, positive)
        np.testing.assert_array_equal(verdicts.seen_negative, negative)
        for i in verdicts.where(Status.UNSTABLE):
            assert positive[i]
            assert negative[i]


def dtypes_of(chain: Chain) -> list[np.dtype[np.floating[Any]]]:
    """The dtypes that hold every number of a chain."""
    numbers = [layer.affine.weight for layer in chain.layers]
    numbers += [layer.affine.bias for layer in chain.layers]
    return [d for d in DTYPES if all(np.array_equal(n, n.astype(d)) for n in numbers)]


def assert_same_function(found: Study, reduction: Reduction, dtype: Any) -> None:
    """The reduced network equals the original all over the domain, not only at points."""
    difference = largest_difference(found.truth.regions, reduction.chain)
    allowed = own_rounding(found.case.chain, found.case.box, dtype)
    for moved, limit in zip(difference, allowed, strict=True):
        if reduction.removal_only:
            assert moved == 0, (found.case, reduction)
        assert moved <= limit, (found.case, reduction, float(moved), float(limit))


@every_network
def test_reduced_network_is_the_same_function(family: str, seed: int) -> None:
    found = study(family, seed)
    dtypes = dtypes_of(found.case.chain)
    assert DTYPES[1] in dtypes
    for dtype in dtypes:
        reduction = reduce_chain(found.case.chain, found.stability, found.case.box, dtype)
        assert_same_function(found, reduction, dtype)


@every_network
def test_reduced_network_equals_the_original_at_the_vertices_of_its_regions(
    family: str, seed: int
) -> None:
    """The same by plain evaluation of both networks, independent of any region of the reduced."""
    found = study(family, seed)
    dtype = np.dtype(np.float64)
    reduction = reduce_chain(found.case.chain, found.stability, found.case.box, dtype)
    allowed = own_rounding(found.case.chain, found.case.box, dtype)
    if reduction.removal_only:
        allowed = [Fraction(0)] * len(allowed)
    layers = exact_layers(reduction.chain)
    for region in found.truth.regions:
        points = [*region.vertex_outputs(), centre(list(region.vertex_outputs()))]
        for point, expected in points:
            actual = outputs(layers, point)
            for a, b, limit in zip(actual, expected, allowed, strict=True):
                assert abs(a - b) <= limit, found.case


Points = tuple[tuple[Fraction, ...], tuple[Fraction, ...]]


def centre(vertices: list[Points]) -> Points:
    """The mean of the vertices of a region and, since it is linear there, of the outputs."""
    points, values = zip(*vertices, strict=True)
    return mean(points), mean(values)


def mean(rows: tuple[tuple[Fraction, ...], ...]) -> tuple[Fraction, ...]:
    return tuple(sum(column) / Fraction(len(rows)) for column in zip(*rows, strict=True))


@every_network
def test_the_tally_of_a_reduction_adds_up(family: str, seed: int) -> None:
    found = study(family, seed)
    chain = found.case.chain
    reduction = reduce_chain(chain, found.stability, found.case.box, DTYPES[1])

    assert len(reduction.layers) == len(chain.layers)
    for layer, tally in zip(chain.layers, reduction.layers, strict=True):
        assert tally.units == layer.width
        gone = (tally.removed, tally.negligible, tally.merged, tally.folded)
        assert min(*gone, tally.units_after) >= 0
        assert tally.units_after == tally.units - sum(gone), found.case
    assert (reduction.chain.n_in, reduction.chain.n_out) == (chain.n_in, chain.n_out)
    assert sum(tally.units_after for tally in reduction.layers) == sum(
        layer.width for layer in reduction.chain.layers
    )
    if not reduction.changed:
        assert reduction.chain is chain
    assert reduction.chain.connections <= chain.connections


@every_network
def test_nothing_provable_is_left_to_remove(family: str, seed: int) -> None:
    """No hidden unit that is stably inactive, and no constant network with hidden layers."""
    found = study(family, seed)
    if found.stability.count(Status.UNDECIDED):
        return
    chain = reduce_chain(found.case.chain, found.stability, found.case.box, DTYPES[1]).chain
    left = enumerate_regions(chain, found.case.box)
    for layer, statuses, ranges in zip(
        chain.layers[:-1], left.statuses[:-1], left.ranges[:-1], strict=True
    ):
        if layer.relu and statuses is not None:
            gone = [r for r, s in zip(ranges, statuses, strict=True) if s is Status.INACTIVE]
            # A unit that is 0 throughout may count as stably active.
            assert all(r == (0, 0) for r in gone), found.case


def test_the_networks_have_everything_that_is_tested() -> None:
    """Every verdict, every kind of evidence and every reduction occurs in both families."""
    for family in SOURCES:
        seen: Counter[str] = Counter()
        for seed in range(NETWORKS[family]):
            found = study(family, seed)
            seen.update(true.name for _, _, true, _ in units_of(found))
            reduction = reduce_chain(found.case.chain, found.stability, found.case.box, DTYPES[1])
            for tally in reduction.layers:
                seen.update(removed=tally.removed, merged=tally.merged, folded=tally.folded)
            seen["removal only"] += reduction.changed and reduction.removal_only
            seen["unchanged"] += not reduction.changed
            seen["constant"] += all(low == high for low, high in found.truth.outputs)
            seen["several regions"] += len(found.truth.regions) > 1
            for verdicts in found.stability.layers:
                if verdicts is not None:
                    seen.update(f"evidence {e}" for e in verdicts.evidence)
        expected = ["INACTIVE", "ACTIVE", "UNSTABLE", "removed", "merged", "folded"]
        expected += ["removal only", "unchanged", "constant", "several regions"]
        expected += [f"evidence {e}" for e in (1, 2, 3)]
        assert all(seen[name] >= SOME for name in expected), (family, seen)


@pytest.mark.parametrize("method", ["isa", "per-unit"])
def test_a_solver_decides_nothing_by_default(method: str) -> None:
    for family in SOURCES:
        for seed in range(NETWORKS[family]):
            layers = study(family, seed, method).stability.layers
            assert not any((v.evidence == Evidence.SOLVER).any() for v in layers if v)


@every_method
def test_verdicts_on_any_network_are_true_and_complete(method: str) -> None:
    @settings(max_examples=EXAMPLES.get(method, MOST_EXAMPLES))
    @given(cases())
    def check(case: Case) -> None:
        found = study_of(case, method)
        assert not wrong_verdicts(found)
        assert method not in COMPLETE or not needlessly_undecided(found)

    check()


@settings(max_examples=MOST_EXAMPLES)
@given(cases())
def test_reduction_of_any_network_is_the_same_function(case: Case) -> None:
    found = study_of(case, "per-unit")
    for dtype in dtypes_of(case.chain):
        reduction = reduce_chain(case.chain, found.stability, case.box, dtype)
        assert_same_function(found, reduction, dtype)
