"""The straight line from a model to a smaller one: read and decide, reduce, validate and write."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnx import ModelProto

from onnx_exact.report.assemble import assemble
from onnx_exact.report.report import ANALYZE, OPTIMIZE, Report
from onnx_exact.runtime.output_paths import check_output, check_report
from onnx_exact.runtime.outputs import Outputs, appearing
from onnx_exact.settings import Settings
from onnx_exact.stages.deciding import decide
from onnx_exact.stages.reducing import reduce_and_rewrite
from onnx_exact.stages.writing import write

ModelLike = ModelProto | str | os.PathLike[str]
# Writes what has to appear together with a model, before it does.
Deliver = Callable[[Report, Outputs], None]


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
    return _optimized(model, None, Settings(**settings), None)


def optimize_file(
    model: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    in_place: bool = False,
    deliver: Deliver | None = None,
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
    check_output(Path(model), Path(target), in_place=in_place)
    return _optimized(model, Path(target), Settings(**settings), deliver)[1]


def _optimized(
    model: ModelLike,
    target: Path | None,
    settings: Settings,
    deliver: Deliver | None,
) -> tuple[ModelProto, Report]:
    """The whole line, to a file or in memory."""
    if settings.certificate is not None:
        others = [] if isinstance(model, ModelProto) else [Path(model)]
        others += [] if target is None else [target]
        check_report(Path(settings.certificate), others, "certificate")
    run = decide(model, settings, reducing=True)
    reduced = reduce_and_rewrite(run)
    with appearing() as outputs:
        written = write(run, reduced, target, outputs)
        report = assemble(run, OPTIMIZE, reduced, written)
        if deliver is not None:
            deliver(report, outputs)
    return written.model, report


def analyze(model: ModelLike, **settings: Any) -> Report:
    """Decides the ReLU units of a model and changes nothing.

    Args and errors are those of `optimize`.
    """
    return assemble(decide(model, Settings(**settings), reducing=False), ANALYZE)
