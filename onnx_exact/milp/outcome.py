"""What the status in which SCIP ends says about the signs it was asked for."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyscipopt import Model


class Outcome(Enum):
    """What the end of a solve means."""

    IMPOSSIBLE = "no point shows any of the signs"
    SHOWN = "a point shows one of them"
    CLAIMED = "a solution shows one within the solver's tolerance alone"
    OPEN = "nothing"


# Every solve has an objective limit below which no solution counts, so that having none is a
# proof up to the solver's tolerance. Whatever is not listed leaves the signs open.
_OUTCOMES = {
    "infeasible": Outcome.IMPOSSIBLE,
    "optimal": Outcome.CLAIMED,
}


def outcome_of(status: str) -> Outcome:
    """The outcome of a solve in which no point showed a sign.

    Raises:
        KeyboardInterrupt: SCIP has caught Ctrl-C itself.
    """
    if status == "userinterrupt":
        raise KeyboardInterrupt
    return _OUTCOMES.get(status, Outcome.OPEN)


def solved(model: Model, ended: Callable[[], Outcome | None]) -> Outcome:
    """Solves a program and clears it away; where SCIP itself fails, its queries stay open.

    Args:
        model: to be solved.
        ended: the outcome where a callback has ended the solve: for a point that shows a sign, or
            because too much work was done. None where none has.

    Raises:
        KeyboardInterrupt: SCIP has caught Ctrl-C itself.
    """
    try:
        model.optimize()
    # PySCIPOpt raises bare exceptions for whatever goes wrong within SCIP.
    except Exception:
        return Outcome.OPEN
    status = model.getStatus()
    # Plug-ins are told now that the solve is over, not when the interpreter is being taken down.
    model.freeProb()
    return ended() or outcome_of(status)
