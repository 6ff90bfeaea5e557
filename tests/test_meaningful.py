"""Rewrites that round are taken back where the bound on what they do says nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnx_exact
from onnx_exact.certify.bounds import Bounds
from onnx_exact.certify.deviation import compare
from onnx_exact.certify.summary import Certified, certify_chain
from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.network import Affine, Box, Chain
from onnx_exact.reduce import ReduceOptions, Reduction, reduce_chain
from onnx_exact.stages.meaningful import MEANINGFUL, meaningful, observed_range
from tests.nets import cube
from tests.oracle.networks import random_case
from tests.oracle.regions import enumerate_regions, largest_difference
from tests.reduce.states import F32, affine
from tests.verifier.build import gemm_model

EMPTY = np.zeros((0, 1))


class Costs:
    """Stands for a chain whose layers cost what is given, unless nothing is rounded in them."""

    def __init__(self, costs: list[float], reduction: Reduction, stubborn: float = 0.0) -> None:
        self.stubborn = stubborn
        self.costs, self.asked = costs, list[frozenset[int]]()
        self._reduction = reduction

    def __call__(self, exact: frozenset[int], removal: bool) -> tuple[Reduction, Certified]:
        self.asked.append(exact)
        left = [cost for layer, cost in enumerate(self.costs) if layer not in exact]
        left = [] if removal else [*left, self.stubborn]
        found = replace(self._reduction, removal_only=not any(left))
        bound = sum(left) if np.isfinite(left).all() else None
        return found, Certified(bound, "y", True, None, None)


def one() -> float:
    """The range of the outputs."""
    return 1.0


@pytest.fixture
def rounded() -> Reduction:
    chain = Chain.of([affine([[1.0], [2.0]], [2.0, 2.0]), affine([[0.1, 0.3]], [0.0])])
    stability = analyze_chain(chain, cube(1), Options(method="bounds"))
    return replace(reduce_chain(chain, stability, cube(1), F32), removal_only=False)


def test_what_is_below_a_thousandth_of_the_range_stays(rounded: Reduction) -> None:
    costs = Costs([MEANINGFUL, 0.0], rounded)
    assert not meaningful(costs, 2, one)[0].refused
    assert costs.asked == [frozenset()]


def test_the_costliest_go_first_and_no_more_than_need_be(rounded: Reduction) -> None:
    costs = Costs([5e-4, 3.0, 4e-4, 2.0], rounded)
    found, bound = meaningful(costs, 4, one)
    assert bound.max_abs == pytest.approx(9e-4)
    assert costs.asked[-1] == {1, 3}
    assert "more than 0.001 of their range" in found.refused[0].reason
    assert found.refused[0].numbers["deviation"] == pytest.approx(5.0009)


def test_what_is_left_in_the_end_is_removal_alone(rounded: Reduction) -> None:
    """Whatever the bound says of rewrites that are said to round nothing."""
    costs = Costs([1.0, 2.0], rounded, stubborn=3.0)
    found, bound = meaningful(costs, 2, one)
    assert found.removal_only
    assert bound.max_abs == 0.0


def test_without_a_bound_nothing_is_rounded(rounded: Reduction) -> None:
    costs = Costs([np.inf, 0.0, 1e-9], rounded)
    found, _ = meaningful(costs, 3, one)
    assert costs.asked[-1] == {0, 1, 2}
    assert "no bound" in found.refused[0].reason


def test_the_range_is_the_spread_or_the_largest_magnitude() -> None:
    one = np.ones((1, 1))
    for bias, extent in ((0.0, 1.0), (5.0, 6.0), (-0.5, 1.0)):
        chain = Chain.of([Affine(one, np.array([bias]))])
        points = np.array([[0.0], [1.0]])
        assert observed_range(chain, cube(1), points, 0) == extent


def mixed() -> list[tuple[Any, Any, bool]]:
    """Stably active units that may be merged, and one that changes sign."""
    first = [[1.0, 0.5], [0.3, 1.0], [1.3, 1.5], [1.0, -1.0], [-1.0, -1.0]]
    return [(first, [2.0, 2.0, 3.0, 0.0, -1.0], True), ([[0.7, 0.3, 0.9, 1.0, 1.0]], [0.0], False)]


def test_over_an_unbounded_domain_only_what_is_exact_is_done(tmp_path: Path) -> None:
    first = [[0.1, 0.2], [0.0, 0.0], [1.0, -1.0]]
    layers = [(first, [0.1, 0.3, 0.0], True), ([[0.7, 0.3, 0.9]], [0.1], False)]
    model = gemm_model(layers)  # type: ignore[arg-type]
    after, report = onnx_exact.optimize(model, method="bounds")
    assert not report.changed
    assert after.SerializeToString() == model.SerializeToString()
    assert any("no bound" in r.reason for r in report.refused)
    _, report = onnx_exact.optimize(model, method="bounds", domain=(-1.0, 1.0))
    assert report.changed


@pytest.mark.parametrize("seed", range(40))
def test_the_split_form_is_within_its_bound_all_over_the_domain(seed: int) -> None:
    case = random_case("normal", seed)
    stability = analyze_chain(case.chain, case.box, Options(method="bounds"))
    options = ReduceOptions(goal="size")
    reduction = reduce_chain(case.chain, stability, case.box, F32, options)
    if reduction.split is None:
        return
    bounds = Bounds.of(case.chain, stability, case.box)
    bound, _, _ = certify_chain(bounds, case.box, reduction, F32, True, lambda: None)
    assert bound is not None
    chain_form = compare(
        bounds, case.box, reduction.chain, reduction.origins, reduction.gone
    ).outputs.max()
    assert bound >= chain_form
    rng = np.random.default_rng(seed)
    x = case.box.sample(rng, 500)
    off = np.abs(case.chain.forward(x) - reduction.network.forward(x)).max()
    assert off <= bound + 1e-12
    exact = largest_difference(enumerate_regions(case.chain, case.box).regions, reduction.chain)
    assert max(exact) <= chain_form


def test_split_networks_have_a_certified_deviation(tmp_path: Path) -> None:
    model = gemm_model(mixed() + mixed()[:0])
    _, report = onnx_exact.optimize(model, domain=(-1.0, 1.0), goal="size", method="bounds")
    assert report.certified is not None
    assert report.certified.max_abs is not None


def test_a_box_that_is_a_point_has_a_range() -> None:
    chain = Chain.of([Affine(np.ones((1, 1)), np.array([3.0]))])
    assert observed_range(chain, Box(np.ones(1), np.ones(1)), EMPTY, 0) == 4.0
