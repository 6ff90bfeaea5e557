"""Between the pipeline and the room that certifies: proofs of a run's verdicts, their record."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnx_exact.certify.bounds import Bounds
from onnx_exact.certify.certificate import (
    Certificate,
    ChainRecord,
    FileMark,
    write_certificate,
)
from onnx_exact.certify.lift import lifted
from onnx_exact.certify.proof import ChainProof
from onnx_exact.certify.prove import prove_chain
from onnx_exact.certify.summary import Certified, certify_chain
from onnx_exact.decide.verdict import Evidence, LayerVerdicts, Stability, Status
from onnx_exact.errors import DomainError, OutputError
from onnx_exact.graph.plain import is_plain
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.reduce import Reduction
from onnx_exact.runtime.deadline import Deadline
from onnx_exact.stages.run import Allowance, Run

# A certificate stays below four times the model: what its splittings and witnesses may take at
# most, slopes and verdicts coming on top.
MOST_PROOF = 3.0
# Within this many times the deviation that is claimed `verify` finds its own bound.
CHECKED = 1.02


def prove(
    chain: Chain,
    box: Box,
    stability: Stability,
    nbytes: int,
    deadline: Deadline,
) -> tuple[Stability, ChainProof]:
    """The verdicts on a chain that a certificate can record, and their proofs.

    What its evidence does not prove, or only evidence that is too large to give, is UNDECIDED.

    Args:
        chain, box, stability: as decided.
        nbytes: size of the model.
        deadline: by when proofs have to end.
    """
    proof = prove_chain(chain, box, stability, deadline, MOST_PROOF * nbytes)
    layers = tuple(
        _recorded(index, verdicts, proof) for index, verdicts in enumerate(stability.layers)
    )
    low, high = proof.bounds.outputs(len(layers) - 1)
    return replace(stability, layers=layers, output_lower=low, output_upper=high), proof


def _recorded(
    index: int, verdicts: LayerVerdicts | None, proof: ChainProof
) -> LayerVerdicts | None:
    """The verdicts of one layer as the certificate has them."""
    found = proof.layers[index]
    if verdicts is None or found is None:
        return None
    evidence = np.where(verdicts.evidence == Evidence.SOLVER, Evidence.LINEAR, verdicts.evidence)
    unproved = found.status == Status.UNDECIDED
    return replace(
        verdicts,
        status=found.status,
        evidence=np.where(unproved, Evidence.NONE, evidence).astype(np.int8),
        lower=proof.bounds.lower[index],
        upper=proof.bounds.upper[index],
    )


def bounds_of(chain: Chain, box: Box, stability: Stability, proof: ChainProof | None) -> Bounds:
    """The bounds that a reduction rests on: those that are proved where there is a proof."""
    return Bounds.of(chain, stability, box) if proof is None else proof.bounds


def lift(
    run: Run, place: int, reduction: Reduction, exact: frozenset[int] = frozenset()
) -> Reduction:
    """The reduction of a chain with new linear units lifted as far as their own bounds need it.

    Nothing is rounded in the layers `exact`, and nowhere with a deviation of 0.
    """
    located, where, stability = run.chains[place]
    bounds = bounds_of(located.chain, where.box, stability, run.proofs[place])
    if run.settings.max_deviation == 0.0:
        exact = frozenset(range(len(located.chain.layers)))
    return lifted(bounds, where.box, reduction, located.dtype, run.limit.until("reduce"), exact)


def certify(run: Run, place: int, reduction: Reduction) -> Certified:
    """What is certain of the deviation of a new chain."""
    located, where, stability = run.chains[place]
    bounds = bounds_of(located.chain, where.box, stability, run.proofs[place])
    plain = is_plain(run.source.model, located)
    numbers = certify_chain(
        *(bounds, where.box, reduction, located.dtype, plain),
        lambda: run.limit.require("certify"),
    )
    outputs = [output.name for output in run.source.model.graph.output]
    whole = outputs == [located.output] and len(run.chains) == 1
    return Certified(numbers[0], located.output, whole, *numbers[1:])


def exceeds(found: Certified, allowed: Allowance) -> bool:
    """Whether a new chain may be further off than is allowed."""
    most = np.inf if found.max_abs is None else found.max_abs
    return allowed.deviation < np.inf and not CHECKED * most <= allowed.deviation


def refuse_infinite(box: Box, what: str) -> None:
    """Raises unless a certificate can speak about the box.

    Raises:
        DomainError: a side is infinite.
    """
    if not box.finite:
        raise DomainError(
            f"a certificate needs a finite domain, and {what} is unbounded; give one with --domain"
        )


def mark_of(file: bytes | Path) -> FileMark:
    """The mark of a file, or of its bytes."""
    data = file.read_bytes() if isinstance(file, Path) else file
    return FileMark(hashlib.sha256(data).hexdigest(), len(data))


def write_record(
    run: Run,
    reductions: Sequence[Reduction],
    found: Certified | None,
    original: FileMark,
    result: FileMark,
    path: Path,
) -> None:
    """Writes the certificate of a run.

    Args:
        run: whose chains have been proved.
        reductions: of these.
        found: by `certified`.
        original, result: the files.
        path: where it goes.

    Raises:
        OutputError: it cannot be written, or there is no bound on the deviation to write.
    """
    max_abs = 0.0 if found is None else found.max_abs
    if max_abs is None:
        raise OutputError(f"the certificate {path} cannot be written: no bound on the deviation")
    chains = tuple(
        ChainRecord(
            *(located.input, located.output, located.chain, reduction.chain),
            *(proof, reduction.origins, reduction.gone, allowed.box),
        )
        for (located, _, _), proof, reduction, allowed in zip(
            run.chains, run.proofs, reductions, run.allowed, strict=True
        )
        if proof is not None
    )
    channels = {} if run.narrowed is None else run.narrowed.cuts
    certificate = Certificate(original, result, run.domain.to_json(), max_abs, chains, channels)
    write_certificate(certificate, path)
