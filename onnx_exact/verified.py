"""`verify`: whether OUT.onnx computes what IN.onnx does, by a certificate or by a search."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from onnx import ModelProto

from onnx_exact.domains import Domain, DomainLike
from onnx_exact.errors import DomainError, NotVerifiedError, UncheckedError, UsageError
from onnx_exact.verifier.check import ChainCheck, check, declared_domain
from onnx_exact.verifier.clock import Clock
from onnx_exact.verifier.coverage import compare_outside, compare_signatures
from onnx_exact.verifier.model import Model, names_read
from onnx_exact.verifier.schema import CLAIMED, Certificate

# As a share of the largest output: beyond what float32 rounds in networks that can be used.
PLAIN_DIFFERENCE = 1e-3
ModelLike = ModelProto | str | PathLike[str]


@dataclass(frozen=True)
class Verification:
    """What was checked of two models.

    Attributes:
        method: "certificate", "identical" (the same nodes and constants, bit by bit), or "search"
            (no difference was found, which proves nothing).
        domain: in words.
        chains: with a certificate only.
        compared: nodes and constants outside of the chains.
        channels: how many tensors lost channels that were shown to be 0, or not to be read.
        deviation: a bound on |old - new| over the domain, or the largest difference seen.
        output_deviation: whether that is of the model's outputs, or of chains further inside.
        claims: verdicts that the certificate claims and does not prove, on which it rests.
        points: at which both models ran, without a certificate.
        tolerance: of a difference, without a certificate.
        seconds: all that took.
        notes: further lines.
    """

    method: str
    domain: str = ""
    chains: tuple[ChainCheck, ...] = ()
    compared: int = 0
    deviation: float = math.nan
    output_deviation: bool = True
    claims: int = 0
    points: int = 0
    tolerance: float = 0.0
    seconds: float = 0.0
    channels: int = 0
    notes: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        """Whether everything was proved."""
        return self.method == "identical" or (self.method == "certificate" and not self.claims)

    @property
    def exit_code(self) -> int:
        """Of the command: 0 verified, 3 not shown."""
        return 0 if self.verified else 3

    def count(self, *proofs: int) -> int:
        """Number of units with such a proof."""
        return _count(self.chains, *proofs)


def verify(
    original: ModelLike,
    result: ModelLike,
    certificate: str | PathLike[str] | None = None,
    domain: DomainLike | None = None,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    time_limit: float | None = None,
) -> Verification:
    """Checks that the model `result` computes what `original` does over a domain.

    Args:
        original, result: file names or models.
        certificate: as written by `optimize`; without one a difference is looked for, which only
            models of the same nodes and constants pass as verified.
        domain: as for `optimize`; None for the one that the certificate or the metadata of
            `result` names.
        rtol, atol: how far outputs may differ in onnxruntime, without a certificate: atol + rtol
            times the largest output; if one is given, the other is 0.
        time_limit: seconds; None for no limit.

    Returns:
        What was checked; `verified` says whether that is all.

    Raises:
        NotVerifiedError: naming the first claim that does not hold, or the input that shows a
            difference.
        UncheckedError: what cannot be checked, or not in time.
        UsageError: no certificate, or a tolerance beside one, which has no use for it.
        ModelError: no model.
        DomainError: a domain that does not fit.
    """
    started = time.perf_counter()
    clock = Clock(time_limit)
    old, new = _model(original, "the original"), _model(result, "the result")
    if certificate is not None:
        if rtol is not None or atol is not None:
            raise UsageError("a certificate is checked without tolerances; leave rtol and atol out")
        try:
            found = _by_certificate(old, new, Path(certificate), domain, clock)
        except UncheckedError as error:
            _refute(old, new, domain, clock, str(error))
            raise
        if found.claims:
            _refute(old, new, domain, clock, f"{found.claims} of its verdicts are claims")
    elif compared := _same(old, new):
        found = Verification("identical", compared=compared, deviation=0.0)
    else:
        from onnx_exact.falsify.search import search

        where = declared_domain(old, new, domain)
        searched = search(old, new, where, (rtol, atol), clock)
        found = Verification(
            "search",
            words(where),
            deviation=searched.largest,
            points=searched.points,
            tolerance=searched.tolerance,
            notes=searched.notes,
        )
    return replace(found, seconds=time.perf_counter() - started)


def _model(source: ModelLike, role: str) -> Model:
    return Model(source if isinstance(source, ModelProto) else Path(source), role)


def _same(old: Model, new: Model) -> int:
    """How many nodes and constants two models have, if these are all the same; else 0."""
    try:
        compare_signatures(old, new)
        return compare_outside(old, new, [])
    except NotVerifiedError:
        return 0


def _refute(old: Model, new: Model, domain: DomainLike | None, clock: Clock, unproved: str) -> None:
    """Where a certificate proves nothing, a plain difference of the two models still refutes it.

    Raises:
        NotVerifiedError: at a point that the error has.
    """
    from onnx_exact.falsify.search import search

    try:
        search(old, new, declared_domain(old, new, domain), (PLAIN_DIFFERENCE, None), clock)
    except (UncheckedError, DomainError):
        return  # Nothing was found; what could not be checked is said by the caller.
    except NotVerifiedError as error:
        raise NotVerifiedError(f"{error}; {unproved}", error.counterexample) from error


def _by_certificate(
    old: Model, new: Model, path: Path, domain: DomainLike | None, clock: Clock
) -> Verification:
    found = check(old, new, Certificate(path, old.nbytes + new.nbytes), domain, clock)
    read = {name for node in old.nodes for name in names_read(node)}
    ends = {value.name for value in old.graph.output} - read
    return Verification(
        "certificate",
        words(found.domain),
        found.chains,
        found.compared,
        found.deviation,
        all(chain.output in ends for chain in found.chains),
        _count(found.chains, CLAIMED),
        channels=found.channels,
    )


def _count(chains: Sequence[ChainCheck], *proofs: int) -> int:
    return sum(n for chain in chains for (_, by), n in chain.counts.items() if by in proofs)


def words(domain: Domain) -> str:
    """A domain in a few words."""
    parts = []
    for name, box in domain.boxes.items():
        if not box.lower.size:
            parts.append(f"{name!r} without entries")
            continue
        same = (box.lower == box.lower.flat[0]).all() and (box.upper == box.upper.flat[0]).all()
        low, high = box.lower.min(), box.upper.max()
        every = "" if same else f"a box of {box.lower.size} sides within "
        parts.append(f"{name!r} in {every}[{low:g}, {high:g}]")
    return ", ".join(parts)
