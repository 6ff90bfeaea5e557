"""Every count that limits work, each with its reason.

No seconds: the same model, options and seed take the same steps on a quiet and on a busy machine.
The only clock is the user's `--time-limit`, and a result that it cut short says so.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budgets:
    """Counts that limit searches, trees, slopes and programs."""


BUDGETS = Budgets()
