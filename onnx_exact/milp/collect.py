"""Turns what SCIP comes across into points that are run forward.

SCIP reports an improving solution as BESTSOLFOUND and any other as POORSOLFOUND; SOLFOUND is both.
The relaxation's solutions are tried too: its input determines all else, so that a forward pass
makes a feasible point of it (Serra et al. 2021 inject these). Only the input is used: the network
itself says what a point shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from pyscipopt import (  # type: ignore[attr-defined]
    SCIP_EVENTTYPE,
    SCIP_HEURTIMING,
    SCIP_RESULT,
    SCIP_STAGE,
    Eventhdlr,
    Heur,
    Model,
    Variable,
)

from onnx_exact.milp.outcome import Outcome
from onnx_exact.network.affine import Array

# Says whether points, shape (points, inputs), show what the solve is for.
Shows = Callable[[Array], bool]


class Collector(Eventhdlr):
    """An event handler that ends a solve once a point shows a sign, or enough work was done.

    Work is counted in iterations of the simplex method, those of strong branching too, and nodes.

    Attributes:
        shown: whether a point did.
        exhausted: whether the work is done.
        error: what went wrong in a callback, to be raised once SCIP has returned.
    """

    # Solutions, and nodes: where work is counted. Not of the module, which may be gone at the end.
    _events = (SCIP_EVENTTYPE.SOLFOUND, SCIP_EVENTTYPE.NODESOLVED)

    def __init__(self, inputs: list[Variable], shows: Shows, most_work: float) -> None:
        self._inputs, self._shows, self._most_work = inputs, shows, most_work
        self._known: set[bytes] = set()
        self.shown = self.exhausted = False
        self.error: BaseException | None = None

    @property
    def outcome(self) -> Outcome | None:
        """What the handler has ended the solve with; None where it has not."""
        if self.shown or self.error is not None:
            return Outcome.SHOWN
        return Outcome.OPEN if self.exhausted else None

    def eventinit(self) -> None:
        """Asks for every solution, improving or not, and every node."""
        for event in self._events:
            self.model.catchEvent(event, self)

    def eventexit(self) -> None:
        """Stops listening."""
        for event in self._events:
            self.model.dropEvent(event, self)

    def eventexec(self, event: Any) -> None:
        """Tries the solutions not seen before, or counts the work."""
        if event.getType() & SCIP_EVENTTYPE.SOLFOUND:
            self.consider(self.model.getSols())
        else:
            self.count()

    def consider(self, solutions: list[Any]) -> None:
        """Runs the inputs of solutions forward; None stands for the relaxation's."""
        try:
            points = []
            for solution in solutions:
                point = np.array([self.model.getSolVal(solution, x) for x in self._inputs])
                if point.tobytes() not in self._known:
                    self._known.add(point.tobytes())
                    points.append(point)
            if points and self._shows(np.array(points)):
                self.shown = True
        except BaseException as error:  # a callback cannot raise through SCIP: kept for the caller
            self.error = error
        self._interrupt()

    def count(self) -> None:
        """Ends the solve where enough work was done."""
        self.exhausted = work_of(self.model) >= self._most_work
        self._interrupt()

    def _interrupt(self) -> None:
        """Ends the solve where there is a reason to."""
        # Just before the first node SCIP takes no interruption: the next callback sees to it.
        if self.outcome is not None and self.model.getStage() != SCIP_STAGE.INITSOLVE:
            self.model.interruptSolve()


def work_of(model: Model) -> int:
    """The work of a solve so far, see `Collector`."""
    iterations = model.getNLPIterations() + model.getNStrongbranchLPIterations()
    return int(iterations + model.getNTotalNodes())


class Considers(Protocol):
    """Takes solutions; None stands for the relaxation's."""

    def consider(self, solutions: list[Any]) -> None:
        """Runs their inputs forward."""

    def count(self) -> None:
        """Looks at the work done."""


class RelaxationPoints(Heur):
    """A primal heuristic that hands the input of each node's relaxation to a collector."""

    def __init__(self, collector: Considers) -> None:
        self._collector = collector

    def heurexec(self, heurtiming: object, nodeinfeasible: bool) -> dict[str, object]:
        """Tries the relaxation's input; no solution is handed to SCIP."""
        if not nodeinfeasible:
            self._collector.consider([None])
        self._collector.count()
        return {"result": SCIP_RESULT.DIDNOTFIND}


def attach(
    model: Model, inputs: list[Variable], shows: Shows, most_work: float = math.inf
) -> Collector:
    """Includes both plug-ins in a model."""
    collector = Collector(inputs, shows, most_work)
    model.includeEventhdlr(collector, "collector", "runs every solution forward")
    model.includeHeur(
        RelaxationPoints(collector),
        "relaxationpoints",
        "runs the relaxation's input forward",
        "F",
        freq=1,
        # Each round of cuts too: at the root there may be many, and none of them is a node.
        timingmask=SCIP_HEURTIMING.DURINGLPLOOP | SCIP_HEURTIMING.AFTERLPNODE,
    )
    return collector
