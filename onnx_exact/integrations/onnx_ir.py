"""A pass for onnx_ir: `onnx_ir.passes.Sequential` and `PassManager` take it among their own."""

from __future__ import annotations

from typing import Unpack

import onnx_ir as ir
from onnx import ModelProto

from onnx_exact import pipeline
from onnx_exact.api import SettingKeywords
from onnx_exact.errors import ModelError, UsageError
from onnx_exact.report import Report
from onnx_exact.settings import Settings


class ExactCompressionPass(ir.passes.FunctionalPass):  # type: ignore[misc]
    """Makes the ReLU networks of a model smaller without changing what it computes on its domain.

    The model that comes out carries the domain in its metadata; `modified` is False where it is
    the same as the one that went in, and then is a clone of it. Weights in external files are read;
    those of a model that was modified are in memory. Nothing is changed where an error is raised.

    Args:
        **settings: as for `onnx_exact.optimize`, but for `certificate`.

    Attributes:
        report: what was proved and changed when it last ran; None before.

    Raises:
        OnnxExactError: one line; the cause of the `PassError` of a `Sequential` or `PassManager`.
    """

    def __init__(self, **settings: Unpack[SettingKeywords]) -> None:
        if settings.get("certificate") is not None:
            raise UsageError(
                "a certificate speaks of a file's bytes, which an onnx_ir.Model has none of; run"
                " onnx_exact.optimize on a file"
            )
        Settings(**settings)  # Refuses what cannot be used before any pass has run.
        self._settings = settings
        self.report: Report | None = None

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Runs on a model, which stays as it is."""
        old = to_proto(model)
        new, self.report = pipeline.optimize(old, **self._settings)
        if new.SerializeToString(deterministic=True) == old.SerializeToString(deterministic=True):
            return ir.passes.PassResult(model.clone(), modified=False)
        return ir.passes.PassResult(from_proto(new), modified=True)


def to_proto(model: ir.Model) -> ModelProto:
    """The model with the weights that lie in external files; it is not changed itself.

    Raises:
        ModelError: a file that cannot be read.
    """
    try:
        whole = ir.external_data.load_to_model(model.clone())
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"the model's external data cannot be read: {reason}") from error
    proto: ModelProto = ir.to_proto(whole)
    return proto


def from_proto(model: ModelProto) -> ir.Model:
    """The model as onnx_ir has it."""
    return ir.from_proto(model)
