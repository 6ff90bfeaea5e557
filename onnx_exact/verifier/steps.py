"""What a node does to the entries of the one tensor it reads that is not constant.

A tensor is read at size 1 of every symbolic axis, as the vector of its entries in row-major order.
Shapes at size 2 show which axes are symbolic: nothing may mix these with the others.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto

from onnx_exact.errors import NotVerifiedError
from onnx_exact.verifier.model import OLDEST_OPSET, Model, is_standard
from onnx_exact.verifier.rounding import Array

SAME = ("Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze")
PER_ENTRY = ("Add", "Sub", "Mul", "Div")


@dataclass(frozen=True, eq=False)
class Step:
    """One node on the way.

    Attributes:
        kind: "dense", "normalize", "relu", "same", or the operator of `PER_ENTRY`.
        source: the tensor it reads.
        node: its position.
        values: of "dense": W (out, in), b, alpha, beta: alpha W x + beta b; of an operator of
            `PER_ENTRY`: its constant, entry by entry; of "normalize": scale, B, mean, var + eps.
        swapped: whether the constant of an operator comes first.
    """

    kind: str
    source: str
    node: int
    values: tuple[Array, ...] = ()
    swapped: bool = False


def read_step(model: Model, position: int) -> Step:
    """What the node at `position` does.

    Raises:
        NotVerifiedError: nothing that the checker knows.
    """
    node = model.nodes[position]
    names = [name for name in node.input if name]
    varying = [name for name in names if model.constant(name) is None]
    if is_standard(node) and model.opset >= OLDEST_OPSET and len(set(varying)) == len(varying) == 1:
        shapes = [model.shape(name) for name in (varying[0], node.output[0])]
        if None not in shapes:
            slot = list(node.input).index(varying[0])
            # numpy's word for constants that do not fit.
            with contextlib.suppress(ValueError):
                step = _read(model, node, position, varying[0], slot)
                if step is not None and _fits(step, *shapes):
                    return step
    raise NotVerifiedError(
        f"cannot check: operator {node.op_type} (node {node.name or node.output[0]!r}) as it is"
        f" used in {model.path}"
    )


def _fits(step: Step, shape: tuple[int, ...] | None, out: tuple[int, ...] | None) -> bool:
    """Whether the weights of a step have the sizes of its tensors."""
    sizes = math.prod(out or ()), math.prod(shape or ())
    return step.kind != "dense" or step.values[0].shape == sizes


def _read(model: Model, node: NodeProto, at: int, source: str, slot: int) -> Step | None:
    options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    shape, out = model.shape(source) or (), model.shape(node.output[0]) or ()
    op = node.op_type
    if op == "Relu":
        return Step("relu", source, at)
    if op in SAME and slot == 0 and math.prod(shape) == math.prod(out):
        trains = op == "Dropout" and len(node.input) > 2 and node.input[2]
        kept = _split(model, source) == _split(model, node.output[0])
        return Step("same", source, at) if kept and not trains else None
    if op in PER_ENTRY and shape == out:
        constant = model.numbers(node.input[1 - slot])
        if constant is None or (op == "Div" and (slot == 1 or not constant.all())):
            return None
        values = np.broadcast_to(constant, shape).reshape(-1)
        return Step(op, source, at, (values,), swapped=slot == 1)
    if op == "BatchNormalization" and slot == 0 and len(shape) >= 2:
        return _normalization(model, node, at, source, options)
    if op == "Gemm" and slot == 0:
        return _gemm(model, node, at, source, options)
    return _matmul(model, node, at, source, slot) if op == "MatMul" else None


def _split(model: Model, tensor: str) -> tuple[int, ...] | None:
    """How many entries lie before, between and after the symbolic axes; None where unknown."""
    one, two = (model.shape(tensor, size) for size in (1, 2))
    if one is None or two is None or len(one) != len(two):
        return None
    runs = [1]
    for a, b in zip(one, two, strict=True):
        if a == b:
            runs[-1] *= a
        else:
            runs.append(1)
    inner = tuple(run for run in runs[1:-1] if run != 1)
    return (runs[0], *inner, runs[-1]) if len(runs) > 1 else (runs[0],)


def _normalization(
    model: Model, node: NodeProto, at: int, source: str, options: dict[str, Any]
) -> Step | None:
    if options.get("training_mode", 0) or sum(bool(name) for name in node.output) > 1:
        return None
    if options.get("spatial", 1) != 1:
        return None
    shape = model.shape(source) or ()
    parameters = [model.numbers(name) for name in node.input[1:5]]
    values = []
    for parameter in parameters:
        if parameter is None or parameter.shape != (shape[1],):
            return None
        per_channel = parameter.reshape(-1, *[1] * (len(shape) - 2))
        values.append(np.broadcast_to(per_channel, shape).reshape(-1))
    variance = values[3] + options.get("epsilon", float(np.float32(1e-5)))
    return Step("normalize", source, at, (*values[:3], variance)) if (variance > 0).all() else None


def _gemm(
    model: Model, node: NodeProto, at: int, source: str, options: dict[str, Any]
) -> Step | None:
    weight = model.numbers(node.input[1])
    shape = model.shape(source) or ()
    rows = shape[1 if options.get("transA", 0) else 0] if len(shape) == 2 else 0
    if weight is None or weight.ndim != 2 or rows != 1:
        return None
    weight = weight if options.get("transB", 0) else weight.T
    bias: Array = np.zeros(1)
    if len(node.input) > 2 and node.input[2]:
        found = model.numbers(node.input[2])
        if found is None or (found.ndim == 2 and found.shape[0] != 1):
            return None
        bias = found
    bias = np.broadcast_to(bias, (1, len(weight))).reshape(-1)
    factors = (np.array(options.get(name, 1.0)) for name in ("alpha", "beta"))
    return Step("dense", source, at, (weight, bias, *factors))


def _matmul(model: Model, node: NodeProto, at: int, source: str, slot: int) -> Step | None:
    weight = model.numbers(node.input[1 - slot])
    shape = model.shape(source) or ()
    if weight is None or weight.ndim != 2 or not shape:
        return None
    contracted = -1 if slot == 0 or len(shape) == 1 else -2
    if math.prod(shape) != shape[contracted]:
        return None
    weight = weight.T if slot == 0 else weight
    one = np.ones(())
    return Step("dense", source, at, (weight, np.zeros(len(weight)), one, one))
