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

# What picks and joins sizes.
COMPUTING = {"Concat", "Gather", "Identity", "Slice", "Squeeze", "Unsqueeze"}
# Nodes between a size and where a Reshape goes.
MOST_STEPS = 12


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
            if value is None and node.op_type == "Reshape":
                value = _computed(index, name)
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


def _computed(index: Index, tensor: str, depth: int = 0) -> NDArray[np.generic] | None:
    """Integers that are computed from sizes, for a first axis of size 1 where it is open."""
    value, position = index.array(tensor), index.producer.get(tensor)
    if value is not None or position is None:
        return value
    node = index.nodes[position]
    if not index.is_standard(node) or depth > MOST_STEPS:
        return None
    if node.op_type == "Shape" and not node.attribute:
        dims = index.shape(node.input[0])
        known = dims is not None and all(dim.static for dim in dims[1:])
        return (
            np.array([d.size if d.static else 1 for d in dims or ()], np.int64) if known else None
        )
    read = {name: _computed(index, name, depth + 1) for name in node.input if name}
    feeds = {name: v for name, v in read.items() if v is not None}
    if node.op_type not in COMPUTING or len(feeds) < len(read):
        return None
    return _run(index, node, feeds, TensorProto.INT64)[0]


def picks_first_size(index: Index, node: NodeProto) -> bool:
    """Whether of the sizes that a Shape gives nobody reads another than the first."""
    dims, name = index.shape(node.input[0]), node.output[0]
    if node.attribute or dims is None or name in index.pinned:
        return False
    for reader in (index.nodes[place] for place in index.readers.get(name, ())):
        fixed = {n: index.array(n) for n in reader.input[1:] if n}
        feeds = {n: v for n, v in fixed.items() if v is not None} | {name: np.arange(len(dims))}
        plain = index.is_standard(reader) and not any(a.ref_attr_name for a in reader.attribute)
        picks = plain and reader.op_type in ("Gather", "Slice") and reader.input[0] == name
        if not picks or len(feeds) < len(fixed) + 1:
            return False
        if _run(index, reader, feeds, TensorProto.INT64)[0].any():
            return False
    return True


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
