"""The functions of the package: a model of any kind in, one of the same kind out.

A model is a file name, an `onnx.ModelProto` or an `onnx_ir.Model`.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TypeAlias, TypedDict, Unpack, overload

from onnx import ModelProto

from onnx_exact import pipeline, verified
from onnx_exact.domains import DomainLike
from onnx_exact.errors import UsageError
from onnx_exact.progress import Progress
from onnx_exact.report import Report
from onnx_exact.samples import SamplesLike
from onnx_exact.verified import Verification

if TYPE_CHECKING:
    import onnx_ir

ModelLike: TypeAlias = "ModelProto | str | os.PathLike[str] | onnx_ir.Model"


class SettingKeywords(TypedDict, total=False):
    """The fields of `onnx_exact.run.Settings`, which says what they mean."""

    domain: DomainLike | None
    rebase: bool
    method: str
    time_limit: float | None
    samples: SamplesLike | None
    reductions: str
    max_deviation: float
    form: str
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
            for everything), `samples`, `reductions`, `max_deviation`, `form`, `rtol`, `atol`,
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
    **settings: Unpack[SettingKeywords],
) -> Report:
    """As `optimize`, from file to file; `target` appears only once it has been validated.

    Args:
        model: the file to read.
        target: the file to write; links are followed.
        in_place: allows `target` to be `model`.
        **settings: as for `optimize`.

    Raises:
        OnnxExactError: one line; no file is written, but for the input that shows a deviation.
    """
    return pipeline.optimize_file(model, target, in_place=in_place, **settings)


def analyze(model: ModelLike, **settings: Unpack[SettingKeywords]) -> Report:
    """Decides the ReLU units of a model and changes nothing.

    Args and errors are those of `optimize`.
    """
    return pipeline.analyze(_plain(model), **settings)


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
