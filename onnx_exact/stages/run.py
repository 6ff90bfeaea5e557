"""A model on its way through the pipeline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnx_exact.certify.proof import ChainProof
from onnx_exact.decide.verdict import Stability
from onnx_exact.domains import Domain
from onnx_exact.graph.locate import LocatedChain
from onnx_exact.graph.ranges import ChainDomain
from onnx_exact.graph.read import InputSpec, Source
from onnx_exact.inputs.samples import Samples
from onnx_exact.labels.narrow import Narrowed
from onnx_exact.network import Box
from onnx_exact.runtime.limit import TimeLimit
from onnx_exact.runtime.threads import one_thread
from onnx_exact.settings import Settings
from onnx_exact.validate import Deviation


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
        held_by_blocks: channels that could go and stay, so that blocks of channels are full.
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
    held_by_blocks: int = 0
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
