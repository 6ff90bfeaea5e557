"""The entries of integer tensors that are made of sizes, with symbols for sizes that are not known.

Exporters write the target of a Reshape as a small program: Shape, Gather, Concat and the like.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import NodeProto

from onnx_exact.graph.layout import Dim, product

if TYPE_CHECKING:
    from onnx_exact.graph.index import Index

# They leave the entries of a tensor as they are, and in their order.
SAME_ENTRIES = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
# Such programs are short, and longer tensors are no shapes.
MOST_STEPS, MOST_ENTRIES = 32, 64


def entries(index: Index, tensor: str, steps: int = MOST_STEPS) -> tuple[Dim, ...] | None:
    """The entries of an integer tensor of any shape, in order; None where they are not known."""
    known = index.integers(tensor)
    if known is not None:
        return tuple(map(Dim, known)) if len(known) <= MOST_ENTRIES else None
    position = index.producer.get(tensor)
    if position is None or steps == 0:
        return None
    node = index.nodes[position]
    if not index.is_standard(node):
        return None
    if node.op_type == "Shape":
        shape = index.shape(node.input[0])
        options = {a.name: a.i for a in node.attribute}
        return None if shape is None else shape[slice(options.get("start"), options.get("end"))]
    if node.op_type == "Size":
        shape = index.shape(node.input[0])
        return None if shape is None else (product(shape),)
    if node.op_type == "Concat":
        parts = [entries(index, name, steps - 1) for name in node.input]
        known_parts = [part for part in parts if part is not None]
        joined = tuple(dim for part in known_parts for dim in part)
        return joined if len(known_parts) == len(parts) else None
    first = entries(index, node.input[0], steps - 1)
    if first is None:
        return None
    return first if node.op_type in SAME_ENTRIES else _picked(index, node, first, steps)


def _picked(
    index: Index, node: NodeProto, first: tuple[Dim, ...], steps: int
) -> tuple[Dim, ...] | None:
    """What a node takes or makes of entries along one axis."""
    if node.op_type == "Gather":
        places = index.integers(node.input[1])
        if places is None or not all(-len(first) <= i < len(first) for i in places):
            return None
        return tuple(first[i] for i in places)
    if node.op_type == "Slice" and len(node.input) > 2:
        given = [index.integers(name) if name else [0] for name in node.input[1:]]
        if any(part is None or len(part) != 1 for part in given):
            return None
        numbers = [part[0] for part in given if part]
        step = numbers[3] if len(numbers) > 3 else 1
        return first[numbers[0] : numbers[1] : step] if step > 0 else None
    if node.op_type in ("Mul", "Div"):
        second = entries(index, node.input[1], steps - 1)
        if second is None or len(first) != len(second):
            return None
        if node.op_type == "Mul":
            return tuple(a * b for a, b in zip(first, second, strict=True))
        found = [a.over(b) for a, b in zip(first, second, strict=True)]
        whole = tuple(dim for dim in found if dim is not None)
        return whole if len(whole) == len(found) else None
    return None
