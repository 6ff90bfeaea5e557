"""BatchNormalization in inference form.

    y = gamma (x - mean) / sqrt(var + epsilon) + beta = s x + (beta - mean s)

with s = gamma / sqrt(var + epsilon), one value a channel, and the channels along axis 1.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from onnx_exact.graph.index import Index, attributes
from onnx_exact.graph.layout import Layout
from onnx_exact.graph.ops.step import Diagonal, per_unit, weights
from onnx_exact.network.affine import Array
from onnx_exact.network.approximate import Approximate
from onnx_exact.network.rounding import SMALLEST, UNIT_ROUNDOFF

# Attributes are float32, their defaults too.
EPSILON_DEFAULT = float(np.float32(1e-5))
# s is rounded three times, the first time under a root: at most 2.5 unit roundoffs, and a bit.
SCALE_ERROR = 4.0 * UNIT_ROUNDOFF
# momentum only acts in training.
ATTRIBUTES = {"epsilon", "momentum", "spatial", "training_mode"}


def batch_normalization(
    index: Index, node: NodeProto, slot: int, layout: Layout
) -> Diagonal | None:
    """The scale and shift of every unit."""
    if slot != 0 or layout.rank < 2 or not in_inference_form(node):
        return None
    parameters = [weights(index, name) for name in node.input[1:5]]
    exact = [p.value for p in parameters if p is not None and p.error is None and p.value.ndim == 1]
    found = _scale_and_shift(node, exact) if len(exact) == 4 else None
    if found is None:
        return None
    along_channels = (-1, *[1] * (layout.rank - 2))
    scale, shift = (per_unit(layout, v.reshaped(*along_channels)) for v in found)
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
    found = _scale_and_shift(node, parameters)
    return None if found is None else (found[0].value, found[1].value)


def _scale_and_shift(
    node: NodeProto, parameters: list[Array]
) -> tuple[Approximate, Approximate] | None:
    """The same with what they are off by."""
    gamma, beta, mean, variance = parameters
    known = attributes(node)
    radicand = variance + (known["epsilon"].f if "epsilon" in known else EPSILON_DEFAULT)
    if not (radicand > 0.0).all():
        return None
    quotient = gamma / np.sqrt(radicand)
    error = np.where(gamma == 0.0, 0.0, SCALE_ERROR * np.abs(quotient) + SMALLEST)
    scale = Approximate(quotient, error)
    shift = Approximate(beta) + -(Approximate(mean) * scale)
    return (scale, shift) if _finite(scale) and _finite(shift) else None


def _finite(numbers: Approximate) -> bool:
    return bool(np.isfinite(numbers.value).all())
