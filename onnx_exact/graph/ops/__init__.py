"""How each operator a chain can pass through acts on the features. One family of them a file."""

from __future__ import annotations

from onnx import NodeProto

from onnx_exact.graph.index import Index
from onnx_exact.graph.layout import Layout
from onnx_exact.graph.ops import dense, elementwise, normalization, passthrough, regroup
from onnx_exact.graph.ops.step import Dense, Diagonal, Reader, Rectify, Regroup, Step

__all__ = ["Dense", "Diagonal", "Rectify", "Regroup", "Step", "entry", "read_step"]

# Older operator sets broadcast by attributes and their Dropout and BatchNormalization may train;
# onnxruntime does not promise to run them.
OLDEST_OPSET = 7

READERS: dict[str, Reader] = {
    "Gemm": dense.gemm,
    "MatMul": dense.matmul,
    "Add": elementwise.add,
    "Sub": elementwise.sub,
    "Mul": elementwise.mul,
    "Div": elementwise.div,
    "Relu": elementwise.relu,
    "BatchNormalization": normalization.batch_normalization,
    "Flatten": regroup.regroup,
    "Reshape": regroup.regroup,
    "Squeeze": regroup.regroup,
    "Unsqueeze": regroup.regroup,
    "Identity": passthrough.identity,
    "Dropout": passthrough.dropout,
}


def read_step(index: Index, node: NodeProto, tensor: str, layout: Layout) -> Step | None:
    """What the node does to the features of `tensor`, or None where it is a barrier.

    Raises:
        ModelError: a weight the step would take in is not finite.
    """
    reader = READERS.get(node.op_type)
    if reader is None or index.opset < OLDEST_OPSET or not index.is_standard(node):
        return None
    slot = list(node.input).index(tensor)
    return reader(index, node, slot, layout)


def entry(index: Index, node: NodeProto) -> tuple[str, Layout] | None:
    """The tensor and layout with which a chain can start at this node, or None."""
    if node.op_type not in ("Gemm", "MatMul") or not index.is_standard(node):
        return None
    found = dense.entry(index, node) if index.opset >= OLDEST_OPSET else None
    return None if found is None else (node.input[found[0]], found[1])
