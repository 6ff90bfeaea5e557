"""Intervals through operators that only move, pick or join entries."""

from __future__ import annotations

from math import prod

import numpy as np

from onnx_exact.graph.bounds.context import Context
from onnx_exact.graph.bounds.interval import Interval, between, join
from onnx_exact.graph.evaluate import evaluated
from onnx_exact.graph.layout import Shape, is_static, product
from onnx_exact.graph.ops.regroup import reshaped
from onnx_exact.network.affine import Array

# Pad takes its pads and its value as inputs since this operator set.
PAD_INPUTS_SINCE = 11
# Roundings of a mean of neighbours and of its weights.
MEAN_OPERATIONS = 64
# Above so many entries nothing is moved one by one.
LARGEST_EXECUTED = 2**20


def reshape(c: Context) -> Interval | None:
    """The same entries along other axes."""
    before = c.shape()
    if before is None:
        return _anywhere(c)
    after = reshaped(c.index, c.node, before) or c.shape_out
    if after is None or c.x.rank != len(before):
        return _anywhere(c)
    for start in range(len(before) + 1):
        tail = before[start:]
        split = _tail(after, tail) if is_static(tail) else None
        if split is not None and product(before[:start]) == product(after[:split]):
            return _moved(c.x, start, tail, split, after[split:])
    return _anywhere(c)


def _tail(shape: Shape, tail: Shape) -> int | None:
    """Where the axes of `shape` start that hold as many entries as `tail`."""
    for split in range(len(shape) + 1):
        if is_static(shape[split:]) and product(shape[split:]) == product(tail):
            return split
    return None


def _moved(x: Interval, start: int, tail: Shape, split: int, after: Shape) -> Interval:
    sizes, target = [d.size for d in tail], (1,) * split + tuple(d.size for d in after)

    def move(values: Array) -> Array:
        part = values.reshape(values.shape[start:])
        return np.broadcast_to(part, sizes).reshape(target)

    return x.hull(tuple(range(start))).mapped(move)


def _anywhere(c: Context) -> Interval:
    """The bounds over all entries, with the rank of the output."""
    rank = c.rank_out() or 0
    return c.x.hull().mapped(lambda v: v.reshape((1,) * rank))


def pick(c: Context) -> Interval | None:
    """Some entries of the first input: those that the node picks, else anywhere."""
    return _executed(c) or _anywhere(c)


def pick_or_zero(c: Context) -> Interval | None:
    """Some entries of the first input, or 0."""
    return join([_anywhere(c), between(0.0, 0.0, 0)])


def pick_or_update(c: Context) -> Interval | None:
    """Entries of the first input, or of the third in their place."""
    if c.text("reduction", "none") != "none" or c.inputs[2] is None:
        return None
    return join([c.x, c.inputs[2].hull().mapped(lambda v: v.reshape(()))])


def _executed(c: Context) -> Interval | None:
    """What a node makes of the bounds themselves, entry by entry, where all it moves is known.

    An axis of unknown size, along which all bounds are the same, is one of size 1 here and has to
    be one afterwards.
    """
    shape, after = c.shape(), c.shape_out
    if shape is None or after is None or c.x.rank != len(shape):
        return None
    sizes = [dim.size if dim.static else 1 for dim in shape]
    others = [c.index.array(name) if name else None for name in c.node.input[1:]]
    known = all(v is not None for v, n in zip(others, c.node.input[1:], strict=True) if n)
    if not known or max(prod(sizes), product(after).size) > LARGEST_EXECUTED:
        return None
    sides = []
    for side in (c.x.lower, c.x.upper):
        found = evaluated(c.index, c.node, [np.broadcast_to(side, sizes), *others])
        if found is None:
            return None
        sides.append(found[c.position])
    expected = tuple(dim.size if dim.static else 1 for dim in after)
    low, high = sides
    return Interval(low, high) if low.shape == high.shape == expected else None


def resize(c: Context) -> Interval | None:
    """Entries of the input, or means of neighbours with weights that sum to 1."""
    mode, found = c.text("mode", "nearest"), _within_unscaled(c)
    crops = c.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    if mode not in ("nearest", "linear") or crops or not found.finite:
        return found if mode == "nearest" and not crops else None
    if mode == "nearest":
        return found
    room = c.kind.gamma(MEAN_OPERATIONS) * np.maximum(np.abs(found.lower), np.abs(found.upper))
    room = room + MEAN_OPERATIONS * c.kind.smallest_normal
    return Interval(found.lower - room, found.upper + room)


def _within_unscaled(c: Context) -> Interval:
    """Bounds over all entries at the same place of the axes that a Resize leaves as they are."""
    whole, rank = _anywhere(c), c.rank_out()
    if c.x.rank != rank or c.integers("axes") is not None:
        return whole
    slot = 2 if c.node.op_type == "Resize" and len(c.node.input) > 2 else 1
    scales = c.constant(slot)
    if scales is None or scales.shape != (rank,):
        return whole
    return c.x.hull(tuple(np.flatnonzero(scales != 1.0).tolist()))


def index_of(c: Context) -> Interval | None:
    """A place along an axis."""
    shape, rank = c.shape(), c.rank_out() or 0
    size = None if not shape else shape[c.integer("axis", 0)]
    return None if size is None or not size.static else between(0.0, size.size - 1.0, rank)


def one_hot(c: Context) -> Interval | None:
    """One of the two values of the third input."""
    values = c.inputs[2]
    rank = c.rank_out() or 0
    return None if values is None else values.hull().mapped(lambda v: v.reshape((1,) * rank))


def pad(c: Context) -> Interval | None:
    """Entries of the input, and the constant around them."""
    moved = _executed(c) if c.index.opset >= PAD_INPUTS_SINCE else None
    if moved is not None:
        return moved
    found = _anywhere(c)
    if c.text("mode", "constant") != "constant":
        return found
    filled = between(0.0, 0.0, 0)
    if c.index.opset < PAD_INPUTS_SINCE:
        filled = c.attribute("value", 0.0)
    elif len(c.inputs) > 2 and c.inputs[2] is not None:
        filled = c.inputs[2].hull().mapped(lambda v: v.reshape(()))
    return join([found, filled])


def transpose(c: Context) -> Interval | None:
    """Axes in another order."""
    axes = c.integers("perm") or list(range(c.x.rank))[::-1]
    if len(axes) != c.x.rank:
        return _anywhere(c)
    return c.x.mapped(lambda v: v.transpose(axes))


def concat(c: Context) -> Interval | None:
    """The inputs one after another along an axis."""
    inputs = [x for x in c.inputs if x is not None]
    rank = c.rank_out()
    if not rank or any(x.rank != rank for x in inputs):
        return None
    axis = c.integer("axis", 1) % rank
    shapes = [c.shape(i) for i in range(len(inputs))]
    sizes = [shape[axis] for shape in shapes if shape is not None]
    if len(sizes) < len(inputs) or not is_static(tuple(sizes)):
        # Where each input lies is not known: the same bounds all along the axis.
        inputs = [x.hull((axis,)) for x in inputs]
        return join(inputs)
    common = [max(x.lower.shape[a] for x in inputs) for a in range(rank)]

    def joined(parts: list[Array]) -> Array:
        pieces = []
        for part, size in zip(parts, sizes, strict=True):
            pieces.append(np.broadcast_to(part, [*common[:axis], size.size, *common[axis + 1 :]]))
        return np.concatenate(pieces, axis)

    return Interval(joined([x.lower for x in inputs]), joined([x.upper for x in inputs]))
