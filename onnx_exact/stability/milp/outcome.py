"""What the status in which SCIP ends says about the signs it was asked for."""

from __future__ import annotations

from enum import Enum


class Outcome(Enum):
    """What the end of a solve means."""

    IMPOSSIBLE = "no point shows any of the signs"
    SHOWN = "a point shows one of them"
    CLAIMED = "a solution shows one within the solver's tolerance alone"
    OPEN = "nothing"


# Every solve has an objective limit below which no solution counts, so that having none is a
# proof. A status that is not listed is an error, not a verdict.
_OUTCOMES = {
    "infeasible": Outcome.IMPOSSIBLE,
    "optimal": Outcome.CLAIMED,
    "timelimit": Outcome.OPEN,
    "memlimit": Outcome.OPEN,
}


def outcome_of(status: str) -> Outcome:
    """The outcome of a solve in which no point showed a sign.

    Raises:
        KeyboardInterrupt: SCIP has caught Ctrl-C itself.
        RuntimeError: a status of unknown meaning.
    """
    if status == "userinterrupt":
        raise KeyboardInterrupt
    if status not in _OUTCOMES:
        raise RuntimeError(f"SCIP ended with status {status!r}, whose meaning is not known")
    return _OUTCOMES[status]
