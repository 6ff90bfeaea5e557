"""What becomes of the answers of mixed-integer programs: witnesses, and claims."""

from __future__ import annotations

import math
from collections.abc import Callable

from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.milp.encode import Target, targets_of
from onnx_exact.milp.outcome import Outcome
from onnx_exact.milp.pool import answers
from onnx_exact.milp.solve import ask_together
from onnx_exact.network.affine import Array
from onnx_exact.network.query import Query
from onnx_exact.runtime.deadline import Deadline

# Programs of a layer that may end without an answer one after another: with farther bounds others
# would as well.
MOST_FAILURES = 4


def settle_layer(
    knowledge: Knowledge,
    layer: int,
    deadline: Deadline,
    most_work: float = math.inf,
    jobs: int = 1,
) -> None:
    """Asks a program of its own for every open query of a layer, the nearest bounds first.

    Args:
        knowledge: bounded up to the layer; receives what is found.
        layer: index.
        deadline: for all of them.
        most_work: of a single program, as `onnx_exact.milp.collect.Collector` counts it.
        jobs: processes.
    """
    bounds = knowledge.bounds
    asked = [query for query in knowledge.open_queries(layer) if query not in knowledge.claimed]
    asked.sort(key=lambda query: (knowledge.signed_bound(query), query.unit))
    targets = targets_of(bounds, asked, alone=True, trusting=knowledge.trusting)
    failed = 0

    def is_wanted(query: Query) -> bool:
        return failed < MOST_FAILURES and knowledge.is_open(query)

    for answer in answers(bounds, targets, is_wanted, most_work, deadline, jobs):
        failed = failed + 1 if answer.outcome is Outcome.OPEN else 0
        if answer.outcome is Outcome.IMPOSSIBLE:
            _claim(knowledge, answer.target)
        elif answer.outcome is Outcome.CLAIMED:
            knowledge.give_up([answer.target.query])
        knowledge.show(answer.points)


def settle_together(
    knowledge: Knowledge, deadline: Deadline, progress: Callable[[str, str], None]
) -> set[Query]:
    """Asks one program for all open queries of the chain.

    Returns:
        Those that a solution claims to show and its own forward pass does not; they stay open.
    """
    unclear: set[Query] = set()
    outcome = Outcome.SHOWN
    while outcome is Outcome.SHOWN and not deadline.passed:
        bounds = knowledge.bounds
        targets = targets_of(bounds, _asked(knowledge, unclear), trusting=knowledge.trusting)
        if not targets:
            break
        progress("milp", f"{len(targets)} signs open")

        def wanted(points: Array, targets: list[Target] = targets) -> set[Query]:
            knowledge.show(points)
            left = {t.query for t in targets if not knowledge.is_shown(t.query)}
            progress("milp", f"{len(left)} signs open")
            return left

        found = ask_together(bounds, targets, wanted, deadline)
        for target in found.excluded:
            _claim(knowledge, target)
        unclear |= found.claimed
        outcome = found.outcome
    return unclear


def _asked(knowledge: Knowledge, unclear: set[Query]) -> list[Query]:
    """The open queries that no program has answered yet."""
    done = unclear | knowledge.claimed.keys()
    return [
        query
        for layer in knowledge.relu_layers
        for query in knowledge.open_queries(layer)
        if query not in done
    ]


def _claim(knowledge: Knowledge, target: Target) -> None:
    """Writes down the solver's word that a sign does not occur."""
    knowledge.claim(target.query, target.margin)
