"""What the user asked for, and a model on its way through the pipeline."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnx_exact.certify.proof import ChainProof
from onnx_exact.decide.verdict import Stability
from onnx_exact.domains import Domain, DomainLike
from onnx_exact.errors import UsageError
from onnx_exact.graph.locate import LocatedChain
from onnx_exact.graph.ranges import ChainDomain
from onnx_exact.graph.read import InputSpec, Source
from onnx_exact.labels.narrow import Narrowed
from onnx_exact.limit import TimeLimit
from onnx_exact.methods import (
    DEFAULT_LP_SOLVER,
    DEFAULT_MAX_DEVIATION,
    GOALS,
    METHODS,
    REDUCTIONS,
    SIZE,
)
from onnx_exact.network import Box
from onnx_exact.progress import Progress, Silent
from onnx_exact.samples import Samples, SamplesLike
from onnx_exact.threads import one_thread
from onnx_exact.validate import Deviation


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


@dataclass(frozen=True, eq=False)
class Allowance:
    """What a certificate lets become of a chain.

    Attributes:
        reason: why no certificate can speak of it, so that it stays as it is; empty if one can.
        deviation: how far the new chain's outputs may be from the old one's: what the box of a
            chain behind it has room for.
        box: that the certificate names for its input; None for that of the domain itself.
    """

    reason: str = ""
    deviation: float = np.inf
    box: Box | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """A model on its way through the pipeline.

    Attributes:
        source: the model as read.
        inputs: what has to be fed to it.
        domain: over which everything is decided.
        first_sha256: of the model that all passes so far began with.
        samples: the user's own points.
        chains: what was found, each with its box and its verdicts.
        proofs: of the verdicts on each chain, None where there was no need of one.
        allowed: what a certificate lets become of each.
        limit: the time limit, which counts down since the run began.
        seconds: the time of each stage so far.
        left_out: what is in no chain, with the reason, a line each.
        narrowed: what went of the model before its chains were looked for; `source` is without it.
        seen: how far apart the models before and after that were.
    """

    settings: Settings
    source: Source
    inputs: tuple[InputSpec, ...]
    domain: Domain
    first_sha256: str
    samples: Samples | None
    chains: tuple[tuple[LocatedChain, ChainDomain, Stability], ...]
    proofs: tuple[ChainProof | None, ...]
    allowed: tuple[Allowance, ...]
    limit: TimeLimit
    seconds: dict[str, float]
    left_out: tuple[str, ...] = ()
    narrowed: Narrowed | None = None
    seen: Deviation | None = None

    @property
    def certificate(self) -> Path | None:
        """Where the certificate goes, if one is wanted."""
        wanted = self.settings.certificate
        return None if wanted is None else Path(wanted)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Tells the progress and keeps the time of a stage, whose products take one thread."""
        self.settings.progress.stage(name)
        started = time.monotonic()
        try:
            with one_thread():
                yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started
