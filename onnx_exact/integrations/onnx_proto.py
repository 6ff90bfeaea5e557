"""One function from a model to a model, for chains of functions on `onnx.ModelProto`."""

from __future__ import annotations

from typing import Unpack

from onnx import ModelProto

from onnx_exact import pipeline
from onnx_exact.api import SettingKeywords


def compress(model: ModelProto, **settings: Unpack[SettingKeywords]) -> ModelProto:
    """The model made smaller without changing what it computes over its domain.

    Args:
        model: with its external data loaded; it is not changed.
        **settings: as for `onnx_exact.optimize`, which gives a report as well.

    Raises:
        OnnxExactError: one line that names what is wrong and the way out.
    """
    return pipeline.optimize(model, **settings)[0]
