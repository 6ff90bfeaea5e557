"""How far a graph may be from another one of which some tensors are off by a little.

Forward through the graph, a bound on the largest difference |new - old| of all entries of each
tensor, in real arithmetic:

    weights V on one side       max_o sum_i |V_oi| d
    sums                        the sum of the differences
    data movement, pools, ...   the largest of them
    functions of one tensor     their steepest slope times d
    products x y                |x| d_y + (|y| + d_y) d_x

Differences are as small as rounding makes them, so that a number a tensor is enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from onnx import NodeProto

from onnx_exact.graph.index import Index, attributes
from onnx_exact.network import Box

# What float64 rounds of a bound, at every node, and more.
WIDER = 1.0 + 2.0**-40
# Each entry is one of those that are read, or the largest, the least or a mean of some.
# fmt: off
PASSES = {
    "Abs", "AveragePool", "Clip", "Concat", "DepthToSpace", "Dropout", "Expand", "Flatten",
    "Gather", "GlobalAveragePool", "GlobalMaxPool", "Identity", "Max", "MaxPool", "Min", "Neg",
    "Pad", "ReduceMax", "ReduceMean", "ReduceMin", "Relu", "Reshape", "Slice", "SpaceToDepth",
    "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
}
# fmt: on
# The steepest slope of a function, over all numbers.
SLOPES = {
    **dict.fromkeys(("Cos", "Sigmoid", "Sin", "Softmax", "Softplus", "Softsign", "Tanh"), 1.0),
    **{"Erf": 1.13, "Gelu": 1.2, "HardSwish": 1.5, "Selu": 1.76},
}
Bounds = Callable[[str], Box]


def outputs_apart(index: Index, bounds: Bounds, moved: Mapping[str, float]) -> float:
    """How far any output of a graph may be off; infinite where that is not known.

    Args:
        index: of the graph.
        bounds: on the tensors that are multiplied with one another.
        moved: by how much the node that makes a tensor is off, beside what it reads.
    """
    off: dict[str, float] = {}
    for node in index.nodes:
        read = [off.get(name, 0.0) for name in node.input if name]
        found = _through(index, node, bounds, off) if any(read) else 0.0
        for name in node.output:
            off[name] = found * WIDER + moved.get(name, 0.0)
    outputs = {value.name for value in index.graph.output}
    # What a branch does with what it reads is not known.
    if any(off.get(name, 0.0) for name in index.pinned - outputs):
        return math.inf
    return max((off.get(name, 0.0) for name in outputs), default=0.0)


def _through(index: Index, node: NodeProto, bounds: Bounds, off: Mapping[str, float]) -> float:
    """How far what a node makes is off by what it reads."""
    op, options = index.operator(node), attributes(node)
    read = [off.get(name, 0.0) for name in node.input]
    if op in PASSES or _passes(index, node, op):
        return max(read)
    if op in ("Add", "Sub", "Sum"):
        return sum(read)
    if op in SLOPES and (op != "Selu" or not options):
        return SLOPES[op] * read[0]
    if op in ("LeakyRelu", "Elu", "Celu", "HardSigmoid", "ThresholdedRelu", "PRelu"):
        return _steepest(index, node, op) * read[0]
    if op == "BatchNormalization" and not any(read[1:]):
        return _normalised(index, node) * read[0]
    if op in ("Conv", "ConvTranspose", "Gemm", "MatMul") and not any(read[1:2]):
        factor = abs(options["alpha"].f) if "alpha" in options else 1.0
        beta = abs(options["beta"].f) if "beta" in options else 1.0
        product = factor * _norm(index, node, op) * read[0] if read[0] else 0.0
        return product + beta * sum(read[2:])
    if op == "Mul":
        return _product(node, bounds, off)
    return math.inf


def _passes(index: Index, node: NodeProto, op: str) -> bool:
    """Whether an operator passes entries on as its attributes or types have it."""
    if op == "Cast":
        return index.elem_type(node.input[0]) == index.elem_type(node.output[0])
    mode = attributes(node).get("mode")
    return op in ("Resize", "Upsample") and (mode is None or mode.s in (b"nearest", b"linear"))


def _norm(index: Index, node: NodeProto, op: str) -> float:
    """The largest sum of the magnitudes of the weights of an output."""
    weight = index.floats(node.input[1])
    if weight is None:
        return math.inf
    size = np.abs(weight)
    if op == "Conv":
        return float(size.reshape(len(size), -1).sum(axis=1).max(initial=0.0))
    if op == "ConvTranspose":
        # Each weight meets one entry at most; groups share the outputs among them.
        return float(size.sum(axis=(0, *range(2, size.ndim))).max(initial=0.0))
    turned = attributes(node)
    if "transA" in turned and turned["transA"].i:
        return math.inf
    along = -1 if "transB" in turned and turned["transB"].i else 0
    return float(size.sum(axis=along if size.ndim == 2 else -2).max(initial=0.0))


def _normalised(index: Index, node: NodeProto) -> float:
    gain, variance = index.floats(node.input[1]), index.floats(node.input[4])
    options = attributes(node)
    epsilon = options["epsilon"].f if "epsilon" in options else 1e-5
    if gain is None or variance is None or "training_mode" in options:
        return math.inf
    with np.errstate(all="ignore"):
        slope = np.abs(gain) / np.sqrt(variance + epsilon)
    return float(np.where(np.isfinite(slope), slope, np.inf).max(initial=0.0))


def _steepest(index: Index, node: NodeProto, op: str) -> float:
    options = attributes(node)
    if op == "PRelu":
        slope = index.floats(node.input[1])
        return math.inf if slope is None else max(1.0, float(np.abs(slope).max(initial=0.0)))
    if op == "ThresholdedRelu":
        # It jumps.
        return math.inf
    usual = {"LeakyRelu": 0.01, "HardSigmoid": 0.2}.get(op, 1.0)
    alpha = abs(options["alpha"].f) if "alpha" in options else usual
    if op == "Celu":
        return 1.0 if alpha > 0.0 else math.inf
    return alpha if op == "HardSigmoid" else max(1.0, alpha)


def _product(node: NodeProto, bounds: Bounds, off: Mapping[str, float]) -> float:
    size, found = [], 0.0
    for name in node.input:
        box = bounds(name)
        size.append(max(np.abs(box.lower).max(initial=0.0), np.abs(box.upper).max(initial=0.0)))
    x, y = (off.get(name, 0.0) for name in node.input)
    found = (size[0] * y if y else 0.0) + ((size[1] + y) * x if x else 0.0)
    return float(found)
