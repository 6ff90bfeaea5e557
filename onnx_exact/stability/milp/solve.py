"""One mixed-integer program for all open signs of a chain (Serra et al. 2021).

Maximise the number of candidates shown at once. Whatever a solution shows leaves the objective and
the search goes on; where no solution shows any candidate, all that are left are stable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from onnx_exact.deadline import Deadline
from onnx_exact.stability.knowledge import Knowledge
from onnx_exact.stability.milp.encode import (
    Candidate,
    Encoding,
    candidates_of,
    encode,
    limit_time,
)
from onnx_exact.stability.milp.outcome import Outcome, outcome_of
from onnx_exact.stability.verdict import Evidence

# A solution shows a candidate or does not: anything between 0 and 1 separates the two.
SHOWS_SOMETHING = 0.5


def settle_with_one_milp(
    knowledge: Knowledge, deadline: Deadline, progress: Callable[[str, str], None]
) -> set[Candidate]:
    """Decides all open units of the chain, as far as the time allows.

    Returns:
        Candidates that a solution claims to show, at -delta <= g <= 0 or within the solver's
        tolerance, but that its own forward pass does not: they left the objective and are open.

    Raises:
        RuntimeError: SCIP ended with a status of unknown meaning.
    """
    unclear: set[Candidate] = set()
    while not deadline.passed:
        candidates = [c for c in candidates_of(knowledge) if c not in unclear]
        if not candidates:
            break
        progress("milp", f"{len(candidates)} signs open")
        outcome, claimed = _solve(knowledge, candidates, deadline)
        if outcome is Outcome.IMPOSSIBLE:
            conclude(knowledge, candidates)
        if outcome in (Outcome.IMPOSSIBLE, Outcome.OPEN):
            break
        unclear.update(claimed)
    return unclear


def _solve(
    knowledge: Knowledge, candidates: list[Candidate], deadline: Deadline
) -> tuple[Outcome, list[Candidate]]:
    """One solve, until a new sign is shown or none can be; the candidates its best point claims."""
    from pyscipopt import quicksum

    from onnx_exact.stability.milp.collect import attach

    encoding = encode(knowledge, candidates)
    model = encoding.model
    model.setObjective(quicksum(encoding.indicators.values()), "maximize")
    model.setObjlimit(SHOWS_SOMETHING)
    limit_time(model, deadline.remaining)
    collector = attach(model, encoding.inputs, lambda points: knowledge.show(points) > 0)
    model.optimize()
    if collector.error is not None:
        raise collector.error
    if collector.shown:
        return Outcome.SHOWN, []
    outcome = outcome_of(model.getStatus())
    return outcome, _claims(encoding) if outcome is Outcome.CLAIMED else []


def _claims(encoding: Encoding) -> list[Candidate]:
    """The candidates that the best solution claims to show."""
    best = encoding.model.getBestSol()
    return [
        candidate
        for candidate, variable in encoding.indicators.items()
        if encoding.model.getSolVal(best, variable) > SHOWS_SOMETHING
    ]


def conclude(knowledge: Knowledge, candidates: Iterable[Candidate]) -> None:
    """Writes down that no candidate's sign occurs: g < -delta or g > delta everywhere."""
    by_layer: dict[int, list[Candidate]] = {}
    for candidate in candidates:
        by_layer.setdefault(candidate.layer, []).append(candidate)
    for layer, group in by_layer.items():
        width = knowledge.chain.layers[layer].width
        lower, upper = np.full(width, -np.inf), np.full(width, np.inf)
        for c in group:
            if c.positive:
                upper[c.unit] = -c.delta
            else:
                lower[c.unit] = c.delta
        knowledge.tighten(layer, Evidence.SOLVER, lower, upper)
