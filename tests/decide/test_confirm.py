"""A solver's word: confirmed by bounds, or nothing, or taken where the user trusts it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnx_exact.decide.confirm import trusted
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Evidence, Stability, Status
from onnx_exact.milp import solve, unit
from onnx_exact.milp.outcome import Outcome
from onnx_exact.milp.tolerance import FEASIBILITY_TOLERANCE, tolerances
from onnx_exact.network import Chain
from onnx_exact.network.affine import Affine
from onnx_exact.network.query import Query
from tests.nets import LITTLE, bounded, chain_of, cube, wrong_verdicts
from tests.oracle.networks import SOURCES, random_case
from tests.oracle.regions import enumerate_regions

# |x| - 3/4 and |x| - 5/4 over [-1, 1], passed on: the first changes sign, the second does not.
FOLDED = chain_of(
    ([[1.0], [-1.0]], [0, 0]),
    ([[1.0, 1.0], [1.0, 1.0]], [-0.75, -1.25]),
    ([[1.0, 0.0], [0.0, 1.0]], [-0.1, -0.1]),
    relu_at_end=True,
)
# Every means has its turn soon, the solver first.
PROGRAMS_FIRST = replace(LITTLE, programs_from_round=0)
METHODS = ("auto", "isa", "per-unit")
every_method = pytest.mark.parametrize("method", METHODS)


def lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """A solver by which no sign that it is asked for ever occurs."""
    for module in (unit, solve):
        monkeypatch.setattr(module, "solved", lambda model, ended: Outcome.IMPOSSIBLE)


def without_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is shown by points: more is asked of the solver."""
    monkeypatch.setattr(Knowledge, "show", lambda self, points: 0)


def labels(stability: Stability) -> list[list[tuple[Status, Evidence]]]:
    return [
        [(Status(int(s)), Evidence(int(e))) for s, e in zip(v.status, v.evidence, strict=True)]
        for v in stability.layers
        if v is not None
    ]


@every_method
@pytest.mark.parametrize("family", SOURCES)
def test_a_solver_that_lies_changes_no_verdict(
    method: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lie(monkeypatch)
    without_points(monkeypatch)
    for seed in range(8):
        case = random_case(family, seed)
        options = Options(method=method, budgets=PROGRAMS_FIRST)
        found = analyze_chain(case.chain, case.box, options)
        assert not wrong_verdicts(found, enumerate_regions(case.chain, case.box))
        assert not any((v.evidence == Evidence.SOLVER).any() for v in found.layers if v)


@pytest.mark.parametrize("method", ["isa", "per-unit"])
def test_what_bounds_confirm_of_a_claim_is_proved(method: str) -> None:
    found = analyze_chain(FOLDED, cube(1, -1.0, 1.0), Options(method=method))
    assert labels(found)[1][1] == (Status.INACTIVE, Evidence.LINEAR)
    assert labels(found)[1][0][0] is Status.UNSTABLE


def test_a_trusted_solver_s_word_and_what_rests_on_it_are_labelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_points(monkeypatch)
    knowledge, _ = bounded(FOLDED, cube(1, -1.0, 1.0))
    # The first unit of the second layer is never positive by a lie, and with it that of the third.
    knowledge.claimed = {Query(1, 0, True): 0.25}
    plain, found = knowledge.freeze(), trusted(knowledge)
    solver = (Status.INACTIVE, Evidence.SOLVER)
    assert [row[0] for row in labels(found)[1:]] == [solver, solver]
    assert [row[0] for row in labels(plain)[1:]] == [(Status.UNDECIDED, Evidence.NONE)] * 2
    assert [row[1] for row in labels(found)[1:]] == [row[1] for row in labels(plain)[1:]]
    np.testing.assert_array_equal(found.output_upper, plain.output_upper)


def test_a_margin_below_the_tolerance_is_no_word_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    without_points(monkeypatch)
    knowledge, _ = bounded(FOLDED, cube(1, -1.0, 1.0))
    knowledge.claimed = {Query(1, 0, True): 0.5 * float(tolerances(knowledge.bounds)[1][0])}
    assert labels(trusted(knowledge)) == labels(knowledge.freeze())


def test_a_point_that_denies_a_trusted_solver_undoes_all_that_it_said() -> None:
    knowledge, _ = bounded(FOLDED, cube(1, -1.0, 1.0))
    knowledge.claimed = {Query(1, 0, True): 0.25, Query(2, 0, True): 0.25}
    assert labels(trusted(knowledge)) == labels(knowledge.freeze())


def cascade(gain: float) -> Chain:
    """0.4 at one point, less than 0 by next to nothing elsewhere, and multiplied by `gain`."""
    return Chain.of(
        [
            Affine(np.array([[1.0], [-1.0]]), np.array([-0.3, 0.3])),
            Affine(np.array([[-1e6, -1e6]]), np.array([1.0])),
            Affine(np.array([[gain]]), np.array([-0.6 * gain])),
        ],
        relu_at_end=True,
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_margin_that_the_tolerance_may_bridge_is_not_trusted(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights between multiply what is left open at the inputs by a million."""
    lie(monkeypatch)
    without_points(monkeypatch)
    options = Options(method=method, trust_solver=True, budgets=PROGRAMS_FIRST)
    found = analyze_chain(cascade(1e-3), cube(1), options)
    assert found.layers[2] is not None
    assert found.layers[2].status.tolist() == [Status.UNDECIDED]


def test_tolerances_are_multiplied_by_the_weights() -> None:
    knowledge = Knowledge(cascade(1.0), cube(1))
    for index, (low, high) in enumerate([((-0.3, -0.7), (0.7, 0.3)), (-1e6, 1.0), (-0.6, 0.4)]):
        knowledge.lower[index] = np.atleast_1d(np.array(low, dtype=float))
        knowledge.upper[index] = np.atleast_1d(np.array(high, dtype=float))
    first, second, third = tolerances(knowledge.bounds)
    assert (first >= 2 * FEASIBILITY_TOLERANCE).all()
    assert second[0] >= 2e6 * first.min()
    assert third[0] >= second[0]


def test_without_bounds_there_is_no_tolerance() -> None:
    assert np.isinf(tolerances(Knowledge(cascade(1.0), cube(1)).bounds)[2]).all()
