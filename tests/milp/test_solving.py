"""Solves: what the collector sees, what errors and time limits do, one process and two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.programs import settle_layer, settle_together
from onnx_exact.decide.verdict import Evidence, Status
from onnx_exact.milp import outcome, solve, unit
from onnx_exact.milp.encode import Target, encode_one, targets_of
from onnx_exact.milp.outcome import Outcome
from onnx_exact.milp.unit import ask
from onnx_exact.network import Chain
from onnx_exact.network.affine import Array
from onnx_exact.network.query import Query
from onnx_exact.runtime.deadline import Deadline
from tests.nets import (
    bounded,
    by_intervals,
    chain_of,
    cube,
    random_chain,
    statuses,
    targets,
    wrong_verdicts,
)
from tests.oracle.regions import enumerate_regions

if TYPE_CHECKING:
    from pyscipopt import Model

INF = np.inf
# |x| - 3/4 and |x| - 5/4 over [-1, 1].
FOLDED = chain_of(
    ([[1.0], [-1.0]], [0, 0]), ([[1.0, 1.0], [1.0, 1.0]], [-0.75, -1.25]), relu_at_end=True
)

# A tent of height 1 at x = 1/2, lowered by 1 + 1/16: never positive, which linear bounds miss.
TENT = chain_of(
    ([[1.0], [1.0], [1.0]], [0.0, -0.5, -1.0]), ([[2.0, -4.0, 2.0]], [-1.0625]), relu_at_end=True
)


def tent() -> Knowledge:
    knowledge, _ = bounded(TENT, cube(1, -1.0, 2.0))
    knowledge.show(np.array([[-1.0], [2.0]]))
    assert [t.query for t in targets(knowledge)] == [Query(1, 0, True)]
    return knowledge


def small_tent(height: float) -> Knowledge:
    """The tent with its peak at `height`, all of it a millionth of a millionth as large."""
    scale = 2.0**-40
    weight = [[2.0 * scale, -4.0 * scale, 2.0 * scale]]
    chain = chain_of(
        ([[1.0], [1.0], [1.0]], [0.0, -0.5, -1.0]),
        (weight, [(height - 1) * scale]),
        relu_at_end=True,
    )
    knowledge, _ = bounded(chain, cube(1, -1.0, 2.0))
    knowledge.show(np.array([[-1.0], [2.0]]))
    return knowledge


def test_a_functional_far_smaller_than_the_tolerance_is_settled_in_a_program_of_its_own() -> None:
    knowledge = small_tent(-0.0625)
    assert targets(knowledge) == []
    settle_layer(knowledge, 1, Deadline())
    assert statuses(knowledge.freeze())[1] == [Status.INACTIVE]


@pytest.mark.parametrize("height", [0.0625, 1e-7, 0.0, -1e-7])
def test_a_small_functional_within_the_scaled_margin_is_never_excluded(height: float) -> None:
    knowledge = small_tent(height)
    settle_layer(knowledge, 1, Deadline())
    expected = {Status.UNSTABLE} if height == 0.0625 else {Status.UNSTABLE, Status.UNDECIDED}
    assert Status(int(knowledge.status(1)[0])) in expected


def silent(stage: str, detail: str) -> None:
    pass


def grid(n: int) -> tuple[Model, list[Any]]:
    """Maximise x + y over n x n integer points."""
    from pyscipopt import SCIP_PARAMSETTING, Model

    model = Model()
    model.hideOutput()
    model.setPresolve(SCIP_PARAMSETTING.OFF)
    model.setHeuristics(SCIP_PARAMSETTING.OFF)
    inputs = [model.addVar(name=name, vtype="I", lb=0, ub=n - 1) for name in "xy"]
    model.addCons(inputs[0] + 2 * inputs[1] <= 2.5 * n)
    model.setObjective(inputs[0] + inputs[1], "maximize")
    return model, inputs


def offer(model: Model, inputs: list[Any], points: list[tuple[int, int]]) -> None:
    """Has SCIP find these solutions, one after another, before the first node."""
    from pyscipopt import SCIP_HEURTIMING, SCIP_RESULT, Heur

    class Offering(Heur):
        def heurexec(self, heurtiming: object, nodeinfeasible: bool) -> dict[str, object]:
            for point in points:
                solution = self.model.createSol(self)
                for variable, value in zip(inputs, point, strict=True):
                    self.model.setSolVal(solution, variable, value)
                assert self.model.trySol(solution)
            self.model.interruptSolve()
            return {"result": SCIP_RESULT.FOUNDSOL}

    model.includeHeur(Offering(), "offering", "", "X", timingmask=SCIP_HEURTIMING.BEFORENODE)


def test_solutions_that_do_not_improve_are_tried_as_well() -> None:
    from onnx_exact.milp.collect import attach

    model, inputs = grid(5)
    seen: list[list[float]] = []

    def shows(points: Array) -> bool:
        seen.extend(points.tolist())
        return False

    attach(model, inputs, shows)
    offer(model, inputs, [(4, 4), (1, 0), (2, 3)])
    model.optimize()
    for point in ([4.0, 4.0], [1.0, 0.0], [2.0, 3.0]):
        assert seen.count(point) == 1


def test_the_solve_ends_with_the_first_point_that_shows_a_sign() -> None:
    from onnx_exact.milp.collect import attach

    knowledge = wide()
    encoding = encode_one(knowledge.bounds, targets(knowledge)[-1])
    model = encoding.model
    collector = attach(model, encoding.inputs, lambda points: True)
    model.optimize()
    assert collector.shown
    assert collector.error is None
    assert model.getStatus() == "userinterrupt"


@pytest.mark.parametrize("error", [ValueError("told you"), KeyboardInterrupt()])
def test_an_error_in_a_callback_is_kept_and_ends_the_solve(error: BaseException) -> None:
    from onnx_exact.milp.collect import attach

    def shows(points: Array) -> bool:
        raise error

    model, inputs = grid(5)
    collector = attach(model, inputs, shows)
    model.optimize()
    assert collector.error is error
    assert not collector.shown


def test_an_error_in_a_callback_is_raised_after_the_solve(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def forward(self, x: Array) -> Array:
            raise ValueError("told you")

    knowledge, _ = bounded(FOLDED, cube(1, -1.0, 1.0))
    monkeypatch.setattr(Chain, "up_to", lambda *_: Broken())
    with pytest.raises(ValueError, match="told you"):
        ask(knowledge.bounds, targets(knowledge)[0], INF, Deadline())


def test_an_error_while_showing_is_raised_by_the_one_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    knowledge, _ = bounded(FOLDED, cube(1, -1.0, 1.0))

    def show(points: Array) -> int:
        raise ValueError("told you")

    monkeypatch.setattr(knowledge, "show", show)
    with pytest.raises(ValueError, match="told you"):
        settle_together(knowledge, Deadline(), silent)


class Failing:
    """Stands for SCIP's model where it fails in the middle of a solve."""

    @staticmethod
    def fail(model: object) -> None:
        raise Exception("SCIP: error in LP solver!")


@pytest.mark.parametrize("fault", ["status", "exception"])
@pytest.mark.parametrize("together", [True, False])
def test_where_scip_fails_signs_stay_open(
    monkeypatch: pytest.MonkeyPatch, together: bool, fault: str
) -> None:
    knowledge = tent()

    def solved(model: Any, ended: Any) -> Outcome:
        if fault == "status":
            return outcome.outcome_of("nodelimit")
        failing = type("Failing", (), {"optimize": Failing.fail})()
        return original(failing, ended)

    original = outcome.solved
    for module in (unit, solve):
        monkeypatch.setattr(module, "solved", solved)
    if together:
        settle_together(knowledge, Deadline(), silent)
    else:
        answer = ask(knowledge.bounds, target(knowledge, 1, 0, True), INF, Deadline())
        assert answer.outcome is Outcome.OPEN
        settle_layer(knowledge, 1, Deadline())
    assert knowledge.open_units == 1
    assert not knowledge.claimed


def test_a_sign_that_does_not_occur_is_impossible() -> None:
    knowledge = tent()
    answer = ask(knowledge.bounds, target(knowledge, 1, 0, True), INF, Deadline())
    assert answer.outcome is Outcome.IMPOSSIBLE
    assert knowledge.open_units == 1  # asking writes nothing down
    settle_together(knowledge, Deadline(), silent)
    assert knowledge.status(1).tolist() == [Status.INACTIVE]
    assert knowledge.freeze().layers[1].evidence.tolist() == [Evidence.SOLVER]


def test_an_answer_names_its_outcome_and_what_shows_it() -> None:
    knowledge, _ = bounded(FOLDED, cube(1, -1.0, 1.0))
    before = knowledge.open_units
    shown = ask(knowledge.bounds, target(knowledge, 1, 0, False), INF, Deadline())
    assert shown.outcome is Outcome.SHOWN
    assert (FOLDED.preactivations(shown.points)[1][:, 0] < 0.0).all()
    assert len(shown.points) > 0
    assert knowledge.open_units == before  # asking writes nothing down


def target(knowledge: Knowledge, layer: int, unit_: int, positive: bool) -> Target:
    [found] = targets_of(knowledge.bounds, [Query(layer, unit_, positive)])
    return found


def wide(seed: int = 0) -> Knowledge:
    """Signs that no solver settles at once."""
    return bounded(random_chain(seed, 30, 40, 40, 10), cube(30, -1.0, 1.0))[0]


@pytest.mark.parametrize(("work", "deadline"), [(0.0, None), (INF, 0.0)])
def test_without_work_or_time_nothing_is_concluded(
    work: float, deadline: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    knowledge = wide()
    open_before = knowledge.open_units
    # No point shows the sign, so that nothing else ends the solve.
    monkeypatch.setattr(Chain, "forward", lambda _, x: -np.ones((len(x), 1)))
    answer = ask(knowledge.bounds, targets(knowledge)[-1], work, Deadline(deadline))
    assert answer.outcome is Outcome.OPEN
    settle_layer(knowledge, 2, Deadline(deadline), work)
    assert not any((e == Evidence.SOLVER).any() for e in knowledge._evidence)
    assert knowledge.open_units <= open_before


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_passed_deadline_asks_for_nothing(jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx_exact.milp import pool

    def ask_nothing(*args: object) -> None:
        raise AssertionError("asked after the deadline")

    monkeypatch.setattr(pool, "ask", ask_nothing)
    knowledge = wide()
    settle_layer(knowledge, 2, Deadline(0.0), jobs=jobs)
    settle_together(knowledge, Deadline(0.0), silent)


@pytest.mark.parametrize("seed", range(4))
def test_one_program_and_one_for_each_sign_agree_with_the_regions(seed: int) -> None:
    chain, box = random_chain(seed, 2, 4, 4, 3, shift=1.0), cube(2, -1.0, 1.0)
    truth = enumerate_regions(chain, box)
    together = by_intervals(chain, box)
    settle_together(together, Deadline(), silent)
    apart = by_intervals(chain, box)
    for layer in apart.relu_layers:
        settle_layer(apart, layer, Deadline())
    for knowledge in (together, apart):
        assert not wrong_verdicts(knowledge.freeze(), truth)
    assert statuses(apart.freeze()) == [list(layer) for layer in truth.statuses]


def test_two_processes_give_the_verdicts_of_one() -> None:
    chain, box = random_chain(3, 2, 5, 5, 4, shift=0.3), cube(2, -1.0, 1.0)
    found = []
    for jobs in (1, 2):
        knowledge = by_intervals(chain, box)
        assert len(targets(knowledge)) >= 4
        for layer in knowledge.relu_layers:
            settle_layer(knowledge, layer, Deadline(), jobs=jobs)
        found.append(statuses(knowledge.freeze()))
        assert knowledge.open_units == 0
    assert found[0] == found[1]


def test_a_program_that_is_impossible_leaves_its_margin_as_the_bound() -> None:
    knowledge = Knowledge(FOLDED, cube(1, -1.0, 1.0), believing=True)
    knowledge.claim(Query(1, 0, positive=True), 0.01)
    knowledge.claim(Query(1, 1, positive=False), 0.02)
    assert knowledge.upper[1].tolist() == [-0.01, np.inf]
    assert knowledge.lower[1].tolist() == [-np.inf, 0.02]
    assert knowledge.status(1).tolist() == [Status.INACTIVE, Status.ACTIVE]
    assert knowledge.freeze().layers[1].evidence.tolist() == [Evidence.SOLVER] * 2
