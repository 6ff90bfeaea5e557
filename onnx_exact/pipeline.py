"""The straight line from a model to a smaller one: read, decide, reduce, validate, write."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto

from onnx_exact.certified import (
    CHECKED,
    certify,
    exceeds,
    lift,
    mark_of,
    write_record,
)
from onnx_exact.certify.certificate import FileMark
from onnx_exact.certify.summary import Certified, worst
from onnx_exact.counterexample import save_beside
from onnx_exact.deciding import decide
from onnx_exact.errors import ValidationError
from onnx_exact.graph.batch import runnable
from onnx_exact.graph.kept import not_kept
from onnx_exact.graph.metadata import (
    stamp,
    with_metadata,
)
from onnx_exact.graph.plain import is_plain
from onnx_exact.graph.splice import splice
from onnx_exact.graph.write import copy_unchanged, write_model
from onnx_exact.meaningful import meaningful, observed_range
from onnx_exact.outputs import Outputs, appearing, reported
from onnx_exact.paths import check_output, check_report
from onnx_exact.provenance import copied_metadata, provenance
from onnx_exact.reduce import ReduceOptions, Reduction, reduce_chain
from onnx_exact.report.assemble import assemble
from onnx_exact.report.report import ANALYZE, OPTIMIZE, Report
from onnx_exact.run import Run, Settings
from onnx_exact.validate import Deviation, Rewritten, validate

ModelLike = ModelProto | str | os.PathLike[str]


def optimize(model: ModelLike, **settings: Any) -> tuple[ModelProto, Report]:
    """Makes a model smaller without changing what it computes over its domain.

    Args:
        model: a file name or a model; neither is changed.
        **settings: the fields of `Settings`: `domain`, `rebase`, `method`, `time_limit` (seconds
            for everything), `samples`, `reductions`, `max_deviation`, `goal`, `rtol`, `atol`,
            `seed`, `trust_solver`, `certificate` (a file name), `progress`. A certificate speaks
            of the bytes of `SerializeToString`.

    Returns:
        The new model and what was proved and changed. A model that could not be made smaller
        comes back as it was, with the domain in its metadata.

    Raises:
        OnnxExactError: one line that names what is wrong and the way out.
    """
    chosen = Settings(**settings)
    if chosen.certificate is not None:
        check_report(Path(chosen.certificate), _files(model), "certificate")
    run = decide(model, chosen, OPTIMIZE)
    reductions, bounds, new = _reduce_and_rewrite(run)
    found = worst(bounds)
    deviation = None
    if new is None:
        new = ModelProto()
        new.CopyFrom(run.source.model)
        stamp(new, copied_metadata(run))
        after = new.SerializeToString()
    else:
        after = new.SerializeToString()
        with run.stage("validate"):
            deviation = _validate(run, _rewritten(run, reductions, bounds), new, None)
    size = len(after)
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
    run = decide(model, chosen, OPTIMIZE)
    reductions, bounds, new = _reduce_and_rewrite(run)
    with appearing() as outputs:
        size, deviation = _write(run, new, path, reductions, bounds, outputs)
        lost = () if new is None else not_kept(run.source.model, new)
        report = assemble(run, OPTIMIZE, reductions, deviation, size, worst(bounds), lost)
        if deliver is not None:
            deliver(report, outputs)
    return report


def _write(
    run: Run,
    new: ModelProto | None,
    path: Path,
    reductions: list[Reduction],
    bounds: list[Certified],
    outputs: Outputs,
) -> tuple[int, Deviation | None]:
    """Writes what will appear at `path` and its certificate; its size, and what validation saw."""
    assert run.source.path is not None
    found = worst(bounds)
    if new is None:
        own = run.source.path.read_bytes()
        entries = copied_metadata(run)
        copied = with_metadata(own, entries) if entries else own
        with run.stage("write"):
            _record(run, reductions, found, mark_of(copied), outputs)
            copy_unchanged(run.source, path, outputs, copied if entries else None)
        return run.source.nbytes + len(copied) - len(own), None
    seen: list[Deviation] = []

    def check(candidate: Path) -> None:
        with run.stage("validate"):
            chains = _rewritten(run, reductions, bounds)
            seen.append(_validate(run, chains, new, candidate))
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
    return assemble(decide(model, Settings(**settings), ANALYZE), ANALYZE)


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


def _reduce_and_rewrite(
    run: Run,
) -> tuple[list[Reduction], list[Certified], ModelProto | None]:
    """The reductions, bounds on how far they are off, and the new model, None where it is none.

    With a certificate every chain is one that the checker reads there.
    """
    reductions, bounds = _reduce(run)
    while True:
        new = _rewrite(run, reductions)
        if new is None or run.certificate is None:
            return reductions, bounds, new
        # It knows the checker, which no other run needs.
        from onnx_exact.checkable import unreadable

        chains = zip(run.chains, reductions, strict=True)
        replaced = {k: (c[0], r.chain) for k, (c, r) in enumerate(chains) if r.changed}
        refused = unreadable(run.source, new, replaced)
        if not refused:
            return reductions, bounds, new
        for place, why in refused.items():
            reason = f"no certificate can speak of what it would be: {why}"
            reductions[place], bounds[place] = _unchanged(run, place, reason)


def _reduce(run: Run) -> tuple[list[Reduction], list[Certified]]:
    """Reduces every chain by its verdicts, and bounds how far each new one is off."""
    run.limit.require_rest("reduce")
    found = [_reduced(run, place) for place in range(len(run.chains))]
    if run.limit.until("reduce").passed:
        run.limit.cut("reduce")
    return [reduction for reduction, _ in found], [bound for _, bound in found]


def _unchanged(run: Run, place: int, reason: str) -> tuple[Reduction, Certified]:
    """A chain as it is, and why."""
    reduction = Reduction.none(run.chains[place][0].chain, reason)
    return reduction, certify(run, place, reduction)


def _reduced(run: Run, place: int) -> tuple[Reduction, Certified]:
    """Reduces a chain, as far as the bound on its deviation says something of its outputs."""
    settings, allowed = run.settings, run.allowed[place]
    located, where, stability = run.chains[place]

    if allowed.reason:
        return _unchanged(run, place, f"no certificate can speak of it: {allowed.reason}")
    options = ReduceOptions(settings.reductions, settings.max_deviation, settings.goal)

    def attempt(exact: frozenset[int], removal: bool) -> tuple[Reduction, Certified]:
        with run.stage("reduce"):
            reduction = reduce_chain(
                *(located.chain, stability, where.box, located.dtype),
                *(
                    replace(options, exact=exact, removal=removal),
                    located.folded,
                    run.limit.until("reduce"),
                ),
            )
        run.limit.require("certify")
        with run.stage("certify"):
            reduction = lift(run, place, reduction)
            return reduction, certify(run, place, reduction)

    def extent() -> float:
        return observed_range(located.chain, where.box, stability.witnesses, settings.seed)

    layers = len(located.chain.layers)
    reduction, bound = meaningful(
        attempt, layers, extent, finite=where.box.finite, most=allowed.deviation / CHECKED
    )
    if exceeds(bound, allowed):
        why = "its outputs would be further off than the chain behind it has room for"
        return _unchanged(run, place, why)
    return reduction, bound


def _rewrite(run: Run, reductions: list[Reduction]) -> ModelProto | None:
    """The model with every reduced chain in its place, or None where nothing changed."""
    replacements = [
        (located, reduction.network)
        for (located, _, _), reduction in zip(run.chains, reductions, strict=True)
        if reduction.changed
    ]
    if not replacements and run.narrowed is None:
        return None
    with run.stage("rewrite"):
        new = splice(run.source.model, replacements)
        stamp(new, provenance(run))
    return new


def _rewritten(run: Run, reductions: list[Reduction], bounds: list[Certified]) -> list[Rewritten]:
    """The chains that were replaced, as they are to be judged."""
    return [
        Rewritten(
            *(located, reduction.network, where.box, bound.max_abs),
            plain=is_plain(run.source.model, located),
        )
        for (located, where, _), reduction, bound in zip(
            run.chains, reductions, bounds, strict=True
        )
        if reduction.changed
    ]


def _validate(run: Run, chains: list[Rewritten], new: ModelProto, file: Path | None) -> Deviation:
    """Compares both models in onnxruntime, at the user's points and every witness too."""
    extra: list[Mapping[str, NDArray[Any]]] = []
    if run.samples is not None:
        extra.append(run.samples.rows)
    for _, where, stability in run.chains:
        if where.origin is not None:
            points = where.origin.to_graph(stability.witnesses)
            extra += [{where.origin.input: points}] if len(points) else []
    settings = run.settings
    old = run.source.model
    found = validate(
        runnable(old, None if run.narrowed else run.source.path, old),
        runnable(new, file, old),
        run.inputs,
        run.domain,
        original=run.source.model,
        chains=chains,
        extra=extra,
        rtol=settings.rtol,
        atol=settings.atol,
        seed=settings.seed,
        go_on=lambda: run.limit.require("validate"),
    )
    return found if run.seen is None else found.behind(run.seen)


def _files(model: ModelLike) -> tuple[Path, ...]:
    """The file a model is read from, if it is one."""
    return () if isinstance(model, ModelProto) else (Path(model),)
