"""Frees the first axis of a model's inputs, where the file fixes it to more than can be run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from onnx import ModelProto

from onnx_exact.graph.read import InputSpec

# Entries of all inputs together that are still run as they are.
MOST_ENTRIES = 2**24


def is_runnable(inputs: Sequence[InputSpec]) -> bool:
    """Whether inputs of the sizes that are declared can be run."""
    entries = sum(math.prod(size or 1 for size in spec.shape or ()) for spec in inputs)
    return entries <= MOST_ENTRIES


def any_batch(inputs: Sequence[InputSpec]) -> tuple[InputSpec, ...]:
    """The inputs with a first axis of any size."""
    return tuple(
        replace(spec, shape=(None, *spec.shape[1:])) if spec.shape else spec for spec in inputs
    )


def with_any_batch(model: ModelProto) -> ModelProto:
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
