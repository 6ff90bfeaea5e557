"""Identity, and Dropout in inference form."""

from __future__ import annotations

from onnx import NodeProto

from onnx_exact.graph.index import Index, attributes
from onnx_exact.graph.layout import Layout
from onnx_exact.graph.ops.step import Regroup

# ratio and seed only act in training.
DROPOUT_ATTRIBUTES = {"ratio", "seed"}


def identity(index: Index, node: NodeProto, slot: int, layout: Layout) -> Regroup | None:
    """x."""
    return None if node.attribute else Regroup(layout)


def dropout(index: Index, node: NodeProto, slot: int, layout: Layout) -> Regroup | None:
    """x, where the node does not train and nobody reads its mask."""
    if slot != 0 or trains(index, node):
        return None
    read = any(mask and not index.unread(mask) for mask in node.output[1:])
    return None if read else Regroup(layout)


def trains(index: Index, node: NodeProto) -> bool:
    """Whether a Dropout may drop something: its training_mode is not a constant false."""
    if attributes(node).keys() - DROPOUT_ATTRIBUTES:
        return True
    if len(node.input) > 2 and node.input[2]:
        return index.integers(node.input[2]) != [0]
    return False
