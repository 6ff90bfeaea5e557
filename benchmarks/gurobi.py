"""The published algorithms in Gurobi, which the papers used, for networks its free licence admits.

`pip install gurobipy` comes with a licence for 2,000 variables and 2,000 constraints. The program
is that of `onnx_exact.milp.encode`, whose module says what its letters stand for; what a
solution shows leaves the objective by a lazy constraint, as in the papers, within a single solve.
Verdicts keep the same distance from the solver's tolerance as those of SCIP.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.contestants import SkippedError
from onnx_exact.deadline import Deadline
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.propagate import bound_by_intervals
from onnx_exact.decide.published import Progress
from onnx_exact.decide.verdict import Status
from onnx_exact.milp.encode import Candidate, candidates_of
from onnx_exact.milp.solve import conclude
from onnx_exact.milp.tolerance import FEASIBILITY_TOLERANCE
from onnx_exact.network.affine import Array
from onnx_exact.network.chain import Chain

TOO_LARGE = 10010
MOST_VARIABLES = 2000
NOT_ADMITTED = "too large for the size-limited licence"
# A solution shows a candidate or does not: anything between 0 and 1 separates the two.
SHOWS_SOMETHING = 0.5

# Takes the input of a solution or a relaxation.
Found = Callable[[Array], None]


def make_ready(chain: Chain) -> None:
    """Imports the solver, so that this does not count as time of deciding.

    Raises:
        SkippedError: it is not there, or the inputs of the network alone are too many for it.
    """
    if chain.n_in > MOST_VARIABLES:
        raise SkippedError(NOT_ADMITTED)
    try:
        importlib.import_module("gurobipy")
    except ImportError as error:
        raise SkippedError("pip install gurobipy") from error


def decide_at_once(knowledge: Knowledge, deadline: Deadline, progress: Progress) -> None:
    """ISA: one program for all signs that no sample shows.

    Args:
        knowledge: what the samples show; receives what is found.
        deadline: what is open then stays open.
        progress: called with a stage and a detail.

    Raises:
        SkippedError: the licence does not admit the program.
    """
    for index in range(len(knowledge.chain.layers)):
        bound_by_intervals(knowledge, index)
    candidates = candidates_of(knowledge)
    if not candidates:
        return
    progress("milp", f"{len(candidates)} signs open")
    program = _Program(knowledge)
    switches = program.add_layers(max(c.layer for c in candidates) + 1, candidates)
    program.model.setObjective(program.sum(switches.values()), program.maximize)
    program.model.Params.LazyConstraints = 1
    # No solution that shows nothing: once none is left, the program is infeasible.
    program.model.Params.Cutoff = SHOWS_SOMETHING
    gone: set[Candidate] = set()

    def show(point: Array) -> None:
        knowledge.show(point[None, :])

    def on_solution(point: Array) -> None:
        show(point)
        values = program.model.cbGetSolution(switches)
        for candidate, switch in switches.items():
            # What a solution claims and its own forward pass denies would come up for ever.
            if values[candidate] > SHOWS_SOMETHING or not _is_open(knowledge, candidate):
                program.model.cbLazy(switch <= 0)
                gone.add(candidate)

    def on_relaxation(point: Array) -> None:
        show(point)
        program.model.cbSetSolution(program.inputs, point.tolist())

    if program.excludes(deadline, on_solution, on_relaxation, show):
        conclude(knowledge, [c for c in candidates if c not in gone and _is_open(knowledge, c)])
    # What a solution claimed at -delta <= g <= 0 has to be asked for by itself.
    for candidate in sorted(gone, key=lambda c: (c.layer, c.unit, c.positive)):
        if _is_open(knowledge, candidate) and not deadline.passed:
            _decide_sign(knowledge, candidate, deadline)


def decide_one_by_one(knowledge: Knowledge, deadline: Deadline, progress: Progress) -> None:
    """Two programs for each unit that interval bounds leave open, first layer first.

    Raises:
        SkippedError: the licence does not admit a program.
    """
    for index in range(len(knowledge.chain.layers)):
        bound_by_intervals(knowledge, index)
        progress("milp", f"layer {index + 1}, {knowledge.open_units} units open")
        for candidate in [c for c in candidates_of(knowledge) if c.layer == index]:
            if _is_open(knowledge, candidate) and not deadline.passed:
                _decide_sign(knowledge, candidate, deadline)


def _decide_sign(knowledge: Knowledge, candidate: Candidate, deadline: Deadline) -> None:
    program = _Program(knowledge)
    program.add_layers(candidate.layer, [])
    sign = 1.0 if candidate.positive else -1.0
    affine = knowledge.chain.layers[candidate.layer].affine
    value = program.model.addVar(lb=-np.inf, name="g")
    terms = program.row(sign * affine.weight[candidate.unit])
    program.model.addConstr(terms + sign * float(affine.bias[candidate.unit]) == value)
    program.model.setObjective(value, program.maximize)
    program.model.Params.Cutoff = -candidate.delta

    def try_point(point: Array) -> None:
        knowledge.show(point[None, :])
        if not _is_open(knowledge, candidate):
            program.model.terminate()

    if program.excludes(deadline, try_point, try_point, try_point):
        conclude(knowledge, [candidate])


def _is_open(knowledge: Knowledge, candidate: Candidate) -> bool:
    positive, negative = knowledge.open_signs(candidate.layer)
    return bool((positive if candidate.positive else negative)[candidate.unit])


@dataclass(frozen=True)
class _Big:
    """Bounds on the pre-activation of one unit."""

    low: float
    high: float


class _Program:
    """A model with the inputs and, layer by layer, the units of a chain."""

    def __init__(self, knowledge: Knowledge) -> None:
        self._gurobi: Any = importlib.import_module("gurobipy")
        environment = self._gurobi.Env(params={"OutputFlag": 0})
        self.model: Any = self._gurobi.Model(env=environment)
        self.maximize = self._gurobi.GRB.MAXIMIZE
        self.model.Params.Threads = 1
        self.model.Params.FeasibilityTol = FEASIBILITY_TOLERANCE
        self.model.Params.IntFeasTol = FEASIBILITY_TOLERANCE
        self._knowledge = knowledge
        box = knowledge.box
        self.inputs: list[Any] = [
            self.model.addVar(lb=float(low), ub=float(high))
            for low, high in zip(box.lower, box.upper, strict=True)
        ]
        self._below: list[Any] = list(self.inputs)

    def sum(self, terms: Any) -> Any:
        """The sum of variables."""
        return self._gurobi.quicksum(terms)

    def row(self, weights: Array) -> Any:
        """A linear combination of the outputs of the last layer; None stands for 0."""
        used = [j for j in np.flatnonzero(weights) if self._below[j] is not None]
        return self._gurobi.LinExpr(
            [float(weights[j]) for j in used], [self._below[j] for j in used]
        )

    def add_layers(self, count: int, candidates: list[Candidate]) -> dict[Candidate, Any]:
        """Adds the first layers; the binary variable p or q of each candidate."""
        switches: dict[Candidate, Any] = {}
        by_unit = {(c.layer, c.unit, c.positive): c for c in candidates}
        for index in range(count):
            width = self._knowledge.chain.layers[index].width
            self._below = [self._add_unit(index, i, by_unit, switches) for i in range(width)]
        return switches

    def _add_unit(
        self,
        index: int,
        unit: int,
        by_unit: dict[tuple[int, int, bool], Candidate],
        switches: dict[Candidate, Any],
    ) -> Any:
        layer, knowledge, model = self._knowledge.chain.layers[index], self._knowledge, self.model
        big = _Big(float(knowledge.lower[index][unit]), float(knowledge.upper[index][unit]))
        status = knowledge.status(index)[unit]
        if layer.relu and status == Status.INACTIVE:
            return None
        g = self.row(layer.affine.weight[unit]) + float(layer.affine.bias[unit])
        if not layer.relu or status == Status.ACTIVE:
            h = model.addVar(lb=big.low, ub=big.high)
            model.addConstr(g == h)
            return h
        h, hbar = model.addVar(ub=big.high), model.addVar(ub=-big.low)
        z = model.addVar(vtype="B")
        model.addConstr(g == h - hbar)
        model.addConstr(h <= big.high * z)
        model.addConstr(hbar <= -big.low * (1 - z))
        for positive in (True, False):
            candidate = by_unit.get((index, unit, positive))
            if candidate is not None:
                switches[candidate] = self._add_switch(candidate, h - hbar, big)
        return h

    def _add_switch(self, candidate: Candidate, g: Any, big: _Big) -> Any:
        switch, delta = self.model.addVar(vtype="B"), candidate.delta
        if candidate.positive:
            self.model.addConstr(g >= -delta * switch + big.low * (1 - switch))
        else:
            self.model.addConstr(g <= delta * switch + big.high * (1 - switch))
        return switch

    def excludes(
        self, deadline: Deadline, on_solution: Found, on_relaxation: Found, on_end: Found
    ) -> bool:
        """Solves, and says whether the solver proved that there is no solution.

        Raises:
            SkippedError: the licence does not admit a program of this size.
        """
        codes = self._gurobi.GRB
        failures: list[BaseException] = []

        def solved(model: Any) -> bool:
            return bool(model.cbGet(codes.Callback.MIPNODE_STATUS) == codes.OPTIMAL)

        def callback(model: Any, where: int) -> None:
            try:
                if where == codes.Callback.MIPSOL:
                    on_solution(np.array(model.cbGetSolution(self.inputs)))
                elif where == codes.Callback.MIPNODE and solved(model):
                    on_relaxation(np.array(model.cbGetNodeRel(self.inputs)))
            except Exception as error:  # the solver would print it and go on: kept for the caller
                failures.append(error)
                model.terminate()

        self.model.Params.TimeLimit = min(deadline.remaining, 1e9)
        try:
            self.model.optimize(callback)
        except self._gurobi.GurobiError as error:
            if error.errno != TOO_LARGE:
                raise
            raise SkippedError(NOT_ADMITTED) from error
        if failures:
            raise failures[0]
        if self.model.SolCount:
            # A program without binary variables has no callback for its solution.
            on_end(np.array([x.X for x in self.inputs]))
        return bool(self.model.Status in (codes.CUTOFF, codes.INFEASIBLE))
