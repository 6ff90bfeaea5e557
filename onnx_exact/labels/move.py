"""Data movement run on arrays of labels in place of values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from onnx_exact.graph.index import Index

Labels = NDArray[np.int64]
MOVES = {
    *("Concat", "Flatten", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Transpose"),
    "Unsqueeze",
}


def run_on(index: Index, node: NodeProto, arrays: Sequence[Labels]) -> dict[str, Labels] | None:
    """What data movement makes of labels; None where it fails."""
    from onnx.reference import ReferenceEvaluator

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
    reads = [helper.make_tensor_value_info(k, 7, v.shape) for k, v in feeds.items()]
    makes = [helper.make_tensor_value_info(n, 7, None) for n in node.output if n]
    graph = helper.make_graph([alone], "move", reads, makes)
    model = helper.make_model(graph, opset_imports=index.model.opset_import)
    try:
        found = ReferenceEvaluator(model).run(None, feeds)
    except Exception:  # of any kind, where sizes that are not known matter
        return None
    return dict(zip([n for n in node.output if n], map(np.asarray, found), strict=True))


def compressed(labels: Labels) -> Labels:
    """Size 1 along axes of which all entries have the same labels."""
    for axis in range(labels.ndim):
        first = labels.take([0], axis=axis)
        if labels.shape[axis] > 1 and (labels == first).all():
            labels = first
    return labels
