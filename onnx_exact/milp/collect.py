"""Turns what SCIP comes across into points that are run forward.

SCIP reports an improving solution as BESTSOLFOUND and any other as POORSOLFOUND; SOLFOUND is both.
The relaxation's solutions are tried too: its input determines all else, so that a forward pass
makes a feasible point of it (Serra et al. 2021 inject these). Only the input is used: the network
itself says what a point shows.
"""

from __future__ import annotations

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

from onnx_exact.network.affine import Array

# Says whether points, shape (points, inputs), show what the solve is for.
Shows = Callable[[Array], bool]


class Collector(Eventhdlr):
    """An event handler that tries every new solution and ends the solve once one shows a sign.

    Attributes:
        shown: whether one did.
        error: what went wrong in a callback, to be raised once SCIP has returned.
    """

    def __init__(self, inputs: list[Variable], shows: Shows) -> None:
        self._inputs, self._shows = inputs, shows
        self._known: set[bytes] = set()
        self.shown = False
        self.error: BaseException | None = None

    def eventinit(self) -> None:
        """Asks for every solution, improving or not."""
        self.model.catchEvent(SCIP_EVENTTYPE.SOLFOUND, self)

    def eventexit(self) -> None:
        """Stops listening."""
        self.model.dropEvent(SCIP_EVENTTYPE.SOLFOUND, self)

    def eventexec(self, event: object) -> None:
        """Tries the solutions not seen before."""
        self.consider(self.model.getSols())

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
        # Just before the first node SCIP takes no interruption: the next callback sees to it.
        if (self.shown or self.error) and self.model.getStage() != SCIP_STAGE.INITSOLVE:
            self.model.interruptSolve()


class Considers(Protocol):
    """Takes solutions; None stands for the relaxation's."""

    def consider(self, solutions: list[Any]) -> None:
        """Runs their inputs forward."""


class RelaxationPoints(Heur):
    """A primal heuristic that hands the input of each node's relaxation to a collector."""

    def __init__(self, collector: Considers) -> None:
        self._collector = collector

    def heurexec(self, heurtiming: object, nodeinfeasible: bool) -> dict[str, object]:
        """Tries the relaxation's input; no solution is handed to SCIP."""
        if not nodeinfeasible:
            self._collector.consider([None])
        return {"result": SCIP_RESULT.DIDNOTFIND}


def attach(model: Model, inputs: list[Variable], shows: Shows) -> Collector:
    """Includes both plug-ins in a model."""
    collector = Collector(inputs, shows)
    model.includeEventhdlr(collector, "collector", "runs every solution forward")
    model.includeHeur(
        RelaxationPoints(collector),
        "relaxationpoints",
        "runs the relaxation's input forward",
        "F",
        freq=1,
        timingmask=SCIP_HEURTIMING.AFTERLPNODE,
    )
    return collector
