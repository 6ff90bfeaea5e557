"""One mixed-integer program for all open signs of a chain (Serra et al. 2021).

Maximise the number of candidates shown at once. Whatever a solution shows leaves the objective and
the search goes on; where no solution shows any candidate, all that are left are stable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from onnx_exact.deadline import Deadline
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.milp.encode import (
    Candidate,
    OutOfTimeError,
    candidates_of,
    encode,
    limit_time,
)
from onnx_exact.milp.outcome import Outcome, solved
from onnx_exact.network.affine import Array

# Once no more than this share of the candidates is left, a program without the others is smaller by
# more than the search so far is worth.
ANEW_FROM = 0.5


def settle_with_one_milp(
    knowledge: Knowledge, deadline: Deadline, progress: Callable[[str, str], None]
) -> set[Candidate]:
    """Decides all open units of the chain, as far as the time allows.

    Returns:
        Candidates that a solution claims to show, at -delta <= g <= 0 or within the solver's
        tolerance, but that its own forward pass does not: they left the objective and are open.
    """
    unclear: set[Candidate] = set()
    while not deadline.passed:
        candidates = [c for c in candidates_of(knowledge) if c not in unclear]
        if not candidates:
            break
        progress("milp", f"{len(candidates)} signs open")
        outcome, claimed = _solve(knowledge, candidates, deadline, progress)
        unclear |= claimed
        if outcome is not Outcome.SHOWN:
            break
    return unclear


def _solve(
    knowledge: Knowledge,
    candidates: list[Candidate],
    deadline: Deadline,
    progress: Callable[[str, str], None],
) -> tuple[Outcome, set[Candidate]]:
    """One solve, until nothing can be shown any more or most of the candidates were.

    Returns:
        The outcome, SHOWN where the rest is to be asked for anew, and the candidates claimed.
    """
    from pyscipopt import quicksum

    from onnx_exact.milp.shrink import SHOWS_SOMETHING, attach_shrinking

    try:
        encoding = encode(knowledge, candidates, deadline)
    except OutOfTimeError:
        return Outcome.OPEN, set()
    model = encoding.model
    model.setObjective(quicksum(encoding.indicators.values()), "maximize")
    model.setObjlimit(SHOWS_SOMETHING)
    limit_time(model, deadline.remaining)

    def wanted(points: Array) -> set[Candidate]:
        knowledge.show(points)
        left = set(_still_open(knowledge, candidates))
        progress("milp", f"{len(left)} signs open")
        return left

    shrinking = attach_shrinking(encoding, wanted, int(ANEW_FROM * len(candidates)))
    outcome = solved(model, lambda: shrinking.ended or shrinking.error is not None)
    if shrinking.error is not None:
        raise shrinking.error
    if outcome is Outcome.IMPOSSIBLE:
        conclude(knowledge, [c for c in candidates if c not in shrinking.retired])
    return outcome, shrinking.claimed


def _still_open(knowledge: Knowledge, candidates: list[Candidate]) -> list[Candidate]:
    """The candidates that no point has shown."""
    seen = (knowledge.seen_negative, knowledge.seen_positive)
    return [c for c in candidates if not seen[c.positive][c.layer][c.unit]]


def conclude(knowledge: Knowledge, candidates: Iterable[Candidate]) -> None:
    """Writes down the solver's word that no candidate's sign occurs."""
    for c in candidates:
        knowledge.claim(c.layer, c.unit, c.positive, c.delta)
