"""Checks that OUT.onnx computes what IN.onnx does over a domain, by a certificate or without.

Shares nothing with what decides and reduces but the reading of `--domain`.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from onnx_exact.domains import DOMAIN_KEY, Domain, DomainLike, resolve_domain
from onnx_exact.errors import DomainError, NotVerifiedError
from onnx_exact.verifier.balls import Balls
from onnx_exact.verifier.batches import Batches
from onnx_exact.verifier.certificate import SOLVER, Certificate
from onnx_exact.verifier.chain import input_box, read_chain
from onnx_exact.verifier.claims import check_claims
from onnx_exact.verifier.contents import read_claims
from onnx_exact.verifier.model import Model, names_read
from onnx_exact.verifier.outside import compare_outside
from onnx_exact.verifier.pairs import deviation

# By how much a claimed deviation may fall short of the one that is found here.
CLAIM_TOLERANCE = 0.01
# The same as a share of the largest output: float64 sums in another order.
CLAIM_ROUNDING = 1e-12


@dataclass(frozen=True)
class ChainCheck:
    """What was checked of one chain.

    Attributes:
        name: its boundaries.
        counts: of its units, by status and proof of the certificate.
        witnesses, trees, leaves: how many were checked.
        deviation: a bound on |old - new| at its output, over the domain, in real arithmetic.
    """

    name: str
    counts: Counter[tuple[int, int]]
    witnesses: int
    trees: int
    leaves: int
    deviation: float


@dataclass(frozen=True)
class Verification:
    """What was checked of two models.

    Attributes:
        method: "certificate", "program" (a complete proof within a solver's tolerance) or "search"
            (no difference was found).
        domain: in words.
        chains: with a certificate only.
        compared: nodes and constants outside of the chains.
        deviation: a bound on |old - new| over the domain, or the largest difference seen.
        output_deviation: whether that is of the model's outputs, or of chains further inside.
        points: at which both models ran, without a certificate.
        tolerance: of a difference, without a certificate.
        seconds: all that took.
        notes: further lines.
    """

    method: str
    domain: str
    chains: tuple[ChainCheck, ...] = ()
    compared: int = 0
    deviation: float = math.nan
    output_deviation: bool = True
    points: int = 0
    tolerance: float = 0.0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def count(self, *proofs: int) -> int:
        """Number of units with such a proof."""
        return sum(n for c in self.chains for (_, proof), n in c.counts.items() if proof in proofs)

    @property
    def solver_claims(self) -> int:
        """Number of units whose verdict rests on a solver."""
        return self.count(SOLVER)


def verify(
    original: str | PathLike[str],
    result: str | PathLike[str],
    certificate: str | PathLike[str] | None = None,
    domain: DomainLike | None = None,
) -> Verification:
    """Checks that the model `result` computes what `original` does over a domain.

    Args:
        original, result: ONNX files.
        certificate: as written by `optimize`; without one, equivalence is tested as far as it goes.
        domain: as for `optimize`; None for the one that the certificate or the metadata of
            `result` names.

    Raises:
        NotVerifiedError: naming the first claim that does not hold, or what cannot be checked.
        DomainError: a domain that does not fit.
    """
    started = time.perf_counter()
    old, new = Model(Path(original)), Model(Path(result))
    if certificate is None:
        from onnx_exact.verifier.search import search

        found = search(old, new, _declared(old, new, domain))
    else:
        found = _by_certificate(old, new, Certificate(Path(certificate)), domain)
    return replace(found, seconds=time.perf_counter() - started)


def _declared(old: Model, new: Model, domain: DomainLike | None) -> Domain:
    """The domain as given, or that of the result's metadata."""
    metadata = {} if new.domain_text is None else {DOMAIN_KEY: new.domain_text}
    found = resolve_domain(domain, old.inputs, metadata)
    if not found.declared:
        raise NotVerifiedError(f"{new.path} names no domain in its metadata; give --domain")
    return found


def _by_certificate(
    old: Model, new: Model, certificate: Certificate, asked: DomainLike | None
) -> Verification:
    for key, model in (("original", old), ("result", new)):
        if certificate.entry(str, key, "sha256") != model.sha256:
            certificate.refuse(f"it is of another {key} than {model.path}")
    domain = _certified_domain(old, new, certificate, asked)
    claimed = float(certificate.entry(float, "deviation", "certified_max_abs"))
    heads = certificate.entry(list, "chains")
    passes = [_Pass(old, new, certificate, domain, number) for number in range(len(heads))]
    certificate.finish()
    compared = compare_outside(old, new, [(p.output, p.first, p.second) for p in passes])
    found = max((p.check.deviation for p in passes), default=0.0)
    rounding = CLAIM_ROUNDING * max((p.largest for p in passes), default=0.0)
    if found > (1.0 + CLAIM_TOLERANCE) * claimed + rounding:
        why = "".join(f": {reason}" for p in passes for reason in p.reasons[:1])
        raise NotVerifiedError(
            f"the certificate claims a deviation of at most {claimed:.6g}, and only {found:.6g} can"
            f" be shown{why}"
        )
    ends = {value.name for value in old.graph.output}
    ends -= {name for node in old.nodes for name in names_read(node)}
    fixed = not all(old.shape(p.output, 2) for p in passes)
    return Verification(
        "certificate",
        words(domain),
        tuple(p.check for p in passes),
        compared,
        found,
        all(p.output in ends for p in passes),
        notes=("Symbolic sizes were taken to be 1: the model fits no other.",) if fixed else (),
    )


class _Pass:
    """One chain, read from both models and checked.

    Attributes:
        output: its last tensor.
        first, second: what it is in the original and in the result.
        check: what was found.
        reasons: what makes the deviation large, in words.
        largest: an upper bound on the magnitude of its outputs.
    """

    def __init__(
        self, old: Model, new: Model, certificate: Certificate, domain: Domain, number: int
    ) -> None:
        head = certificate.entry(list, "chains")[number]
        source, self.output = (certificate.entry(str, key, of=head) for key in ("input", "output"))
        self.first, self.second = (read_chain(model, source, self.output) for model in (old, new))
        if any(old.shape(self.output, size) != new.shape(self.output, size) for size in (1, 2)):
            raise NotVerifiedError(f"{self.output!r} has another shape in {new.path}")
        after = [certificate.entry(list, key, of=head) for key in ("result_widths", "result_relu")]
        if after != list(self.second.shape):
            # What was written anew stays as it was written.
            self.second = read_chain(new, source, self.output, composed=False)
        if after != list(self.second.shape):
            certificate.refuse(f"chain {number} of the result has other widths")
        boxes = domain.boxes.items()
        lower, upper = {n: b.lower for n, b in boxes}, {n: b.upper for n, b in boxes}
        box = input_box(old, source, lower, upper)
        inputs = len(box.lower)
        if any(c.layers[0].weight.shape[1] != inputs for c in (self.first, self.second)):
            raise NotVerifiedError(f"the weights do not fit the input {source!r}")
        claims = read_claims(certificate, number, *self.first.shape, inputs)
        layers = self.first.layers
        balls = Balls(layers)
        checked = check_claims(claims, box, balls, Batches(layers))
        found, self.reasons = deviation(balls, Balls(self.second.layers), claims, checked.ranges)
        self.largest = float(checked.ranges.magnitude(len(layers) - 1).max())
        self.check = ChainCheck(
            f"{source} -> {self.output}",
            checked.counts,
            len(claims.witnesses),
            checked.trees,
            checked.leaves,
            found,
        )


def _certified_domain(
    old: Model, new: Model, certificate: Certificate, asked: DomainLike | None
) -> Domain:
    """The certificate's domain, which has to hold the one asked for and be the result's own."""
    sides = {}
    for name, box in certificate.entry(dict, "domain").items():
        sides[name] = tuple(certificate.entry(object, side, of=box) for side in ("lower", "upper"))
    try:
        domain = resolve_domain(sides, old.inputs, {})
    except (DomainError, RecursionError) as error:
        certificate.refuse(" ".join(str(error).split())[:200])
    others = []
    if new.domain_text is not None:
        own = _declared(old, new, None)
        if any(not _holds(a, b, n) for a, b in ((domain, own), (own, domain)) for n in own.boxes):
            certificate.refuse("its domain is not the one in the metadata of the result")
        others.append(own)
    if asked is not None and asked != []:
        others.append(resolve_domain(asked, old.inputs, {}))
    for other in others:
        for name in other.boxes:
            if not _holds(domain, other, name):
                certificate.refuse(f"its domain is smaller than the one asked for, in {name!r}")
    return domain


def words(domain: Domain) -> str:
    """A domain in a few words."""
    parts = []
    for name, box in domain.boxes.items():
        same = (box.lower == box.lower.flat[0]).all() and (box.upper == box.upper.flat[0]).all()
        low, high = box.lower.min(), box.upper.max()
        every = "" if same else f"a box of {box.lower.size} sides within "
        parts.append(f"{name!r} in {every}[{low:g}, {high:g}]")
    return ", ".join(parts)


def _holds(outer: Domain, inner: Domain, name: str) -> bool:
    a, b = outer.boxes[name], inner.boxes[name]
    return bool((a.lower <= b.lower).all() and (a.upper >= b.upper).all())
