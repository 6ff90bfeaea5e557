"""The functions of the package: a model of any kind in, one of the same kind out.

A model is a file name, an `onnx.ModelProto` or an `onnx_ir.Model`.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypedDict, Unpack, overload

from onnx import ModelProto

from onnx_exact import pipeline
from onnx_exact.domains import DomainLike
from onnx_exact.errors import UsageError
from onnx_exact.inputs.samples import SamplesLike
from onnx_exact.report import Report
from onnx_exact.report.bounds import check_bounds_path, write_bounds
from onnx_exact.runtime.output_paths import check_report
from onnx_exact.runtime.outputs import Outputs, appearing
from onnx_exact.runtime.progress import Progress

if TYPE_CHECKING:
    import onnx_ir

    from onnx_exact.verified import Verification

# For bounds on the new network, where a time limit has left none.
LEAST_SECONDS = 0.1

ModelLike: TypeAlias = "ModelProto | str | os.PathLike[str] | onnx_ir.Model"


class SettingKeywords(TypedDict, total=False):
    """The fields of `onnx_exact.settings.Settings`, which says what they mean."""

    domain: DomainLike | None
    rebase: bool
    method: str
    time_limit: float | None
    samples: SamplesLike | None
    reductions: str
    max_deviation: float
    goal: str
    align: int | None
    rtol: float | None
    atol: float | None
    seed: int
    jobs: int
    lp_solver: str
    trust_solver: bool
    certificate: str | os.PathLike[str] | None
    progress: Progress


@overload
def optimize(
    model: ModelProto | str | os.PathLike[str], **settings: Unpack[SettingKeywords]
) -> tuple[ModelProto, Report]: ...
@overload
def optimize(
    model: onnx_ir.Model, **settings: Unpack[SettingKeywords]
) -> tuple[onnx_ir.Model, Report]: ...
def optimize(
    model: ModelLike, **settings: Unpack[SettingKeywords]
) -> tuple[ModelProto | onnx_ir.Model, Report]:
    """Makes a model smaller without changing what it computes over its domain.

    Args:
        model: a file name or a model, which is not changed.
        **settings: the fields of `Settings`: `domain`, `rebase`, `method`, `time_limit` (seconds
            for everything), `samples`, `reductions`, `max_deviation`, `goal`, `rtol`, `atol`,
            `seed`, `jobs`, `lp_solver`, `trust_solver`, `certificate` (a file name), `progress`. A
            certificate speaks of a file's bytes, or those of `SerializeToString`; none can be
            written of an `onnx_ir.Model`, which has none.

    Returns:
        The new model, an `onnx_ir.Model` where one was given and else a `ModelProto`, and what was
        proved and changed. A model that could not be made smaller comes back as it was, with the
        domain in its metadata.

    Raises:
        OnnxExactError: one line that names what is wrong and the way out.
    """
    plain = _plain(model)
    if plain is model:
        return pipeline.optimize(plain, **settings)
    from onnx_exact.integrations.onnx_ir import from_proto

    if settings.get("certificate") is not None:
        raise UsageError(
            "a certificate speaks of a file's bytes, which an onnx_ir.Model has none of; save it"
            " and give the file name"
        )
    new, report = pipeline.optimize(plain, **settings)
    return from_proto(new), report


def optimize_file(
    model: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    in_place: bool = False,
    bounds: str | os.PathLike[str] | None = None,
    **settings: Unpack[SettingKeywords],
) -> Report:
    """As `optimize`, from file to file; `target` appears only once it has been validated.

    Args:
        model: the file to read.
        target: the file to write; links are followed.
        in_place: allows `target` to be `model`.
        bounds: where to write bounds on all units of both networks, `.npz` or `.json`; see
            `onnx_exact.report.bounds`.
        **settings: as for `optimize`.

    Raises:
        OnnxExactError: one line; no file is written, but for the input that shows a deviation.
    """
    deliver = None
    if bounds is not None:
        others = [Path(model), Path(target)]
        if settings.get("certificate") is not None:
            others.append(Path(str(settings["certificate"])))
        check_bounds(Path(bounds), tuple(others))
        deliver = bounds_of_both(Path(bounds), Path(target), **settings)
    return pipeline.optimize_file(model, target, in_place=in_place, deliver=deliver, **settings)


def analyze(
    model: ModelLike,
    *,
    bounds: str | os.PathLike[str] | None = None,
    **settings: Unpack[SettingKeywords],
) -> Report:
    """Decides the ReLU units of a model and changes nothing.

    `bounds` is as for `optimize_file`, of the one network; other args and errors are those of
    `optimize`.
    """
    plain = _plain(model)
    if bounds is None:
        return pipeline.analyze(plain, **settings)
    check_bounds(Path(bounds), () if isinstance(plain, ModelProto) else (Path(plain),))
    report = pipeline.analyze(plain, **settings)
    with appearing() as outputs:
        write_bounds(Path(bounds), report, None, outputs)
    return report


def check_bounds(path: Path, others: tuple[Path, ...]) -> None:
    """Raises unless bounds can be written to `path`, which must be none of `others`.

    Raises:
        OnnxExactError: as said.
    """
    check_bounds_path(path)
    check_report(path, others, "file of bounds")


def bounds_of_both(
    path: Path, target: Path, **settings: Unpack[SettingKeywords]
) -> Callable[[Report, Outputs], None]:
    """What writes bounds on both networks once the new one is there, to appear with it.

    The new network's are decided as the old one's were, within what is left of the time limit.

    Args:
        path: where to.
        target: of the new network.
        **settings: as for `optimize`.
    """
    begun = time.monotonic()

    def deliver(report: Report, outputs: Outputs) -> None:
        made = outputs.made(target)
        if not report.changed:
            digest = hashlib.sha256(made.read_bytes()).hexdigest()
            write_bounds(path, report, replace(report, source_sha256=digest), outputs)
            return
        # Of the new network the domain that it carries; it is smaller already.
        own = SettingKeywords(domain=None, rebase=False, samples=None, certificate=None)
        again: SettingKeywords = {**settings, **own}
        limit = settings.get("time_limit")
        if limit is not None:
            again["time_limit"] = max(limit - (time.monotonic() - begun), LEAST_SECONDS)
        write_bounds(path, report, pipeline.analyze(made, **again), outputs)

    return deliver


def verify(
    original: ModelLike,
    result: ModelLike,
    certificate: str | os.PathLike[str] | None = None,
    domain: DomainLike | None = None,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    time_limit: float | None = None,
) -> Verification:
    """Checks that the model `result` computes what `original` does over a domain.

    Args, result and errors are those of `onnx_exact.verified.verify`.
    """
    from onnx_exact import verified

    return verified.verify(
        _plain(original),
        _plain(result),
        certificate,
        domain,
        rtol=rtol,
        atol=atol,
        time_limit=time_limit,
    )


def _plain(model: ModelLike) -> ModelProto | str | os.PathLike[str]:
    """A model as the rest of the package takes it.

    Raises:
        UsageError: it is no model.
    """
    if isinstance(model, ModelProto | str | os.PathLike):
        return model
    # Whoever has such a model has loaded that package.
    ir = sys.modules.get("onnx_ir")
    if ir is not None and isinstance(model, ir.Model):
        from onnx_exact.integrations.onnx_ir import to_proto

        return to_proto(model)
    raise UsageError(
        "a model is a file name, an onnx.ModelProto or an onnx_ir.Model, not"
        f" {type(model).__name__}"
    )
