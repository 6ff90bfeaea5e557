"""Turns every feasible solution that SCIP finds into a point that is run forward.

SCIP reports an improving solution as BESTSOLFOUND and any other as POORSOLFOUND; SOLFOUND is both.
Only the solution's input is used: the network itself says what the point shows.
"""

from __future__ import annotations

import numpy as np
from pyscipopt import SCIP_EVENTTYPE, Eventhdlr, Variable  # type: ignore[attr-defined]

from onnx_exact.stability.knowledge import Knowledge


class Collector(Eventhdlr):
    """An event handler that shows each new solution to `knowledge`.

    Attributes:
        found: how many signs the solutions have shown for the first time.
        error: what went wrong in a callback, to be raised once SCIP has returned.
    """

    def __init__(self, knowledge: Knowledge, inputs: list[Variable]) -> None:
        self._knowledge, self._inputs = knowledge, inputs
        self._known: set[bytes] = set()
        self.found = 0
        self.error: Exception | None = None

    def eventinit(self) -> None:
        """Asks for every solution, improving or not."""
        self.model.catchEvent(SCIP_EVENTTYPE.SOLFOUND, self)

    def eventexit(self) -> None:
        """Stops listening."""
        self.model.dropEvent(SCIP_EVENTTYPE.SOLFOUND, self)

    def eventexec(self, event: object) -> None:
        """Runs the solutions not seen before forward; a sign found ends the solve."""
        try:
            points = []
            for solution in self.model.getSols():
                point = np.array([self.model.getSolVal(solution, x) for x in self._inputs])
                if point.tobytes() not in self._known:
                    self._known.add(point.tobytes())
                    points.append(point)
            if points:
                self.found += self._knowledge.show(np.array(points))
        except Exception as error:  # a callback cannot raise through SCIP: kept for the caller
            self.error = error
        if self.found or self.error:
            self.model.interruptSolve()
