"""How each operator a chain can pass through acts on the features. One family of them a file."""

from __future__ import annotations

from onnx import NodeProto

from onnx_exact.graph.index import Index
from onnx_exact.graph.layout import Layout
from onnx_exact.graph.ops import (
    dense,
    elementwise,
    normalization,
    passthrough,
    piecewise,
    regroup,
)
from onnx_exact.graph.ops.step import Dense, Diagonal, Reader, Rectify, Regroup, Step

__all__ = [
    "OLDEST_OPSET",
    "READERS",
    "Dense",
    "Diagonal",
    "Rectify",
    "Regroup",
    "Step",
    "entry",
    "is_unchecked",
    "read_step",
]

# Older operator sets broadcast by attributes and their Dropout and BatchNormalization may train;
# onnxruntime does not promise to run them.
OLDEST_OPSET = 7

READERS: dict[str, Reader] = {
    "Gemm": dense.gemm,
    "MatMul": dense.matmul,
    dense.FUSED_GEMM: dense.gemm,
    dense.FUSED_MATMUL: dense.fused_matmul,
    "Add": elementwise.add,
    "Sub": elementwise.sub,
    "Mul": elementwise.mul,
    "Div": elementwise.div,
    "Relu": elementwise.relu,
    "Neg": elementwise.neg,
    "Sum": elementwise.total,
    "ai.onnx.ml.Scaler": elementwise.scaler,
    **dict.fromkeys(piecewise.PIECES, piecewise.piecewise),
    "BatchNormalization": normalization.batch_normalization,
    "Flatten": regroup.regroup,
    "Reshape": regroup.regroup,
    "Squeeze": regroup.regroup,
    "Unsqueeze": regroup.regroup,
    "Identity": passthrough.identity,
    "Dropout": passthrough.dropout,
    "Cast": passthrough.cast,
    "Concat": passthrough.alone,
    "Mean": passthrough.alone,
}


# Those that the checker of certificates reads too, with constants that are stored.
CHECKED = {
    *(
        "Add",
        "BatchNormalization",
        "Cast",
        "Div",
        "Dropout",
        "Flatten",
        "Gemm",
        "Identity",
        "MatMul",
        "Mul",
    ),
    *("Relu", "Reshape", "Squeeze", "Sub", "Unsqueeze"),
}


def is_unchecked(index: Index, node: NodeProto) -> bool:
    """Whether a node is not to be read because the checker of certificates does not."""
    if not index.checked:
        return False
    # What shape a Reshape gives the checker sees by itself.
    computed = node.op_type != "Reshape" and any(map(index.is_computed, node.input))
    return computed or index.operator(node) not in CHECKED


def read_step(index: Index, node: NodeProto, tensor: str, layout: Layout) -> Step | None:
    """What the node does to the features of `tensor`, or None where it is a barrier.

    Raises:
        ModelError: a weight the step would take in is not finite.
    """
    reader = READERS.get(index.operator(node))
    if reader is None or index.opset < OLDEST_OPSET or is_unchecked(index, node):
        return None
    slot = list(node.input).index(tensor)
    return reader(index, node, slot, layout)


def entry(index: Index, node: NodeProto) -> tuple[str, Layout] | None:
    """The tensor and layout with which a chain can start at this node, or None."""
    if index.operator(node) not in dense.ENTRIES or is_unchecked(index, node):
        return None
    found = dense.entry(index, node) if index.opset >= OLDEST_OPSET else None
    return None if found is None else (node.input[found[0]], found[1])
