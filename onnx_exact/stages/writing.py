"""Validates the model that came out of a run, and writes it with its certificate.

To a file or in memory, it is the same: the bytes are made, both models are compared in onnxruntime,
and the certificate is written of these bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto

from onnx_exact.certify.certificate import FileMark
from onnx_exact.errors import ValidationError
from onnx_exact.graph.batch import runnable
from onnx_exact.graph.kept import not_kept
from onnx_exact.graph.metadata import stamp, with_metadata
from onnx_exact.graph.write import copy_unchanged, write_model
from onnx_exact.inputs.counterexample import save_beside
from onnx_exact.runtime.memory import release_memory
from onnx_exact.runtime.outputs import Outputs, reported
from onnx_exact.stages.certified import mark_of, write_record
from onnx_exact.stages.narrowed import compared
from onnx_exact.stages.provenance import copied_metadata
from onnx_exact.stages.reducing import Reduced
from onnx_exact.stages.run import Run
from onnx_exact.validate import Deviation, validate


@dataclass(frozen=True, eq=False)
class Written:
    """The result of a run.

    Attributes:
        model: the new one, or the old one with its domain where nothing changed.
        size: bytes of its file, or of what `SerializeToString` gives.
        deviation: what validation saw; None where nothing changed.
        lost: what could not be kept of the old one, a line each.
    """

    model: ModelProto
    size: int
    deviation: Deviation | None = None
    lost: tuple[str, ...] = ()


def write(run: Run, reduced: Reduced, target: Path | None, outputs: Outputs) -> Written:
    """Validates and writes what came out; nothing is written of the model where `target` is None.

    Raises:
        ValidationError: the outputs of both models differ; the input that shows it is saved.
    """
    release_memory()
    if target is None:
        return _in_memory(run, reduced, outputs)
    if reduced.model is None:
        return _copied(run, reduced, target, outputs)
    return _to_file(run, reduced, reduced.model, target, outputs)


def _in_memory(run: Run, reduced: Reduced, outputs: Outputs) -> Written:
    new, deviation = reduced.model, None
    lost: tuple[str, ...] = ()
    if new is None:
        new = ModelProto()
        new.CopyFrom(run.source.model)
        stamp(new, copied_metadata(run))
    else:
        with run.stage("validate"):
            deviation = _validate(run, reduced, new, None)
        lost = not_kept(run.source.model, new)
    data = new.SerializeToString()
    _record(run, reduced, mark_of(data), outputs)
    return Written(new, len(data), deviation, lost)


def _copied(run: Run, reduced: Reduced, target: Path, outputs: Outputs) -> Written:
    """The file as it was, but for its domain."""
    assert run.source.path is not None
    own = run.source.path.read_bytes()
    entries = copied_metadata(run)
    copied = with_metadata(own, entries) if entries else own
    with run.stage("write"):
        _record(run, reduced, mark_of(copied), outputs)
        copy_unchanged(run.source, target, outputs, copied if entries else None)
    return Written(run.source.model, run.source.nbytes + len(copied) - len(own))


def _to_file(
    run: Run, reduced: Reduced, new: ModelProto, target: Path, outputs: Outputs
) -> Written:
    seen: list[Deviation] = []

    def check(candidate: Path) -> None:
        with run.stage("validate"):
            seen.append(_validate(run, reduced, new, candidate))
        _record(run, reduced, mark_of(candidate), outputs)

    with run.stage("write"):
        try:
            size = write_model(new, target, source=run.source, outputs=outputs, check=check)
        except ValidationError as error:
            save_beside(error, target)
            raise
    run.seconds["write"] -= run.seconds["validate"]
    return Written(new, size, seen[0], not_kept(run.source.model, new))


def _record(run: Run, reduced: Reduced, result: FileMark, outputs: Outputs) -> None:
    """Writes the certificate, if one is wanted."""
    if run.certificate is None:
        return
    original = FileMark(run.source.sha256, run.source.nbytes)
    if run.source.path is not None:
        original = mark_of(run.source.path)
    with reported(run.certificate):
        path = outputs.place(run.certificate)
    write_record(run, reduced.reductions, reduced.worst, original, result, path)


def _validate(run: Run, reduced: Reduced, new: ModelProto, file: Path | None) -> Deviation:
    """Compares both models in onnxruntime, at the user's points and every witness too."""
    extra: list[Mapping[str, NDArray[Any]]] = []
    if run.samples is not None:
        extra.append(run.samples.rows)
    for _, where, stability in run.chains:
        if where.origin is not None:
            points = where.origin.to_graph(stability.witnesses)
            extra += [{where.origin.input: points}] if len(points) else []
    settings = run.settings
    old, spliced = run.source.model, reduced.spliced
    assert spliced is not None
    seen = run.seen
    if reduced.narrowed is not None:
        last = compared(run, spliced, runnable(new, file, old))
        seen, new, file = last if seen is None else seen.behind(last), spliced, None
    found = validate(
        runnable(old, run.source.file, old),
        runnable(new, file, old),
        *(run.inputs, run.domain),
        original=old,
        chains=reduced.rewritten(run),
        extra=extra,
        rtol=settings.rtol,
        atol=settings.atol,
        seed=settings.seed,
        go_on=lambda: run.limit.require("validate"),
    )
    return found if seen is None else found.behind(seen)
