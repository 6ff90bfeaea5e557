"""BatchNormalization in inference form.

    y = gamma (x - mean) / sqrt(var + epsilon) + beta = s x + (beta - mean s)

with s = gamma / sqrt(var + epsilon), one value a channel, and the channels along axis 1.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from onnx_exact.graph.index import Index, attributes
from onnx_exact.graph.layout import Layout
from onnx_exact.graph.ops.step import Diagonal, weights
from onnx_exact.network.affine import Array

# Attributes are float32, their defaults too.
EPSILON_DEFAULT = float(np.float32(1e-5))
# momentum only acts in training.
ATTRIBUTES = {"epsilon", "momentum", "spatial", "training_mode"}


def batch_normalization(
    index: Index, node: NodeProto, slot: int, layout: Layout
) -> Diagonal | None:
    """The scale and shift of every unit."""
    if slot != 0 or layout.rank < 2 or not in_inference_form(node):
        return None
    parameters = [weights(index, name) for name in node.input[1:5]]
    if any(p is None or p.ndim != 1 for p in parameters):
        return None
    found = scale_and_shift(node, [p for p in parameters if p is not None])
    if found is None:
        return None
    # Channels along axis 1: as many axes of size 1 behind them as the tensor has.
    tail = (1,) * (layout.rank - 2)
    scale, shift = (layout.per_unit(v.reshape(-1, *tail)) for v in found)
    return None if scale is None or shift is None else Diagonal(scale, shift, layout)


def in_inference_form(node: NodeProto) -> bool:
    """Whether the node normalises by its constants, per channel, and gives nothing else."""
    known = attributes(node)
    if known.keys() - ATTRIBUTES or any(node.output[1:]) or len(node.input) != 5:
        return False
    training = "training_mode" in known and known["training_mode"].i != 0
    per_entry = "spatial" in known and known["spatial"].i != 1
    return not (training or per_entry)


def scale_and_shift(node: NodeProto, parameters: list[Array]) -> tuple[Array, Array] | None:
    """s and beta - mean s for gamma, beta, mean, var; None where they are not finite."""
    gamma, beta, mean, variance = parameters
    known = attributes(node)
    radicand = variance + (known["epsilon"].f if "epsilon" in known else EPSILON_DEFAULT)
    if not (radicand > 0.0).all():
        return None
    scale = gamma / np.sqrt(radicand)
    shift = beta - mean * scale
    return (scale, shift) if np.isfinite(scale).all() and np.isfinite(shift).all() else None
