"""Checks by a certificate that OUT.onnx computes what IN.onnx does over a domain.

Shares nothing with what decides and reduces but the reading of `--domain`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from onnx_exact.domains import DOMAIN_KEY, Domain, DomainLike, resolve_domain
from onnx_exact.errors import DomainError, NotVerifiedError, UncheckedError
from onnx_exact.verifier.chain import read_chain, read_constant
from onnx_exact.verifier.channels import without_channels
from onnx_exact.verifier.claims import check_claims
from onnx_exact.verifier.clock import Clock
from onnx_exact.verifier.coverage import (
    Pair,
    compare_outside,
    compare_signatures,
    require_steady_sizes,
)
from onnx_exact.verifier.cutting import Cut
from onnx_exact.verifier.deviation import compare, deviation
from onnx_exact.verifier.front import Front
from onnx_exact.verifier.model import Model
from onnx_exact.verifier.products import Products
from onnx_exact.verifier.refusals import require, require_known
from onnx_exact.verifier.schema import Certificate, ClaimsReader

# By how much a claimed deviation may fall short of the one that is found here.
CLAIM_TOLERANCE = 0.01
# The same as a share of the largest output: float64 sums in another order.
CLAIM_ROUNDING = 1e-12


@dataclass(frozen=True)
class ChainCheck:
    """What was checked of one chain.

    Attributes:
        name: its boundaries.
        output: where it ends.
        counts: of its units, by status and proof of the certificate.
        witnesses, trees, leaves: how many were checked.
        deviation: a bound on |old - new| at its output, over the domain, in real arithmetic.
        largest: an upper bound on the magnitude of its outputs.
        missing: what makes the deviation large, in words.
    """

    name: str
    output: str
    counts: Counter[tuple[int, int]]
    witnesses: int
    trees: int
    leaves: int
    deviation: float
    largest: float
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Checked:
    """What was checked of two models.

    Attributes:
        domain: over which.
        channels: how many tensors lost some, which were shown to be 0 or not to be read.
        chains: in the order of the graph.
        compared: nodes and constants outside of them.
        deviation: a bound on |old - new| at the outputs of all chains, over the domain.
    """

    domain: Domain
    channels: int
    chains: tuple[ChainCheck, ...]
    compared: int
    deviation: float


def check(
    old: Model, new: Model, certificate: Certificate, asked: DomainLike | None, clock: Clock
) -> Checked:
    """Checks everything that a certificate says.

    Args:
        old, new: the models.
        certificate: of the two.
        asked: the domain over which they have to agree; None for that of the certificate.
        clock: when to stop.

    Raises:
        NotVerifiedError: naming the first claim that does not hold.
        UncheckedError: what cannot be checked.
        DomainError: a domain that does not fit.
    """
    for key, model in (("original", old), ("result", new)):
        certificate.require(
            certificate.entry(str, key, "sha256") == model.sha256,
            f"it is of another {key} than {model.name}",
        )
    compare_signatures(old, new)
    domain = _certified_domain(old, new, certificate, asked)
    cuts, chains = _cuts(certificate), certificate.entries(dict, "chains", of=certificate.header)
    for model in (old, new) if cuts or chains else ():
        require_steady_sizes(model)
    if cuts:
        old = without_channels(old, new, cuts, _front(old, domain))
    claimed = float(certificate.entry(float, "deviation", "certified_max_abs"))
    pairs = [_pair(old, new, certificate, chain) for chain in chains]
    compared = compare_outside(old, new, pairs)
    front = _front(old, domain)
    order = sorted(range(len(pairs)), key=lambda i: old.producer[pairs[i].output])
    passes = [_checked(pairs[i], front, certificate, i, clock) for i in order]
    certificate.finish()
    found = max((p.deviation for p in passes), default=0.0)
    rounding = CLAIM_ROUNDING * max((p.largest for p in passes), default=0.0)
    if found > (1.0 + CLAIM_TOLERANCE) * claimed + rounding:
        why = "".join(f": {reason}" for p in passes for reason in p.missing[:1])
        raise UncheckedError(
            f"the certificate claims a deviation of at most {claimed:.6g}, and only {found:.6g} can"
            f" be shown{why}"
        )
    return Checked(domain, len(cuts), tuple(passes), compared, found)


def _front(model: Model, domain: Domain) -> Front:
    """Intervals of a model's tensors over a domain."""
    return Front(model, {name: (box.lower, box.upper) for name, box in domain.boxes.items()})


def _cuts(certificate: Certificate) -> dict[str, Cut]:
    """The channels that stay, by the tensor that lost others."""
    found: dict[str, Cut] = {}
    if "channels" in certificate.header:
        for number, head in enumerate(certificate.entries(dict, "channels", certificate.header)):
            tensor, axis = certificate.entry(str, "tensor", of=head), head.get("axis")
            proper = type(axis) is int and axis >= 0 and tensor not in found
            certificate.require(proper, f"its header has no proper channels of {tensor!r}")
            found[tensor] = Cut(axis, certificate.array(f"k{number}_kept", "kept"))
    return found


def _pair(old: Model, new: Model, certificate: Certificate, head: object) -> Pair:
    """A chain of the certificate as it is in both models."""
    source, output = (certificate.entry(str, key, of=head) for key in ("input", "output"))
    widths = certificate.entries(int, "result_widths", of=head)
    relu = certificate.entries(bool, "result_relu", of=head)
    return read_pair(old, new, source, output, (widths, relu))


def read_pair(
    old: Model, new: Model, source: str, output: str, form: tuple[list[int], list[bool]]
) -> Pair:
    """A chain between two tensors as it is in both models, in the new one with layers like these.

    Raises:
        UncheckedError: it cannot be read in one of them, or has other layers.
        NotVerifiedError: the two do not lie at the same entries of the same tensors.
    """
    # Open sizes are those with which the original runs, whatever still tells them in the result.
    new.told = {**new.told, **old.told}
    first = read_chain(old, source, output)
    second = read_constant(new, source, output, first) or read_chain(new, source, output)
    if second.form != form:
        # What was written anew stays as it was written.
        second = read_chain(new, source, output, composed=False)
    # Which products of matrices count as one layer is a matter of reading.
    require_known(
        second.form == form,
        f"the layers to {output!r} in {new.name} are not those that the certificate names",
    )
    require(
        (first.before, first.after) == (second.before, second.after),
        f"{new.name} reads or lays out other entries than {old.name} does",
    )
    # What a graph's input is stands in its signature, which is the same.
    for tensor in sorted({source, output} - {value.name for value in old.graph.input}):
        require(
            (old.shapes(tensor), old.elem_type(tensor))
            == (new.shapes(tensor), new.elem_type(tensor)),
            f"{tensor!r} has another shape or type in {new.name}",
        )
    return Pair(source, output, first, second)


def _checked(
    pair: Pair, front: Front, certificate: Certificate, number: int, clock: Clock
) -> ChainCheck:
    """One chain; what lies behind it is bounded by what was found."""
    box, whole = front.features(pair.source, pair.old.before), front.takes_all(pair.source)
    reader = ClaimsReader(certificate, number, *pair.old.form, pair.old.before.features)
    box = box if whole else reader.box(box)
    claims = reader.claims()
    old, new = Products(pair.old.layers), Products(pair.new.layers)
    checked = check_claims(claims, box, whole, old, clock)
    clock.spend()
    compared = compare(old, new, claims, checked.ranges)
    apart = deviation(compared)
    outputs = checked.ranges.outputs(len(pair.old.layers) - 1)
    front.learn(pair.output, pair.old.after, outputs, apart)
    return ChainCheck(
        f"{pair.source} -> {pair.output}",
        pair.output,
        checked.counts,
        len(claims.witnesses),
        len(claims.trees),
        checked.leaves,
        float(apart.max(initial=0.0)),
        float(np.abs(outputs).max()),
        tuple(compared.missing),
    )


def declared_domain(old: Model, new: Model, asked: DomainLike | None) -> Domain:
    """The domain as asked for, or that of the result's metadata.

    Raises:
        UncheckedError: there is neither.
        DomainError: it does not fit.
    """
    metadata = {} if new.domain_text is None else {DOMAIN_KEY: new.domain_text}
    found = resolve_domain(asked, old.inputs, metadata)
    require_known(
        found.declared or not found.boxes,
        f"{new.name} names no domain in its metadata; give --domain",
    )
    return found


def _certified_domain(
    old: Model, new: Model, certificate: Certificate, asked: DomainLike | None
) -> Domain:
    """The certificate's domain, which has to hold the one asked for and be the result's own."""
    sides = {
        name: tuple(certificate.entry(object, side, of=box) for side in ("lower", "upper"))
        for name, box in certificate.entry(dict, "domain").items()
    }
    try:
        domain = resolve_domain(sides, old.inputs, {})
    except (DomainError, RecursionError) as error:
        raise NotVerifiedError(
            f"{certificate.path}: {' '.join(str(error).split())[:200]}"
        ) from error
    if new.domain_text is not None:
        own = declared_domain(old, new, None)
        certificate.require(
            all(_holds(a, b, n) for a, b in ((domain, own), (own, domain)) for n in own.boxes),
            f"its domain is not the one in the metadata of {new.name}",
        )
    if asked is not None and asked != []:
        wanted = resolve_domain(asked, old.inputs, {})
        for name in wanted.boxes:
            require_known(
                _holds(domain, wanted, name),
                f"the domain of {certificate.path} is smaller than the one asked for, in {name!r}",
            )
    return domain


def _holds(outer: Domain, inner: Domain, name: str) -> bool:
    a, b = outer.boxes[name], inner.boxes[name]
    return bool((a.lower <= b.lower).all() and (a.upper >= b.upper).all())
