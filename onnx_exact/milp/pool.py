"""Settles the open signs of a layer with one program each, in one process or in several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx_exact.deadline import Deadline
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.milp.encode import Candidate, candidates_of
from onnx_exact.milp.outcome import Outcome
from onnx_exact.milp.solve import conclude
from onnx_exact.milp.unit import SignAnswer, ask

# Programs of a layer that may run out of time one after another: with farther bounds others would
# as well.
MOST_FAILURES = 4


def settle_layer(
    knowledge: Knowledge, layer: int, seconds: float, deadline: Deadline, jobs: int = 1
) -> None:
    """Asks for every open sign of a layer, those with the nearest bounds first.

    Args:
        knowledge: bounded up to the layer; receives what is found.
        layer: index.
        seconds: for a single sign.
        deadline: for all of them.
        jobs: processes, by joblib and whatever backend it is set to.
    """
    candidates = [c for c in candidates_of(knowledge, alone=True) if c.layer == layer]
    candidates.sort(key=lambda c: (_bound(knowledge, c), c.unit))
    failed = 0
    for answer in _answers(knowledge, candidates, seconds, deadline, jobs):
        failed = failed + 1 if answer.outcome is Outcome.OPEN else 0
        if answer.outcome is Outcome.IMPOSSIBLE:
            conclude(knowledge, [answer.candidate])
        elif answer.outcome is Outcome.CLAIMED:
            c = answer.candidate
            knowledge.give_up(c.layer, c.unit, c.positive)
        knowledge.show(answer.points)
        if failed == MOST_FAILURES:
            return


def _answers(
    knowledge: Knowledge,
    candidates: list[Candidate],
    seconds: float,
    deadline: Deadline,
    jobs: int,
) -> Iterator[SignAnswer]:
    """One answer after another; in one process each already profits from those before."""
    if jobs == 1:
        for candidate in candidates:
            if deadline.passed:
                return
            if _is_open(knowledge, candidate):
                yield ask(knowledge, candidate, min(seconds, deadline.remaining))
        return
    from joblib import Parallel, delayed

    while candidates and not deadline.passed:
        batch, candidates = candidates[:jobs], candidates[jobs:]
        batch = [c for c in batch if _is_open(knowledge, c)]
        limit = min(seconds, deadline.remaining)
        answers: Iterable[SignAnswer] = Parallel(n_jobs=jobs)(
            delayed(ask)(knowledge, candidate, limit) for candidate in batch
        )
        yield from answers


def _is_open(knowledge: Knowledge, candidate: Candidate) -> bool:
    positive, negative = knowledge.open_signs(candidate.layer)
    return bool((positive if candidate.positive else negative)[candidate.unit])


def _bound(knowledge: Knowledge, candidate: Candidate) -> float:
    """How far from settled the sign's bound is."""
    if candidate.positive:
        return float(knowledge.upper[candidate.layer][candidate.unit])
    return -float(knowledge.lower[candidate.layer][candidate.unit])
