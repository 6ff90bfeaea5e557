"""Models whose file fixes the batch to more rows than can be run: any batch stands for it."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto

from onnx_exact.graph.read import readable
from onnx_exact.graph.sizes import MOST_ROWS


def runnable(model: ModelProto, path: Path | None, like: ModelProto) -> bytes | Path:
    """A model as onnxruntime takes it: its file if there is one, or its bytes.

    Where `like`, the model it is or was made of, fixes a batch that cannot be run, one of any size
    takes its place.

    Raises:
        ModelError: it is too large for bytes, which it is to be given as.
    """
    if _is_runnable(like):
        return readable(model, path)
    return readable(_with_any_batch(model), None)


def _is_runnable(model: ModelProto) -> bool:
    """Whether inputs of the sizes that are declared can be run."""
    return all(
        not value.type.HasField("tensor_type")
        or not value.type.tensor_type.shape.dim
        or value.type.tensor_type.shape.dim[0].dim_value <= MOST_ROWS
        for value in model.graph.input
    )


def _with_any_batch(model: ModelProto) -> ModelProto:
    """A copy of a model whose inputs may have a first axis of any size."""
    free = ModelProto()
    free.CopyFrom(model)
    stored = {tensor.name for tensor in free.graph.initializer}
    for value in (*free.graph.input, *free.graph.output):
        is_tensor = value.type.HasField("tensor_type") and value.name not in stored
        if is_tensor and value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].Clear()
    # What the file says of the tensors between may hold for its own batch alone.
    free.graph.ClearField("value_info")
    return free
