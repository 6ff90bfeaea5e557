"""A program whose objective shrinks while it is solved (Serra et al. 2021, section 4).

What a feasible point shows leaves the objective, by a constraint that is not there at the start:
its indicator is 0. So no point is ever the best one. A constraint handler that every point has to
pass runs the point forward, takes what it shows out of the program and turns it away; the search
goes on until no point shows any of the indicators that are left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pyscipopt import (  # type: ignore[attr-defined]
    SCIP_HEURTIMING,
    SCIP_RESULT,
    SCIP_STAGE,
    Conshdlr,
    Model,
)

from onnx_exact.milp.collect import RelaxationPoints
from onnx_exact.milp.encode import Encoding
from onnx_exact.milp.outcome import Outcome
from onnx_exact.network.affine import Array
from onnx_exact.network.query import Query

# A point shows a query or does not: anything between 0 and 1 separates the two.
SHOWS_SOMETHING = 0.5
# After every other constraint, and as often as there is something to fix.
_LAST = -9_000_000
# Runs points forward, shape (points, inputs), and says which queries are still wanted.
Wanted = Callable[[Array], set[Query]]


class ShrinkingObjective(Conshdlr):
    """Turns every point away, after taking what it shows out of the objective.

    Attributes:
        retired: queries out of the objective.
        claimed: those among them that a point claims to show and its forward pass does not.
        ended: whether the solve was ended because so few queries were left.
        error: what went wrong in a callback, to be raised once SCIP has returned.
    """

    def __init__(self, encoding: Encoding, wanted: Wanted, least: int) -> None:
        self._inputs, self._indicators = encoding.inputs, encoding.indicators
        self._wanted, self._least = wanted, least
        self.ended = False
        self.retired: set[Query] = set()
        self.claimed: set[Query] = set()
        self._fixed: set[Query] = set()
        self.error: BaseException | None = None

    @property
    def outcome(self) -> Outcome | None:
        """What the handler has ended the solve with; None where it has not."""
        return Outcome.SHOWN if self.ended or self.error is not None else None

    def consider(self, solutions: list[Any]) -> None:
        """Runs the inputs of solutions forward; None stands for the relaxation's."""
        points = [
            [self.model.getSolVal(solution, x) for x in self._inputs] for solution in solutions
        ]
        self._guard(lambda: self._retire(np.array(points), set()))

    def count(self) -> None:
        """Nothing limits the work but a deadline, as published."""

    def conscheck(
        self,
        constraints: list[Any],
        solution: Any,
        checkintegrality: bool,
        checklprows: bool,
        printreason: bool,
        completely: bool,
        **_: object,
    ) -> dict[str, object]:
        """A point that satisfies all else."""
        self._guard(lambda: self._look_at(solution))
        return {"result": SCIP_RESULT.INFEASIBLE}

    def consenfolp(
        self, constraints: list[Any], nusefulconss: int, solinfeasible: bool
    ) -> dict[str, object]:
        """The solution of a node's relaxation, with every integer an integer."""
        return self._enforce(solinfeasible)

    def consenfops(
        self,
        constraints: list[Any],
        nusefulconss: int,
        solinfeasible: bool,
        objinfeasible: bool,
        **_: object,
    ) -> dict[str, object]:
        """As `consenfolp`, without a relaxation."""
        return self._enforce(solinfeasible)

    def consprop(
        self, constraints: list[Any], nusefulconss: int, nmarkedconss: int, proptiming: object
    ) -> dict[str, object]:
        """Fixes what points met elsewhere have shown."""
        reduced = self._fix()
        return {"result": SCIP_RESULT.REDUCEDDOM if reduced else SCIP_RESULT.DIDNOTFIND}

    def conslock(
        self, constraint: object, locktype: object, nlockspos: int, nlocksneg: int
    ) -> None:
        """Forbids reductions that take points of the same objective for one another."""
        for variable in (*self._inputs, *self._indicators.values()):
            self.model.addVarLocks(variable, nlockspos + nlocksneg, nlockspos + nlocksneg)

    def _enforce(self, infeasible: bool) -> dict[str, object]:
        if infeasible:
            return {"result": SCIP_RESULT.INFEASIBLE}
        self._guard(lambda: self._look_at(None))
        if self._fix():
            return {"result": SCIP_RESULT.REDUCEDDOM}
        # No indicator that is left is 1: below the objective limit.
        return {"result": SCIP_RESULT.CUTOFF}

    def _look_at(self, solution: Any) -> None:
        """Retires what a point shows, and what it claims to show."""
        claims = {
            query
            for query, variable in self._indicators.items()
            if query not in self.retired
            and self.model.getSolVal(solution, variable) > SHOWS_SOMETHING
        }
        point = [self.model.getSolVal(solution, x) for x in self._inputs]
        self._retire(np.array([point]), claims)

    def _retire(self, points: Array, claims: set[Query]) -> None:
        wanted = self._wanted(points)
        self.claimed |= claims & wanted
        self.retired |= (set(self._indicators) - wanted) | claims
        if len(self._indicators) - len(self.retired) <= self._least:
            self.ended = True
            self._interrupt()

    def _fix(self) -> bool:
        """Fixes the indicators that are out of the objective; whether any was not fixed before."""
        todo = self.retired - self._fixed
        for query in todo:
            variable = self.model.getTransformedVar(self._indicators[query])
            self.model.tightenVarUbGlobal(variable, 0.0)
        self._fixed |= todo
        return bool(todo)

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException as error:  # a callback cannot raise through SCIP: kept for the caller
            self.error = error
            self._interrupt()

    def _interrupt(self) -> None:
        # Just before the first node SCIP takes no interruption: the next callback sees to it.
        if self.model.getStage() != SCIP_STAGE.INITSOLVE:
            self.model.interruptSolve()


def attach_shrinking(encoding: Encoding, wanted: Wanted, least: int) -> ShrinkingObjective:
    """Makes the objective of a program shrink, and tries the relaxation's points as well.

    Args:
        encoding: its model's objective is the sum of the indicators, to be maximised.
        wanted: see `Wanted`.
        least: the solve ends once no more queries than this are left.
    """
    model: Model = encoding.model
    handler = ShrinkingObjective(encoding, wanted, least)
    model.includeConshdlr(
        handler,
        "shrinking",
        "takes what is shown out of the objective",
        enfopriority=_LAST,
        chckpriority=_LAST,
        propfreq=1,
        eagerfreq=-1,
        needscons=False,
    )
    model.includeHeur(
        RelaxationPoints(handler),
        "relaxationpoints",
        "runs the relaxation's input forward",
        "F",
        freq=1,
        timingmask=SCIP_HEURTIMING.AFTERLPNODE,
    )
    # Points of the same objective are no longer the same once the objective has shrunk.
    for parameter in ("misc/allowstrongdualreds", "misc/allowweakdualreds"):
        model.setParam(parameter, False)
    model.setParam("misc/usesymmetry", 0)
    return handler
