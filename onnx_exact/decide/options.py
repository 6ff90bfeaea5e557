"""How a chain is decided: the choices of the user, and what may be spent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from onnx_exact.budgets import BUDGETS, Budgets
from onnx_exact.methods import DEFAULT_LP_SOLVER
from onnx_exact.runtime.deadline import Deadline


def _silent(stage: str, detail: str) -> None:
    """Reports nothing."""


@dataclass(frozen=True)
class Options:
    """How a chain is decided.

    Attributes:
        method: of `onnx_exact.methods.METHODS`.
        deadline: what is open when it passes is UNDECIDED; it decides nothing else.
        seed: of every random choice.
        jobs: processes for mixed-integer programs and for branching, on the box and on ReLUs; they
            change nothing but the time.
        budgets: how much work each means may take.
        lp_solver: the solver of the linear relaxation, by its name in cvxpy.
        trust_solver: whether verdicts may rest on what a solver says, beyond its tolerance.
        progress: called with a stage and a detail.
        latest: by then the first bounds on all layers have to end too; what is left of them is
            bounded by intervals alone.
    """

    method: str = "auto"
    deadline: Deadline = field(default_factory=Deadline)
    seed: int = 0
    jobs: int = 1
    budgets: Budgets = BUDGETS
    lp_solver: str = DEFAULT_LP_SOLVER
    trust_solver: bool = False
    progress: Callable[[str, str], None] = _silent
    latest: Deadline = field(default_factory=Deadline)
