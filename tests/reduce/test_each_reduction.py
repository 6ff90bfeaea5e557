"""Every reduction alone, and all together, against exact enumeration on random networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Stability
from onnx_exact.methods import DEFAULT_MAX_DEVIATION, GOALS, REDUCTIONS
from onnx_exact.reduce import ReduceOptions, reduce_chain
from onnx_exact.reduce.constant_inputs import absorb
from onnx_exact.reduce.layer import prune, rewrite
from onnx_exact.reduce.published import fold, merge
from onnx_exact.reduce.realise import ALL_KINDS
from onnx_exact.reduce.state import State
from onnx_exact.runtime.deadline import Deadline
from tests.oracle.networks import SOURCES, Case, random_case
from tests.oracle.regions import Enumeration, enumerate_regions, largest_difference
from tests.oracle.rounding import own_rounding
from tests.strategies import boxes, chains

Reduce = Callable[[State], State]
DTYPES: list[np.dtype[np.floating[Any]]] = [np.dtype(np.float32), np.dtype(np.float64)]
NETWORKS = 100  # of each family


def only(step: Callable[..., Any]) -> Reduce:
    return lambda state: step(state, DEFAULT_MAX_DEVIATION)[0]


def each_layer(step: Callable[..., Any], **options: Any) -> Reduce:
    def reduce(state: State) -> State:
        for index in range(len(state.layers) - 2, -1, -1):
            state = step(state, index, **options).state
        return state

    return reduce


FORM = {"max_deviation": DEFAULT_MAX_DEVIATION, "kinds": ALL_KINDS}
STEPS: dict[str, Reduce] = {
    "constant inputs": lambda state: absorb(state, DEFAULT_MAX_DEVIATION).state,
    "prune": each_layer(prune),
    "fold": only(fold),
    "merge": only(merge),
    "normal form": each_layer(rewrite, **FORM, negligible=False),
    "normal form, negligible": each_layer(rewrite, **FORM, negligible=True),
    "directions only": each_layer(
        rewrite, max_deviation=DEFAULT_MAX_DEVIATION, kinds=(), negligible=False
    ),
}
every_step = pytest.mark.parametrize("name", STEPS)
every_family = pytest.mark.parametrize("family", SOURCES)


@cache
def study(family: str, seed: int) -> tuple[Case, Enumeration, Stability]:
    case = random_case(family, seed)
    truth = enumerate_regions(case.chain, case.box)
    return case, truth, analyze_chain(case.chain, case.box, Options(method="bounds"))


def start(family: str, seed: int, dtype: np.dtype[np.floating[Any]]) -> State:
    case, _, stability = study(family, seed)
    return State.of(case.chain, stability, case.box, dtype)


@every_step
@every_family
def test_a_reduction_alone_leaves_the_function_as_it_was(name: str, family: str) -> None:
    """Exact over the whole domain, up to the rounding of the weights it computes."""
    reduced = 0
    for seed, dtype in ((seed, dtype) for seed in range(NETWORKS) for dtype in DTYPES):
        case, truth, _ = study(family, seed)
        before = start(family, seed, dtype)
        after = STEPS[name](before)
        if after is before:
            continue
        reduced += 1
        allowed = own_rounding(case.chain, case.box, dtype)
        for moved, limit in zip(
            largest_difference(truth.regions, after.chain), allowed, strict=True
        ):
            assert moved <= (0 if name == "prune" else limit), case
        assert after.chain.connections <= before.chain.connections
        assert after.chain.relu_units <= before.chain.relu_units
    assert reduced >= 5, "too few networks that this reduction changes"


@every_family
@pytest.mark.parametrize("reductions", REDUCTIONS)
def test_all_reductions_together_leave_the_function_as_it_was(reductions: str, family: str) -> None:
    options = ReduceOptions(reductions)
    for seed, dtype in ((seed, dtype) for seed in range(NETWORKS) for dtype in DTYPES):
        case, truth, stability = study(family, seed)
        reduction = reduce_chain(case.chain, stability, case.box, dtype, options)
        difference = largest_difference(truth.regions, reduction.chain)
        allowed = own_rounding(case.chain, case.box, dtype)
        for moved, limit in zip(difference, allowed, strict=True):
            assert moved <= (0 if reduction.removal_only else limit), case


class Looks(Deadline):
    """Passes after so many looks at it."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left = looks

    @property
    def passed(self) -> bool:
        self.left -= 1
        return self.left < 0


@every_family
def test_reductions_that_are_cut_short_leave_the_function_as_it_was(family: str) -> None:
    """Wherever they are, between any two rewrites."""
    dtype, partly = DTYPES[0], 0
    for seed in range(0, NETWORKS, 10):
        case, truth, stability = study(family, seed)
        reduce = partial(reduce_chain, case.chain, stability, case.box, dtype)
        whole = reduce().chain.connections
        for looks in range(10):
            found = reduce(deadline=Looks(looks))
            assert looks or not found.changed
            partly += found.changed and found.chain.connections > whole
            allowed = own_rounding(case.chain, case.box, dtype)
            difference = largest_difference(truth.regions, found.chain)
            for moved, limit in zip(difference, allowed, strict=True):
                assert moved <= (0 if found.removal_only else limit), case
    assert partly


@every_family
def test_all_reductions_leave_no_more_connections_than_the_published_ones(family: str) -> None:
    fewer = 0
    for seed in range(NETWORKS):
        case, _, stability = study(family, seed)
        reduce = partial(reduce_chain, case.chain, stability, case.box, DTYPES[0])
        published = reduce(ReduceOptions("published")).chain.connections
        all_ = reduce(ReduceOptions("all")).chain.connections
        assert all_ <= published <= case.chain.connections, case
        fewer += all_ < published
    assert fewer >= 5


@every_family
def test_nothing_is_rounded_where_nothing_may_deviate(family: str) -> None:
    """A maximum of 0 leaves removal, and rewrites whose numbers the dtype holds as computed."""
    options = ReduceOptions(max_deviation=0.0)
    for seed in range(NETWORKS):
        case, truth, stability = study(family, seed)
        reduction = reduce_chain(case.chain, stability, case.box, DTYPES[0], options)
        # What is left is the rounding of float64 products.
        limits = own_rounding(case.chain, case.box, DTYPES[1])
        difference = largest_difference(truth.regions, reduction.chain)
        assert all(m <= limit for m, limit in zip(difference, limits, strict=True)), case


@every_family
def test_a_network_that_cannot_be_reduced_is_the_same_object(family: str) -> None:
    unchanged = 0
    for seed in range(NETWORKS):
        case, _, stability = study(family, seed)
        reduction = reduce_chain(case.chain, stability, case.box, DTYPES[0])
        assert reduction.changed == (reduction.chain is not case.chain)
        unchanged += not reduction.changed
        again = reduce_chain(case.chain, stability, case.box, DTYPES[0])
        for one, other in zip(reduction.chain.layers, again.chain.layers, strict=True):
            assert one.affine.equals(other.affine)
    assert unchanged


@settings(max_examples=200)
@given(st.data())
def test_any_chain_over_any_box_keeps_its_values(data: st.DataObject) -> None:
    """Large and tiny numbers, unbounded and degenerate boxes, layers without ReLU."""
    chain = data.draw(chains())
    box = data.draw(boxes(chain.n_in))
    options = ReduceOptions(
        data.draw(st.sampled_from(REDUCTIONS)),
        data.draw(st.sampled_from([0.0, 1.0, 10.0])),
        data.draw(st.sampled_from(GOALS)),
    )
    stability = analyze_chain(chain, box, Options(method="bounds"))
    reduction = reduce_chain(chain, stability, box, DTYPES[1], options)
    assert reduction.network.connections <= reduction.chain.connections <= chain.connections
    rng = np.random.default_rng(0)
    points = np.vstack([box.sample(rng, 20), box.corners(rng, 20), stability.witnesses])
    terms = np.abs(points)
    for layer in chain.layers:
        terms = terms @ np.abs(layer.affine.weight).T + np.abs(layer.affine.bias)
    # What evaluating either of the two chains may round off, many times over.
    allowed = 1e3 * (1.0 + options.max_deviation) * float(np.finfo(np.float64).eps) * terms
    # Within a box the shifts are as large as what is bounded, whatever the point.
    allowed = np.maximum(allowed, allowed.max(axis=0))
    assert (np.abs(reduction.network.forward(points) - chain.forward(points)) <= allowed).all()
