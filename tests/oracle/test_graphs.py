"""The exact reading of whole files against other means, and what the judge has to see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from onnx_exact.decide.verdict import Stability, Status
from onnx_exact.methods import METHODS
from onnx_exact.network import Affine, Box, Chain
from onnx_exact.stages import deciding, writing
from tests.oracle.families import FAMILIES, Draft, Network, model_of, network
from tests.oracle.graphs import read_graph, root
from tests.oracle.judge import EXACT_EVERY, REWRITES, Known, Way, judge, ways_for
from tests.oracle.networks import SOURCES, random_case
from tests.oracle.pieces import cut_up, furthest
from tests.oracle.regions import enumerate_regions, largest_difference

CASES = 25
SEEDS = range(6)
DOUBLE = np.dtype(np.float64)
# onnx.reference rounds; the families' numbers are about 1.
CLOSE = 1e-9
CANCELLING = ("magnitudes", "folded cancelling")
PLAIN_WAY = Way("bounds", "deploy", "all")


@pytest.mark.parametrize("seed", range(CASES))
@pytest.mark.parametrize("source", SOURCES)
def test_a_chain_has_the_ranges_that_its_own_enumeration_finds(source: str, seed: int) -> None:
    case = random_case(source, seed)
    graph = read_graph(model_of(case.chain, DOUBLE))
    truth = cut_up(graph, case.box)
    expected = enumerate_regions(case.chain, case.box)

    relu = [r for r, s in zip(expected.ranges, expected.statuses, strict=True) if s is not None]
    found = [truth.ranges[step.source] for step in graph.steps if step.relu]
    # What is linear within a chain has no range of its own here.
    assert found == relu
    assert truth.ranges[graph.steps[-1].source] == expected.outputs


@pytest.mark.parametrize("seed", range(CASES))
def test_the_difference_of_two_chains_is_that_of_their_own_enumeration(seed: int) -> None:
    case = random_case("dyadic", seed)
    other = changed(case.chain)
    truth = cut_up(read_graph(model_of(case.chain, DOUBLE)), case.box)
    regions = enumerate_regions(case.chain, case.box).regions

    found = furthest(truth, read_graph(model_of(other, DOUBLE)))
    assert found == largest_difference(regions, other)


def changed(chain: Chain) -> Chain:
    """The chain with one weight of its first layer moved."""
    first, *others = chain.layers
    weight = first.affine.weight.copy()
    weight[0, 0] += 0.25
    return Chain((replace(first, affine=Affine(weight, first.affine.bias)), *others))


def test_a_network_differs_from_itself_by_exactly_nothing_and_by_what_is_added_to_it() -> None:
    box = Box(np.zeros(2), np.ones(2))
    model = two_units(0.0)
    truth = cut_up(read_graph(model), box)
    assert furthest(truth, read_graph(model)) == (0,)
    assert furthest(truth, read_graph(two_units(2.0**-40))) == (Fraction(1, 2**40),)


def two_units(bias: float) -> onnx.ModelProto:
    """y = relu(x0 - x1) + relu(x0 + x1 - 1) + bias."""
    draft = Draft(DOUBLE, 2)
    draft.dense(np.array([[1.0, -1.0], [1.0, 1.0]]), np.array([0.0, -1.0]))
    draft.relu()
    draft.dense(np.array([[1.0, 1.0]]), np.array([bias]))
    return draft.model()


def in_doubles(family: str) -> Iterator[Network]:
    for seed in SEEDS:
        found = network(family, seed)
        if found.model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.DOUBLE:
            yield found


# Cancelling and huge numbers leave the reference no digits to compare.
@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in CANCELLING])
def test_the_exact_values_are_those_of_the_reference_implementation(family: str) -> None:
    found = list(in_doubles(family))
    assert found
    for one in found:
        graph, evaluator = read_graph(one.model), ReferenceEvaluator(one.model)
        points = one.box.sample(np.random.default_rng(0), 3)
        (values,) = evaluator.run(None, {"x": points})
        for point, value in zip(points, values, strict=True):
            exact = [float(v) for v in graph.evaluate([Fraction(float(x)) for x in point])]
            np.testing.assert_allclose(value, exact, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_gives_the_same_network_and_another_seed_another(family: str) -> None:
    first, again, other = network(family, 3), network(family, 3), network(family, 6)
    assert first.model.SerializeToString() == again.model.SerializeToString()
    np.testing.assert_array_equal(first.box.upper, again.box.upper)
    assert first.model.SerializeToString() != other.model.SerializeToString()


def test_only_a_square_has_a_root() -> None:
    assert root(Fraction(9, 16)) == Fraction(3, 4)
    with pytest.raises(ValueError, match="no rational root"):
        root(Fraction(1, 2))


def test_each_network_sees_every_method_and_every_rewrite_and_all_pairs_come_up() -> None:
    rounds = len(METHODS) * EXACT_EVERY
    pairs = set()
    for index in range(rounds):
        ways = ways_for(index)
        assert {way.method for way in ways} == set(METHODS)
        assert {(way.goal, way.reductions) for way in ways} == set(REWRITES)
        pairs |= set(ways)
    assert len(pairs) == 2 * len(METHODS) * len(REWRITES)


def known() -> Known:
    """y = relu(x0 - x1) + relu(x0 + x1 - 1), with both units unstable."""
    return Known.of(Network("two units", two_units(0.0), Box(np.zeros(2), np.ones(2))))


def test_nothing_is_wrong_with_two_honest_units() -> None:
    assert judge(known(), PLAIN_WAY).wrong == ()


def all_off(*arguments: Any, analyze: Callable[..., Stability] = deciding.analyze_chain) -> Any:
    """The verdicts on a chain, but that its first layer is called inactive."""
    stability = analyze(*arguments)
    first, *others = stability.layers
    assert first is not None
    status = np.full(first.units, Status.INACTIVE, dtype=np.int8)
    first = replace(first, status=status, upper=np.zeros(first.units))
    return replace(stability, layers=(first, *others))


def test_a_false_verdict_and_what_is_made_of_it_are_seen() -> None:
    # The tool's own comparison at random points would refuse the result.
    with (
        patch.object(deciding, "analyze_chain", all_off),
        patch.object(writing, "_validate", lambda *_: None),
    ):
        wrong = judge(known(), PLAIN_WAY).wrong
    assert sum("is called INACTIVE" in text for text in wrong) == 2
    assert any("certified 0.0, but off by 1.0" in text for text in wrong)


def test_false_verdicts_are_seen_where_the_tool_refuses_its_own_result() -> None:
    with patch.object(deciding, "analyze_chain", all_off):
        found = judge(known(), PLAIN_WAY)
    assert "ValidationError" in found.refused
    assert sum("is called INACTIVE" in text for text in found.wrong) == 2


def test_a_bound_that_does_not_hold_is_seen() -> None:
    analyze_chain = deciding.analyze_chain

    def lie(*arguments: Any) -> Any:
        stability = analyze_chain(*arguments)
        return replace(stability, output_upper=stability.output_upper * 0.5 - 1.0)

    with patch.object(deciding, "analyze_chain", lie):
        wrong = judge(known(), PLAIN_WAY).wrong
    assert len(wrong) == 1
    assert "y unit 0 is bounded by" in wrong[0]


def test_a_crash_is_wrong_and_an_error_of_the_tool_is_not() -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("no")

    with patch.object(deciding, "analyze_chain", fail):
        assert judge(known(), PLAIN_WAY).wrong == ("crashed with ZeroDivisionError: no",)
    refused = judge(known(), replace(PLAIN_WAY, method="guess"))
    assert refused.wrong == ()
    assert "unknown method" in refused.refused
