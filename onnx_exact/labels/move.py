"""One node run alone: data movement on arrays of labels in place of values, products in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from onnx_exact.graph.index import Index
from onnx_exact.network.affine import Array

Labels = NDArray[np.int64]
MOVES = {
    *("Concat", "Flatten", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Transpose"),
    "Unsqueeze",
}


def run_on(index: Index, node: NodeProto, arrays: Sequence[Labels]) -> dict[str, Labels] | None:
    """What data movement makes of labels; None where it fails."""
    moved = range(len(node.input)) if node.op_type == "Concat" else (0,)
    feeds: dict[str, NDArray[np.generic]] = {}
    names = []
    for i, name in enumerate(node.input):
        names.append(f"in{i}" if name else "")
        if i in moved:
            feeds[f"in{i}"] = np.array(arrays[i])
        elif name:
            value = index.array(name)
            if value is None:
                return None
            feeds[f"in{i}"] = value
    alone = NodeProto()
    alone.CopyFrom(node)
    del alone.input[:]
    alone.input.extend(names)
    try:
        found = _run(index, alone, feeds, TensorProto.INT64)
    except Exception:  # of any kind, where sizes that are not known matter
        return None
    return dict(zip([n for n in node.output if n], map(np.asarray, found), strict=True))


def run_linear(index: Index, node: NodeProto, x: Array, weight: Array) -> Array:
    """What a product with weights is in float64.

    Args:
        index: of the graph.
        node: Conv, ConvTranspose, Gemm or MatMul, without a bias.
        x, weight: what it is to read.
    """
    feeds = {node.input[0]: x, node.input[1]: weight}
    return np.asarray(_run(index, node, feeds, TensorProto.DOUBLE)[0])


def _run(
    index: Index, node: NodeProto, feeds: Mapping[str, NDArray[Any]], kind: int
) -> list[NDArray[Any]]:
    """The outputs of one node, by ONNX's own reference."""
    from onnx.reference import ReferenceEvaluator

    reads = [helper.make_tensor_value_info(k, kind, v.shape) for k, v in feeds.items()]
    makes = [helper.make_tensor_value_info(n, kind, None) for n in node.output if n]
    graph = helper.make_graph([node], "alone", reads, makes)
    model = helper.make_model(graph, opset_imports=index.model.opset_import)
    found: Any = ReferenceEvaluator(model).run(None, dict(feeds))
    return [np.asarray(value) for value in found]


def compressed(labels: Labels) -> Labels:
    """Size 1 along axes of which all entries have the same labels."""
    for axis in range(labels.ndim):
        first = labels.take([0], axis=axis)
        if labels.shape[axis] > 1 and (labels == first).all():
            labels = first
    return labels
