"""Reads a model, and decides the units of all its chains, one chain after another."""

from __future__ import annotations

import os
import time
from dataclasses import replace

from onnx import ModelProto

from onnx_exact.certify.proof import ChainProof
from onnx_exact.certify.rounding import outputs_as_run
from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Stability, Status
from onnx_exact.domains import domain_of_run
from onnx_exact.graph.locate import LocatedChain
from onnx_exact.graph.metadata import first_source, metadata_of
from onnx_exact.graph.plain import is_plain
from onnx_exact.graph.ranges import ChainDomain, Ranges
from onnx_exact.graph.read import inputs_of, read_model
from onnx_exact.inputs.samples import Samples, load_samples
from onnx_exact.network.affine import Array
from onnx_exact.runtime.deadline import Deadline
from onnx_exact.runtime.limit import TimeLimit
from onnx_exact.settings import Settings
from onnx_exact.stages.certified import prove, refuse_infinite
from onnx_exact.stages.estimate import expected_seconds
from onnx_exact.stages.narrowed import held_by_blocks, narrowed
from onnx_exact.stages.predecide import decide_chain
from onnx_exact.stages.run import Allowance, Run

ModelLike = ModelProto | str | os.PathLike[str]


def decide(model: ModelLike, settings: Settings, *, reducing: bool) -> Run:
    """Reads a model and decides the units of all its chains, to reduce it or to tell of them."""
    limit = TimeLimit(settings.time_limit)
    seconds: dict[str, float] = {}
    started = time.monotonic()
    settings.progress.stage("read")
    source = read_model(model)
    inputs = inputs_of(source.model)
    metadata = metadata_of(source.model)
    first = first_source(metadata, source.sha256, rebase=settings.rebase)
    domain = domain_of_run(settings.domain, inputs, metadata, rebase=settings.rebase)
    samples = None
    if settings.samples is not None:
        samples = load_samples(settings.samples, inputs, domain)
    ranges = Ranges(source.model, domain.boxes, checked=settings.certificate is not None)
    cut, seen = None, None
    if reducing:
        source, cut, seen = narrowed(source, inputs, domain, ranges, settings)
        if cut is not None:
            checked = settings.certificate is not None
            ranges = Ranges(source.model, domain.boxes, checked=checked)
    located = ranges.chains
    seconds["read"] = time.monotonic() - started
    run = Run(settings, source, inputs, domain, first, samples, (), (), (), limit, seconds)
    blocked = held_by_blocks(source.model, ranges, settings, cut) if reducing else 0
    run = replace(run, narrowed=cut, seen=seen, held_by_blocks=blocked)
    if settings.certificate is not None:
        for name, box in domain.boxes.items():
            refuse_infinite(box, f"the input {name!r}")
    if settings.time_limit is not None and reducing:
        networks = [chain.chain for chain in located]
        proving = settings.certificate is not None
        limit.expect(expected_seconds(networks, seconds["read"], proving=proving))
    checkable = None
    if settings.certificate is not None:
        # It knows the checker, which no other run needs.
        from onnx_exact.stages.checkable import Checkable

        checkable = Checkable(source, domain, located, settings.max_deviation)
    chains, proofs, allowed = [], [], []
    interrupted = False
    for chain in located:
        where, allows = ranges.chain_domain(chain), Allowance()
        if checkable is not None:
            where, allows = checkable.around(chain, where)
        stability, proof = _decide_chain(run, chain, where, interrupted, bool(allows.reason))
        if checkable is not None and proof is not None:
            allows = checkable.learn(chain, where, proof, allows)
            proof = None if allows.reason else proof
        if chain is not located[-1] and is_plain(source.model, chain):
            # A chain behind it gets what a runtime computes.
            outputs = outputs_as_run(chain.chain, stability, where.box, chain.dtype)
            ranges.assume(chain.output, *outputs)
        chains.append((chain, where, stability))
        proofs.append(proof)
        allowed.append(allows)
        interrupted |= stability.interrupted
    return replace(
        run,
        chains=tuple(chains),
        proofs=tuple(proofs),
        allowed=tuple(allowed),
        left_out=ranges.left_out(),
    )


def _decide_chain(
    run: Run,
    chain: LocatedChain,
    where: ChainDomain,
    interrupted: bool,
    stays: bool,
) -> tuple[Stability, ChainProof | None]:
    """Decides the units of one chain, and proves the verdicts once more where that is wanted.

    Args:
        run: so far.
        chain, where: to decide, and its domain.
        interrupted: whether the user ended the deciding before.
        stays: whether it stays as it is, so that its bounds are all there is to know.
    """
    settings, limit = run.settings, run.limit
    proving = limit.until("prove")
    deciding = Deadline(0.0) if interrupted else limit.until("decide")
    options = Options(
        method="bounds" if stays else settings.method,
        deadline=deciding,
        seed=settings.seed,
        jobs=settings.jobs,
        lp_solver=settings.lp_solver,
        trust_solver=settings.trust_solver,
        progress=settings.progress.stage,
        latest=limit.until("reduce"),
    )
    points = _chain_points(where, run.samples)
    with run.stage("decide"):
        stability = decide_chain(
            analyze_chain, chain.chain, where.box, chain.dtype, options, points
        )
    if stability.count(Status.UNDECIDED) and not interrupted and deciding.passed:
        limit.cut("decide")
    if settings.certificate is None or stays:
        return stability, None
    with run.stage("prove"):
        found = prove(chain.chain, where.box, stability, run.source.nbytes, proving)
    if proving.passed:
        limit.cut("prove")
    return found


def _chain_points(where: ChainDomain, samples: Samples | None) -> Array | None:
    """The user's points as the chain sees them, where it hangs on a graph's input directly."""
    if samples is None or where.origin is None or where.origin.input not in samples.rows:
        return None
    return where.origin.to_chain(samples.rows[where.origin.input])
