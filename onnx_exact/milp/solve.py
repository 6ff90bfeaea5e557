"""One mixed-integer program for all open queries of a chain (Serra et al. 2021).

Maximise the number of signs shown at once. Whatever a solution shows leaves the objective and the
search goes on; where no solution shows any sign, all queries that are left are excluded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx_exact.bounds.chain_bounds import ChainBounds
from onnx_exact.milp.encode import OutOfTimeError, Target, encode, limit_time
from onnx_exact.milp.outcome import Outcome, solved
from onnx_exact.network.query import Query
from onnx_exact.runtime.deadline import Deadline

if TYPE_CHECKING:
    from onnx_exact.milp.shrink import Wanted

# Once no more than this share of the queries is left, a program without the others is smaller by
# more than the search so far is worth.
ANEW_FROM = 0.5


@dataclass(frozen=True)
class Together:
    """What a program for several queries said.

    Attributes:
        outcome: SHOWN where the rest is to be asked for anew.
        excluded: those that no point shows.
        claimed: those that a solution claims to show, at -margin <= g <= 0 or within the solver's
            tolerance, but that its own forward pass does not: they left the objective and are open.
    """

    outcome: Outcome
    excluded: list[Target]
    claimed: set[Query]


def ask_together(
    bounds: ChainBounds, targets: Sequence[Target], wanted: Wanted, deadline: Deadline
) -> Together:
    """One solve, until nothing can be shown any more or most of the queries were.

    Args:
        bounds: what is known, finite up to the queries' layers.
        targets: at least one.
        wanted: looks at points on the way, see `onnx_exact.milp.shrink.Wanted`.
        deadline: OPEN when it passes.
    """
    from pyscipopt import quicksum

    from onnx_exact.milp.shrink import SHOWS_SOMETHING, attach_shrinking

    try:
        encoding = encode(bounds, targets, deadline)
    except OutOfTimeError:
        return Together(Outcome.OPEN, [], set())
    model = encoding.model
    model.setObjective(quicksum(encoding.indicators.values()), "maximize")
    model.setObjlimit(SHOWS_SOMETHING)
    limit_time(model, deadline)
    shrinking = attach_shrinking(encoding, wanted, int(ANEW_FROM * len(targets)))
    outcome = solved(model, lambda: shrinking.outcome)
    if shrinking.error is not None:
        raise shrinking.error
    excluded = [target for target in targets if target.query not in shrinking.retired]
    return Together(outcome, excluded * (outcome is Outcome.IMPOSSIBLE), shrinking.claimed)
