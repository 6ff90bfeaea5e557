"""Gemm and MatMul with a constant matrix on either side.

With the constant W on the right the features lie along the last axis, X W: h -> W^T h. With W on
the left they lie along the last axis but one, W X: h -> W h (column layout). Gemm transposes first:
alpha A' B' + beta C.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from onnx_exact.graph.index import FLOATS, Index, attributes
from onnx_exact.graph.layout import Dim, Layout, Shape
from onnx_exact.graph.ops.step import Dense, matrix, per_unit, weights
from onnx_exact.network.approximate import Approximate

GEMM_ATTRIBUTES = {"alpha", "beta", "transA", "transB"}
FUSED_ATTRIBUTES = {*GEMM_ATTRIBUTES, "activation", "activation_alpha", "activation_beta"}
FUSED_GEMM, FUSED_MATMUL = "com.microsoft.FusedGemm", "com.microsoft.FusedMatMul"
# Where a chain can start.
ENTRIES = ("Gemm", "MatMul", FUSED_GEMM, FUSED_MATMUL)


def gemm(index: Index, node: NodeProto, slot: int, layout: Layout) -> Dense | None:
    """Gemm with A or B constant, C constant per unit or missing; FusedGemm takes a Relu along."""
    known = attributes(node)
    fused = index.operator(node) == FUSED_GEMM
    taken = FUSED_ATTRIBUTES if fused else GEMM_ATTRIBUTES
    if slot > 1 or layout.rank != 2 or known.keys() - taken:
        return None
    if fused and ("activation" not in known or known["activation"].s != b"Relu"):
        return None
    read = matrix(index, node.input[1 - slot])
    if read is None or read.value.ndim != 2 or 0 in read.value.shape:
        return None
    transposed = [bool(known[key].i) if key in known else False for key in ("transA", "transB")]
    alpha, beta = (known[key].f if key in known else 1.0 for key in ("alpha", "beta"))
    # The axis of the chain's tensor that is summed over, and the other one.
    axis = (1 - slot) ^ transposed[slot]
    weight = read.transposed if (slot == 0) ^ transposed[1 - slot] else read
    if not layout.along(axis) or weight.value.shape[1] != layout.width:
        return None
    batch, width = layout.shape[1 - axis], Dim(weight.value.shape[0])
    after = Layout((batch, width), 1, 2) if slot == 0 else Layout((width, batch), 0, 1)
    bias = Approximate(np.zeros(after.width))
    if len(node.input) > 2 and node.input[2]:
        constant = weights(index, node.input[2])
        added = None if constant is None else per_unit(after, constant)
        if added is None:
            return None
        bias = _times(beta, added)
    return Dense(_times(alpha, weight), bias, after, rectified=fused)


def matmul(index: Index, node: NodeProto, slot: int, layout: Layout) -> Dense | None:
    """MatMul with a constant vector, matrix, or matrix with leading axes of size 1."""
    if node.attribute:
        return None
    read = matrix(index, node.input[1 - slot])
    if read is None or read.value.ndim == 0 or 0 in read.value.shape:
        return None
    sizes = read.value.shape
    if len(sizes) > 2:
        if len(sizes) > layout.rank or any(size != 1 for size in sizes[:-2]):
            return None
        read = read.reshaped(*sizes[-2:])
    axis = layout.rank - (1 if slot == 0 or layout.rank == 1 else 2)
    vector = len(sizes) == 1
    rows = read.reshaped(1, -1) if vector else read
    weight = rows if vector or slot == 1 else rows.transposed
    outputs, inputs = weight.value.shape
    if not layout.along(axis) or inputs != layout.width:
        return None
    width: Shape = () if vector else (Dim(outputs),)
    shape = layout.shape[:axis] + width + layout.shape[axis + 1 :]
    after = Layout(shape, axis, axis + len(width))
    return Dense(weight, Approximate(np.zeros(outputs)), after)


def fused_matmul(index: Index, node: NodeProto, slot: int, layout: Layout) -> Dense | None:
    """alpha x W or alpha x W' with a constant matrix, as onnxruntime writes it."""
    known = attributes(node)
    if slot or known.keys() - {"alpha", "transA", "transB"}:
        return None
    read = matrix(index, node.input[1])
    turned = "transA" in known and known["transA"].i
    if read is None or read.value.ndim != 2 or 0 in read.value.shape or turned:
        return None
    weight = read if "transB" in known and known["transB"].i else read.transposed
    outputs, inputs = weight.value.shape
    if layout.rank < 2 or not layout.along(-1) or inputs != layout.width:
        return None
    shape = (*layout.shape[:-1], Dim(outputs))
    alpha = known["alpha"].f if "alpha" in known else 1.0
    after = Layout(shape, layout.rank - 1, layout.rank)
    return Dense(_times(alpha, weight), Approximate(np.zeros(outputs)), after)


def _times(factor: float, values: Approximate) -> Approximate:
    """An attribute of Gemm times a constant."""
    return values if factor == 1.0 else Approximate(np.asarray(factor)) * values


def entry(index: Index, node: NodeProto) -> tuple[int, Layout] | None:
    """Where a chain can enter this product: the input's position and its layout."""
    if len(node.input) < 2:
        return None
    slot = 1 if index.is_constant(node.input[0]) else 0
    constant = index.value(node.input[1 - slot])
    if constant is None or index.is_constant(node.input[slot]):
        return None
    matrix = constant.values
    if matrix.dtype not in FLOATS.values() or matrix.ndim == 0 or 0 in matrix.shape:
        return None
    if index.operator(node) in ("Gemm", FUSED_GEMM):
        return _gemm_entry(index, node, slot, matrix)
    if index.operator(node) == FUSED_MATMUL and matrix.ndim == 2:
        turned = attributes(node).get("transB")
        matrix = matrix.T if turned is not None and turned.i else matrix
    return _matmul_entry(index, node, slot, matrix)


def _gemm_entry(
    index: Index, node: NodeProto, slot: int, matrix: NDArray[np.generic]
) -> tuple[int, Layout] | None:
    known = attributes(node)
    transposed = [bool(known[key].i) if key in known else False for key in ("transA", "transB")]
    if matrix.ndim != 2:
        return None
    axis = (1 - slot) ^ transposed[slot]
    size = matrix.shape[slot ^ transposed[1 - slot]]
    name = node.input[slot]
    # Gemm takes matrices only, so the rank is known even where the shape is not.
    shape = index.shape(name) or tuple(Dim(1, (f"?{name}:{i}",)) for i in range(2))
    if len(shape) != 2 or not _may_be(shape[axis], size):
        return None
    return slot, Layout.at_axis(shape, axis, size)


def _matmul_entry(
    index: Index, node: NodeProto, slot: int, matrix: NDArray[np.generic]
) -> tuple[int, Layout] | None:
    shape = index.shape(node.input[slot])
    if not shape:
        return None
    size = matrix.shape[-2] if slot == 0 and matrix.ndim > 1 else matrix.shape[-1]
    axis = -1 if slot == 0 or len(shape) == 1 else -2
    return (slot, Layout.at_axis(shape, axis, size)) if _may_be(shape[axis], size) else None


def _may_be(dim: Dim, size: int) -> bool:
    """Whether an axis can have this size: a file may be wrong about what it declares."""
    return not dim.static or dim == Dim(size)
