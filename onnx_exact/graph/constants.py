"""Which nodes give constants: those that read constants alone, and sizes that are known."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from onnx_exact.network.affine import Array

if TYPE_CHECKING:
    from onnx_exact.graph.index import Index

# They move entries; some of these may be off by something, which is moved with them.
MOVES = {
    *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND"),
    *("Identity", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose"),
    *("Trilu", "Unsqueeze"),
}
# Exact where their inputs are.
EXACT = {
    *("Abs", "And", "Ceil", "Clip", "ConstantOfShape", "Equal", "EyeLike", "Floor", "Greater"),
    *("GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Neg", "NonZero", "Not", "OneHot"),
    *("Or", "Pad", "ReduceMax", "ReduceMin", "Relu", "ScatterElements", "ScatterND", "Sign"),
    *("Where", "Xor"),
}
# Exact for integers; for floats an interval says what they round.
ARITHMETIC = {"Add", "Div", "Mul", "ReduceSum", "Sub", "Sum"}
INTEGERS_ONLY = {"CumSum", "Mod", "Range", "ReduceProd"}
ROUNDS = {*ARITHMETIC, "Cast", "DequantizeLinear", "Gemm", "MatMul", "QuantizeLinear", "Sqrt"}
FOLDED = MOVES | EXACT | INTEGERS_ONLY | ROUNDS
# These read the shape of a tensor, which need not be a constant.
OF_SHAPE = {"Shape", "Size"}


@dataclass(frozen=True, eq=False)
class Value:
    """A constant tensor.

    Attributes:
        values: in the type of the tensor.
        error: bounds on how far they are from what the graph defines; None where they are that.
    """

    values: NDArray[Any]
    error: Array | None = None


def sizes(index: Index, node: NodeProto) -> Value | None:
    """What a Shape or Size gives of a tensor whose sizes are known."""
    shape = index.shape(node.input[0])
    if shape is None:
        return None
    options = {a.name: a.i for a in node.attribute}
    if node.op_type == "Shape":
        shape = shape[slice(options.get("start"), options.get("end"))]
    if not all(dim.static for dim in shape):
        return None
    found = [dim.size for dim in shape]
    return Value(np.asarray(found if node.op_type == "Shape" else prod(found), dtype=np.int64))


def entries_of(model: ModelProto) -> int:
    """Entries of all initializers and Constant nodes."""
    nodes = (node for node in model.graph.node if node.op_type == "Constant")
    constants = (a.t for node in nodes for a in node.attribute if a.name == "value")
    return sum(prod(tensor.dims) for tensor in (*model.graph.initializer, *constants))
