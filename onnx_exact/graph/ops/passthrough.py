"""What leaves a tensor as it is: Identity, Dropout, Cast to its own type, a Sum of one."""

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


def cast(index: Index, node: NodeProto, slot: int, layout: Layout) -> Regroup | None:
    """x, where that is the type that it has."""
    kind = index.elem_type(node.input[0])
    return Regroup(layout) if kind and attributes(node)["to"].i == kind else None


def alone(index: Index, node: NodeProto, slot: int, layout: Layout) -> Regroup | None:
    """x, where nothing is joined with it."""
    return Regroup(layout) if len(node.input) == 1 else None


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
