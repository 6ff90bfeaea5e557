"""What the user asked for: the one object that flags and keywords become."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnx_exact.domains import DomainLike
from onnx_exact.errors import UsageError
from onnx_exact.inputs.samples import SamplesLike
from onnx_exact.methods import (
    DEFAULT_LP_SOLVER,
    DEFAULT_MAX_DEVIATION,
    GOALS,
    METHODS,
    REDUCTIONS,
    SIZE,
)
from onnx_exact.runtime.progress import Progress, Silent


@dataclass(frozen=True, eq=False)
class Settings:
    """What the user asked for; the names are those of the command's flags.

    Attributes:
        domain: None for the model's own metadata, or else every finite input.
        rebase: the model itself is the original, whatever its metadata say of where it came from
            and where it is valid; without it, `domain` has to lie in the domain that it carries.
        method: of `METHODS`.
        time_limit: seconds for the whole run, None for no limit.
        samples: points of the domain to look at as well.
        reductions: of `REDUCTIONS`.
        max_deviation: how far a rewrite may move a pre-activation or round it off further, in
            units of the model's own rounding; 0 for none that rounds anything.
        goal: of `GOALS`.
        align: what the channels of a convolution stay a multiple of; None for what the goal wants.
        rtol, atol: tolerances for the model's outputs in onnxruntime; None to judge the chains
            alone.
        seed: of every random choice.
        jobs: processes for splitting and for mixed-integer programs.
        lp_solver: solver of the linear relaxations, by its name in cvxpy.
        trust_solver: acts on what a solver says beyond its tolerance as well, and labels it.
        certificate: where to write all that is needed to check the result; None for nowhere.
        progress: told what is being done.

    Raises:
        UsageError: a value that cannot be used.
    """

    domain: DomainLike | None = None
    rebase: bool = False
    method: str = "auto"
    time_limit: float | None = None
    samples: SamplesLike | None = None
    reductions: str = REDUCTIONS[0]
    max_deviation: float = DEFAULT_MAX_DEVIATION
    goal: str = GOALS[0]
    align: int | None = None
    rtol: float | None = None
    atol: float | None = None
    seed: int = 0
    jobs: int = 1
    lp_solver: str = DEFAULT_LP_SOLVER
    trust_solver: bool = False
    certificate: str | os.PathLike[str] | None = None
    progress: Progress = field(default_factory=Silent)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"unknown method {self.method!r}; choose one of {', '.join(METHODS)}")
        if self.time_limit is not None and not self.time_limit > 0.0:
            raise UsageError(f"the time limit must be positive, not {self.time_limit}")
        if self.align is not None and self.align < 1:
            raise UsageError(f"channels are a multiple of a number from 1 on, not of {self.align}")
        if self.jobs < 1:
            raise UsageError(f"the number of jobs must be at least 1, not {self.jobs}")
        _check_lp_solver(self.lp_solver)
        if self.reductions not in REDUCTIONS:
            choices = " or ".join(REDUCTIONS)
            raise UsageError(f"unknown reductions {self.reductions!r}; choose {choices}")
        if self.goal not in GOALS:
            raise UsageError(f"unknown goal {self.goal!r}; choose one of {', '.join(GOALS)}")
        if self.certificate is not None and self.goal == SIZE:
            raise UsageError(f"a certificate is about plain chains; leave out --goal {SIZE}")
        numbers = {
            "rtol": self.rtol,
            "atol": self.atol,
            "the maximal deviation": self.max_deviation,
        }
        for name, value in numbers.items():
            if value is not None and not (np.isfinite(value) and value >= 0.0):
                raise UsageError(f"{name} must be a number from 0 on, not {value}")


def _check_lp_solver(name: str) -> None:
    """Raises unless cvxpy finds the solver installed; the default comes with it."""
    if name == DEFAULT_LP_SOLVER:
        return
    import cvxpy

    installed: Any = cvxpy.installed_solvers
    known = sorted(installed())
    if name not in known:
        raise UsageError(f"unknown LP solver {name!r}; cvxpy finds {', '.join(known)}")
