"""The straight line from a model to a smaller one: read, decide, reduce, validate, write."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto

from onnx_exact._version import __version__
from onnx_exact.certified import (
    certified,
    lift,
    mark_of,
    prove,
    refuse_infinite,
    write_record,
)
from onnx_exact.certify.certificate import FileMark
from onnx_exact.certify.proof import ChainProof
from onnx_exact.certify.summary import Certified
from onnx_exact.counterexample import save_beside
from onnx_exact.deadline import Deadline
from onnx_exact.domains import DOMAIN_KEY, resolve_domain
from onnx_exact.errors import ValidationError
from onnx_exact.graph.batch import is_runnable, with_any_batch
from onnx_exact.graph.kept import not_kept
from onnx_exact.graph.locate import LocatedChain, locate_chains
from onnx_exact.graph.metadata import metadata_of, stamp
from onnx_exact.graph.ranges import ChainDomain, Ranges
from onnx_exact.graph.read import inputs_of, read_model, readable
from onnx_exact.graph.splice import splice
from onnx_exact.graph.write import copy_unchanged, write_model
from onnx_exact.network.affine import Array
from onnx_exact.outputs import Outputs, appearing, reported
from onnx_exact.paths import check_output, check_report
from onnx_exact.reduce import ReduceOptions, Reduction, reduce_chain
from onnx_exact.report.assemble import assemble
from onnx_exact.report.report import ANALYZE, OPTIMIZE, Report
from onnx_exact.run import Run, Settings
from onnx_exact.samples import Samples, load_samples
from onnx_exact.stability.decide import Options, analyze_chain
from onnx_exact.stability.verdict import Stability
from onnx_exact.validate import Deviation, validate

ModelLike = ModelProto | str | os.PathLike[str]


def optimize(model: ModelLike, **settings: Any) -> tuple[ModelProto, Report]:
    """Makes a model smaller without changing what it computes over its domain.

    Args:
        model: a file name or a model; neither is changed.
        **settings: the fields of `Settings`: `domain`, `method`, `time_limit` (seconds),
            `samples`, `reductions`, `max_deviation`, `form`, `rtol`, `atol`, `seed`,
            `trust_solver`, `certificate` (a file name), `progress`. A certificate speaks of the
            bytes of `SerializeToString`.

    Returns:
        The new model and what was proved and changed. A model that could not be made smaller
        comes back as it was.

    Raises:
        OnnxExactError: one line that names what is wrong and the way out.
    """
    chosen = Settings(**settings)
    if chosen.certificate is not None:
        check_report(Path(chosen.certificate), _files(model), "certificate")
    run = _decide(model, chosen)
    reductions = _reduce(run)
    new = _rewrite(run, reductions)
    found = _certify(run, reductions)
    deviation = None
    if new is None:
        new, size = ModelProto(), run.source.nbytes
        new.CopyFrom(run.source.model)
        after = new.SerializeToString()
    else:
        after = new.SerializeToString()
        size = len(after)
        with run.stage("validate"):
            deviation = _validate(run, *_runnable(run, new))
    with appearing() as outputs:
        _record(run, reductions, found, mark_of(after), outputs)
    lost = not_kept(run.source.model, new)
    return new, assemble(run, OPTIMIZE, reductions, deviation, size, found, lost)


def optimize_file(
    model: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    in_place: bool = False,
    deliver: Callable[[Report, Outputs], None] | None = None,
    **settings: Any,
) -> Report:
    """As `optimize`, from file to file; `target` appears only once it has been validated.

    Args:
        model: the file to read.
        target: the file to write; links are followed.
        in_place: allows `target` to be `model`.
        deliver: called with the report before anything appears: what it writes appears together
            with the model, and where it raises nothing does.
        **settings: as for `optimize`.

    Raises:
        OnnxExactError: one line; no file is written, but for the input that shows a deviation.
    """
    path = Path(target)
    check_output(Path(model), path, in_place=in_place)
    chosen = Settings(**settings)
    if chosen.certificate is not None:
        check_report(Path(chosen.certificate), (Path(model), path), "certificate")
    run = _decide(model, chosen)
    reductions = _reduce(run)
    new = _rewrite(run, reductions)
    found = _certify(run, reductions)
    with appearing() as outputs:
        size, deviation = _write(run, new, path, reductions, found, outputs)
        lost = () if new is None else not_kept(run.source.model, new)
        report = assemble(run, OPTIMIZE, reductions, deviation, size, found, lost)
        if deliver is not None:
            deliver(report, outputs)
    return report


def _write(
    run: Run,
    new: ModelProto | None,
    path: Path,
    reductions: list[Reduction],
    found: Certified | None,
    outputs: Outputs,
) -> tuple[int, Deviation | None]:
    """Writes what will appear at `path` and its certificate; its size, and what validation saw."""
    assert run.source.path is not None
    if new is None:
        with run.stage("write"):
            copy_unchanged(run.source, path, outputs)
            _record(run, reductions, found, mark_of(run.source.path), outputs)
        return run.source.nbytes, None
    seen: list[Deviation] = []

    def check(candidate: Path) -> None:
        with run.stage("validate"):
            seen.append(_validate(run, *_runnable(run, new, candidate)))
        _record(run, reductions, found, mark_of(candidate), outputs)

    with run.stage("write"):
        try:
            size = write_model(new, path, source=run.source, outputs=outputs, check=check)
        except ValidationError as error:
            save_beside(error, path)
            raise
    run.seconds["write"] -= run.seconds["validate"]
    return size, seen[0]


def analyze(model: ModelLike, **settings: Any) -> Report:
    """Decides the ReLU units of a model and changes nothing.

    Args and errors are those of `optimize`.
    """
    return assemble(_decide(model, Settings(**settings)), ANALYZE)


def _decide(model: ModelLike, settings: Settings) -> Run:
    """Reads a model and decides the units of all its chains."""
    deadline = Deadline(settings.time_limit)
    seconds: dict[str, float] = {}
    started = time.monotonic()
    settings.progress.stage("read")
    source = read_model(model)
    inputs = inputs_of(source.model)
    domain = resolve_domain(settings.domain, inputs, metadata_of(source.model))
    samples = None
    if settings.samples is not None:
        samples = load_samples(settings.samples, inputs, domain)
    located = locate_chains(source.model)
    ranges = Ranges(source.model, domain.boxes)
    seconds["read"] = time.monotonic() - started
    run = Run(settings, source, inputs, domain, samples, (), (), seconds)
    if settings.certificate is not None:
        for name, box in domain.boxes.items():
            refuse_infinite(box, f"the input {name!r}")
    chains, proofs = [], []
    for number, chain in enumerate(located):
        where = ranges.chain_domain(chain)
        if settings.certificate is not None:
            refuse_infinite(where.box, f"the input {chain.input!r} of a chain")
        # The time that is left is shared out evenly among the chains that are left.
        share = Deadline(deadline.remaining / (len(located) - number))
        stability, proof = _decide_chain(run, chain, where, share)
        ranges.assume(chain.output, stability.output_lower, stability.output_upper)
        chains.append((chain, where, stability))
        proofs.append(proof)
        if stability.interrupted:
            deadline = Deadline(0.0)
    return replace(run, chains=tuple(chains), proofs=tuple(proofs))


def _decide_chain(
    run: Run, chain: LocatedChain, where: ChainDomain, deadline: Deadline
) -> tuple[Stability, ChainProof | None]:
    """Decides the units of one chain, and proves the verdicts once more where that is wanted."""
    settings = run.settings
    options = Options(
        method=settings.method,
        deadline=deadline,
        seed=settings.seed,
        jobs=settings.jobs,
        lp_solver=settings.lp_solver,
        trust_solver=settings.trust_solver,
        progress=settings.progress.stage,
    )
    points = _chain_points(where, run.samples)
    with run.stage("decide"):
        stability = analyze_chain(chain.chain, where.box, options, points)
    if settings.certificate is None:
        return stability, None
    with run.stage("prove"):
        spent = run.seconds["decide"]
        return prove(chain.chain, where.box, stability, run.source.nbytes, spent)


def _certify(run: Run, reductions: list[Reduction]) -> Certified | None:
    """Bounds the deviation of the new chains."""
    with run.stage("certify"):
        return certified(run, reductions)


def _record(
    run: Run,
    reductions: list[Reduction],
    found: Certified | None,
    result: FileMark,
    outputs: Outputs,
) -> None:
    """Writes the certificate, if one is wanted."""
    if run.certificate is not None:
        original = FileMark(run.source.sha256, run.source.nbytes)
        if run.source.path is not None:
            original = mark_of(run.source.path)
        with reported(run.certificate):
            path = outputs.place(run.certificate)
        write_record(run, reductions, found, original, result, path)


def _reduce(run: Run) -> list[Reduction]:
    """Reduces every chain by its verdicts."""
    settings = run.settings
    options = ReduceOptions(settings.reductions, settings.max_deviation, settings.form)
    with run.stage("reduce"):
        reductions = [
            reduce_chain(
                located.chain, stability, where.box, located.dtype, options, located.folded
            )
            for located, where, stability in run.chains
        ]
    with run.stage("certify"):
        return lift(run, reductions)


def _rewrite(run: Run, reductions: list[Reduction]) -> ModelProto | None:
    """The model with every reduced chain in its place, or None where nothing changed."""
    replacements = [
        (located, reduction.network)
        for (located, _, _), reduction in zip(run.chains, reductions, strict=True)
        if reduction.changed
    ]
    if not replacements:
        return None
    with run.stage("rewrite"):
        new = splice(run.source.model, replacements)
        stamp(new, _provenance(run))
    return new


def _provenance(run: Run) -> dict[str, str]:
    """What a changed model says of itself: where it is valid and what it was made from, how."""
    options = {
        "method": run.settings.method,
        "reductions": run.settings.reductions,
        "max_deviation": run.settings.max_deviation,
        "form": run.settings.form,
        "seed": run.settings.seed,
    }
    if run.settings.time_limit is not None:
        options["time_limit"] = run.settings.time_limit
    return {
        DOMAIN_KEY: json.dumps(run.domain.to_json()),
        "onnx_exact.version": __version__,
        "onnx_exact.options": json.dumps(options),
        "onnx_exact.source_sha256": run.source.sha256,
    }


def _runnable(
    run: Run, new: ModelProto, file: Path | None = None
) -> tuple[bytes | Path, bytes | Path]:
    """The model before and the one after, which may be in a file, as onnxruntime takes them."""
    if is_runnable(run.source.model):
        return readable(run.source.model, run.source.path), readable(new, file)
    before, after = (readable(with_any_batch(model), None) for model in (run.source.model, new))
    return before, after


def _validate(run: Run, before: bytes | Path, after: bytes | Path) -> Deviation:
    """Compares both models in onnxruntime, at the user's points and every witness too."""
    extra: list[Mapping[str, NDArray[Any]]] = []
    if run.samples is not None:
        extra.append(run.samples.rows)
    for _, where, stability in run.chains:
        points = stability.witnesses
        if where.origin is not None and len(points):
            extra.append({where.origin.input: where.origin.to_graph(points)})
    settings = run.settings
    return validate(
        before,
        after,
        run.inputs,
        run.domain,
        extra=extra,
        rtol=settings.rtol,
        atol=settings.atol,
        seed=settings.seed,
    )


def _files(model: ModelLike) -> tuple[Path, ...]:
    """The file a model is read from, if it is one."""
    return () if isinstance(model, ModelProto) else (Path(model),)


def _chain_points(where: ChainDomain, samples: Samples | None) -> Array | None:
    """The user's points as the chain sees them, where it hangs on a graph's input directly."""
    if samples is None or where.origin is None or where.origin.input not in samples.rows:
        return None
    return where.origin.to_chain(samples.rows[where.origin.input])
