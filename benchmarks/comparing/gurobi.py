"""The published algorithms in Gurobi, which the papers used, for networks its free licence admits.

`pip install gurobipy` comes with a licence for 2,000 variables and 2,000 constraints. The program
is that of `onnx_exact.milp.encode`, whose module says what its letters stand for; what a
solution shows leaves the objective by a lazy constraint, as in the papers, within a single solve.
Verdicts keep the same distance from the solver's tolerance as those of SCIP.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.comparing.contestants import SkippedError
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.propagate import bound_by_intervals
from onnx_exact.decide.published import Progress
from onnx_exact.decide.verdict import Status
from onnx_exact.milp.encode import Target, targets_of
from onnx_exact.milp.tolerance import FEASIBILITY_TOLERANCE
from onnx_exact.network.affine import Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.query import Query
from onnx_exact.runtime.deadline import Deadline

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
    targets = _targets(knowledge, knowledge.relu_layers)
    if not targets:
        return
    progress("milp", f"{len(targets)} signs open")
    program = _Program(knowledge)
    switches = program.add_layers(max(t.query.layer for t in targets) + 1, targets)
    program.model.setObjective(program.sum(switches.values()), program.maximize)
    program.model.Params.LazyConstraints = 1
    # No solution that shows nothing: once none is left, the program is infeasible.
    program.model.Params.Cutoff = SHOWS_SOMETHING
    gone: set[Target] = set()

    def show(point: Array) -> None:
        knowledge.show(point[None, :])

    def on_solution(point: Array) -> None:
        show(point)
        values = program.model.cbGetSolution(switches)
        for target, switch in switches.items():
            # What a solution claims and its own forward pass denies would come up for ever.
            if values[target] > SHOWS_SOMETHING or not knowledge.is_open(target.query):
                program.model.cbLazy(switch <= 0)
                gone.add(target)

    def on_relaxation(point: Array) -> None:
        show(point)
        program.model.cbSetSolution(program.inputs, point.tolist())

    if program.excludes(deadline, on_solution, on_relaxation, show):
        for target in targets:
            if target not in gone and knowledge.is_open(target.query):
                knowledge.claim(target.query, target.margin)
    # What a solution claimed at -margin <= g <= 0 has to be asked for by itself.
    for target in sorted(gone, key=lambda t: t.query):
        if knowledge.is_open(target.query) and not deadline.passed:
            _decide_sign(knowledge, target, deadline)


def decide_one_by_one(knowledge: Knowledge, deadline: Deadline, progress: Progress) -> None:
    """Two programs for each unit that interval bounds leave open, first layer first.

    Raises:
        SkippedError: the licence does not admit a program.
    """
    for index in range(len(knowledge.chain.layers)):
        bound_by_intervals(knowledge, index)
        progress("milp", f"layer {index + 1}, {knowledge.open_units} units open")
        for target in _targets(knowledge, [index]):
            if knowledge.is_open(target.query) and not deadline.passed:
                _decide_sign(knowledge, target, deadline)


def _targets(knowledge: Knowledge, layers: Sequence[int]) -> list[Target]:
    """What can be asked of the layers' open signs."""
    queries = [query for layer in layers for query in knowledge.open_queries(layer)]
    return targets_of(knowledge.bounds, [q for q in queries if q not in knowledge.claimed])


def _decide_sign(knowledge: Knowledge, target: Target, deadline: Deadline) -> None:
    program, query = _Program(knowledge), target.query
    program.add_layers(query.layer, [])
    affine = knowledge.chain.layers[query.layer].affine
    value = program.model.addVar(lb=-np.inf, name="g")
    terms = program.row(query.sign * affine.weight[query.unit])
    program.model.addConstr(terms + query.sign * float(affine.bias[query.unit]) == value)
    program.model.setObjective(value, program.maximize)
    program.model.Params.Cutoff = -target.margin

    def try_point(point: Array) -> None:
        knowledge.show(point[None, :])
        if not knowledge.is_open(query):
            program.model.terminate()

    if program.excludes(deadline, try_point, try_point, try_point):
        knowledge.claim(query, target.margin)


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

    def add_layers(self, count: int, targets: Sequence[Target]) -> dict[Target, Any]:
        """Adds the first layers; the binary variable p or q of each target."""
        switches: dict[Target, Any] = {}
        by_query = {target.query: target for target in targets}
        for index in range(count):
            width = self._knowledge.chain.layers[index].width
            self._below = [self._add_unit(index, i, by_query, switches) for i in range(width)]
        return switches

    def _add_unit(
        self,
        index: int,
        unit: int,
        by_query: dict[Query, Target],
        switches: dict[Target, Any],
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
            target = by_query.get(Query(index, unit, positive))
            if target is not None:
                switches[target] = self._add_switch(target, h - hbar, big)
        return h

    def _add_switch(self, target: Target, g: Any, big: _Big) -> Any:
        switch, delta = self.model.addVar(vtype="B"), target.margin
        if target.query.positive:
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
