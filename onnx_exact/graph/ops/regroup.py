"""Flatten, Reshape, Squeeze and Unsqueeze: the same entries in the same order, other axes.

Each gives the shape it makes; whether that only regroups the features is Layout.reshaped's to say.
"""

from __future__ import annotations

from onnx import NodeProto

from onnx_exact.graph.dims import entries
from onnx_exact.graph.index import Index, attributes
from onnx_exact.graph.layout import ONE, Dim, Layout, Shape, product
from onnx_exact.graph.ops.step import Regroup

AXES_AS_INPUT_SINCE = 13


def regroup(index: Index, node: NodeProto, slot: int, layout: Layout) -> Regroup | None:
    """The layout behind the node."""
    shape = reshaped(index, node, layout.shape) if slot == 0 else None
    after = None if shape is None else layout.reshaped(shape)
    return None if after is None else Regroup(after)


def reshaped(index: Index, node: NodeProto, shape: Shape) -> Shape | None:
    """The shape the node makes of a tensor of shape `shape`; None where that is not certain."""
    return SHAPES[node.op_type](index, node, shape)


def _flatten(index: Index, node: NodeProto, shape: Shape) -> Shape | None:
    known = attributes(node)
    axis = known["axis"].i if "axis" in known else 1
    if known.keys() - {"axis"} or not -len(shape) <= axis <= len(shape):
        return None
    axis += len(shape) if axis < 0 else 0
    return product(shape[:axis]), product(shape[axis:])


def _reshape(index: Index, node: NodeProto, shape: Shape) -> Shape | None:
    known = attributes(node)
    target = entries(index, node.input[1]) if len(node.input) == 2 else None
    if target is None or known.keys() - {"allowzero"}:
        return None
    allow_zero = "allowzero" in known and known["allowzero"].i != 0
    sizes: list[Dim | None] = []
    for axis, dim in enumerate(target):
        size = dim.size
        if size > 0:
            sizes.append(dim)
        elif not dim.static:
            return None
        elif size == 0 and not allow_zero and axis < len(shape):
            sizes.append(shape[axis])
        elif size == -1:
            sizes.append(None)
        else:
            return None
    return _completed(sizes, product(shape))


def _completed(sizes: list[Dim | None], total: Dim) -> Shape | None:
    known = [size for size in sizes if size is not None]
    rest = total.over(product(known))
    missing = len(sizes) - len(known)
    if rest is None or missing > 1 or (missing == 0 and rest != ONE):
        return None
    return tuple(rest if size is None else size for size in sizes)


def _squeeze(index: Index, node: NodeProto, shape: Shape) -> Shape | None:
    axes = _axes(index, node)
    if axes is None:
        # With no axes given every axis of size 1 goes: which these are must be known.
        if len(node.input) > 1 or node.attribute or any(not d.static for d in shape):
            return None
        axes = [i for i, dim in enumerate(shape) if dim == ONE]
    gone = {axis % len(shape) for axis in axes if -len(shape) <= axis < len(shape)}
    if len(gone) != len(axes) or any(shape[axis] != ONE for axis in gone):
        return None
    return tuple(dim for i, dim in enumerate(shape) if i not in gone)


def _unsqueeze(index: Index, node: NodeProto, shape: Shape) -> Shape | None:
    axes = _axes(index, node)
    if axes is None:
        return None
    rank = len(shape) + len(axes)
    new = {axis % rank for axis in axes if -rank <= axis < rank}
    if len(new) != len(axes):
        return None
    rest = iter(shape)
    return tuple(ONE if i in new else next(rest) for i in range(rank))


def _axes(index: Index, node: NodeProto) -> list[int] | None:
    known = attributes(node)
    if index.opset < AXES_AS_INPUT_SINCE:
        return list(known["axes"].ints) if known.keys() == {"axes"} else None
    if known or len(node.input) < 2 or not node.input[1]:
        return None
    return index.integers(node.input[1])


SHAPES = {
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}
