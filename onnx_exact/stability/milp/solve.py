"""One mixed-integer program for all open signs of a chain (Serra et al. 2021).

Maximise the number of candidates shown at once. Whatever a solution shows leaves the objective and
the search goes on; where no solution shows any candidate, all that are left are stable.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import numpy as np

from onnx_exact.deadline import Deadline
from onnx_exact.stability.knowledge import Knowledge
from onnx_exact.stability.milp.encode import (
    Candidate,
    Encoding,
    candidates_of,
    encode,
    margin,
)
from onnx_exact.stability.verdict import Evidence


class Outcome(Enum):
    """What the end of a solve says about the candidates in its objective."""

    NONE_POSSIBLE = "no point shows any of them"
    SHOWN = "a solution claims to show one"
    OUT_OF_TIME = "nothing"


# SCIP's status to outcome. "No solution" is a proof because the objective limit asks for one that
# shows a candidate. A status that is not listed is an error.
OUTCOMES = {
    "infeasible": Outcome.NONE_POSSIBLE,
    "optimal": Outcome.SHOWN,
    "userinterrupt": Outcome.SHOWN,
    "timelimit": Outcome.OUT_OF_TIME,
    "memlimit": Outcome.OUT_OF_TIME,
}
# A solution shows a candidate or does not: anything between 0 and 1 separates the two.
SHOWS_SOMETHING = 0.5


def settle_with_one_milp(
    knowledge: Knowledge, deadline: Deadline, progress: Callable[[str, str], None]
) -> None:
    """Decides all open units of the chain, as far as the time allows.

    Candidates that a solution claims to show but that its own forward pass does not are within
    the solver's tolerance of 0: they leave the objective and stay UNDECIDED.

    Raises:
        RuntimeError: SCIP ended with a status of unknown meaning.
    """
    unclear: set[Candidate] = set()
    while not deadline.passed:
        candidates = [c for c in candidates_of(knowledge) if c not in unclear]
        if not candidates:
            return
        progress("milp", f"{len(candidates)} signs open")
        outcome, claimed = _solve(knowledge, candidates, deadline)
        if outcome is Outcome.OUT_OF_TIME:
            return
        if outcome is Outcome.NONE_POSSIBLE:
            _conclude(knowledge, candidates)
            return
        still_open = set(candidates_of(knowledge))
        unclear |= {c for c in claimed if c in still_open}


def _solve(
    knowledge: Knowledge, candidates: list[Candidate], deadline: Deadline
) -> tuple[Outcome, list[Candidate]]:
    """One solve, until a new sign is shown or none can be; the candidates its best point claims."""
    from pyscipopt import quicksum

    from onnx_exact.stability.milp.collect import Collector

    encoding = encode(knowledge, candidates)
    model = encoding.model
    model.setObjective(quicksum(encoding.indicators.values()), "maximize")
    model.setObjlimit(SHOWS_SOMETHING)
    if np.isfinite(deadline.remaining):
        model.setParam("limits/time", deadline.remaining)
    collector = Collector(knowledge, encoding.inputs)
    model.includeEventhdlr(collector, "collector", "runs every solution forward")
    model.optimize()
    if collector.error is not None:
        raise collector.error
    status = model.getStatus()
    if status not in OUTCOMES:
        raise RuntimeError(f"SCIP ended with status {status!r}")
    if collector.found:
        return Outcome.SHOWN, []
    return OUTCOMES[status], _claims(encoding)


def _claims(encoding: Encoding) -> list[Candidate]:
    """The candidates that the best solution, if there is one, claims to show."""
    model = encoding.model
    if model.getNSols() == 0:
        return []
    best = model.getBestSol()
    return [
        candidate
        for candidate, variable in encoding.indicators.items()
        if model.getSolVal(best, variable) > SHOWS_SOMETHING
    ]


def _conclude(knowledge: Knowledge, candidates: list[Candidate]) -> None:
    """Writes down that no candidate's sign occurs: g < -delta or g > delta everywhere."""
    for layer in {c.layer for c in candidates}:
        width = knowledge.chain.layers[layer].width
        lower, upper = np.full(width, -np.inf), np.full(width, np.inf)
        for c in candidates:
            if c.layer == layer:
                side = upper if c.positive else lower
                delta = margin(knowledge, c)
                side[c.unit] = -delta if c.positive else delta
        knowledge.tighten(layer, Evidence.SOLVER, lower, upper)
