"""Operators of `benchmarks.fuzz` that move entries, and those that slide windows over them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.fuzzing.graphs import Operator
from benchmarks.fuzzing.tensors import Graph, Shape, Tensor

# -- movement --


def _transpose(g: Graph, x: Tensor) -> Tensor | None:
    if x.rank < 2:
        return None
    axes = [0, *(1 + g.rng.permutation(x.rank - 1))] if g.chance(0.7) else g.rng.permutation(x.rank)
    order = [int(a) for a in axes]
    return replace(
        g.make("Transpose", [x.name], x, perm=order), shape=tuple(x.shape[a] for a in order)
    )


def _flatten(g: Graph, x: Tensor) -> Tensor | None:
    if not x.is_batched:
        return None
    size = int(np.prod([s for s in x.shape[1:] if s is not None]))
    return replace(g.make("Flatten", [x.name], x), shape=(None, size))


def _reshape(g: Graph, x: Tensor) -> Tensor | None:
    if not x.is_batched or x.rank < 2:
        return None
    size = int(np.prod([s for s in x.shape[1:] if s is not None]))
    factor = int(g.one_of([f for f in range(1, size + 1) if size % f == 0] or [1]))
    shape: Shape = g.one_of(((None, factor, size // factor), (None, size), (None, 1, size)))
    first = g.one_of((0, -1))
    target = [first, *(s for s in shape[1:] if s is not None)]
    if first == 0 and g.chance(0.3):
        target[-1] = -1
    return replace(g.make("Reshape", [x.name, g.ints(*target)], x), shape=shape)


def _mix_batch(g: Graph, x: Tensor) -> Tensor | None:
    """Rows of the batch become features, or the other way round."""
    if not x.is_batched or x.rank < 3:
        return None
    last = x.shape[-1]
    assert last is not None
    kind = g.rng.random()
    if kind < 0.3:
        return replace(g.make("Flatten", [x.name], x, axis=0), shape=(1, None), mixed=True)
    if kind < 0.5:
        tail = math.prod(size or 1 for size in x.shape[2:])
        return replace(g.make("Flatten", [x.name], x, axis=2), shape=(None, tail), mixed=True)
    shape: Shape = g.one_of(((None, last), (last, None), (1, None, last), (None, 1, last)))
    target = [-1 if size is None else size for size in shape]
    return replace(g.make("Reshape", [x.name, g.ints(*target)], x), shape=shape, mixed=True)


def _unsqueeze(g: Graph, x: Tensor) -> Tensor | None:
    if x.rank > 3 or x.rank == 0:
        return None
    axis = int(g.rng.integers(1, x.rank + 1))
    name = g.with_axes("Unsqueeze", x.name, [axis], 13)
    return replace(x, name=name, shape=(*x.shape[:axis], 1, *x.shape[axis:]))


def _squeeze(g: Graph, x: Tensor) -> Tensor | None:
    ones = [axis for axis, size in enumerate(x.shape) if size == 1 and axis]
    if not ones:
        return None
    axis = g.one_of(ones)
    name = g.with_axes("Squeeze", x.name, [axis], 13)
    return replace(x, name=name, shape=(*x.shape[:axis], *x.shape[axis + 1 :]))


def _concat(g: Graph, x: Tensor) -> Tensor | None:
    if not x.is_batched or x.rank < 2:
        return None
    axis = int(g.rng.integers(1, x.rank))
    rest = (x.shape[:axis], x.shape[axis + 1 :])
    others = [
        t
        for t in g.live
        if t.rank == x.rank and t.dtype == x.dtype and (t.shape[:axis], t.shape[axis + 1 :]) == rest
    ]
    y = g.one_of(others)
    size = (x.shape[axis] or 0) + (y.shape[axis] or 0)
    made = g.make("Concat", [x.name, y.name], x, axis=axis)
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
    return replace(made, shape=shape, exact=x.exact and y.exact, reach=max(x.reach, y.reach))


def _split(g: Graph, x: Tensor) -> Tensor | None:
    axes = [a for a, size in enumerate(x.shape) if a and size is not None and size > 1]
    if not axes:
        return None
    axis = g.one_of(axes)
    size = x.shape[axis]
    assert size is not None
    first = int(g.rng.integers(1, size))
    if g.opset >= 13:
        names = g.add("Split", [x.name, g.ints(first, size - first)], 2, axis=axis)
    else:
        names = g.add("Split", [x.name], 2, axis=axis, split=[first, size - first])
    parts = [
        replace(x, name=name, shape=(*x.shape[:axis], part, *x.shape[axis + 1 :]))
        for name, part in zip(names, (first, size - first), strict=True)
    ]
    g.live.append(parts[0])
    return parts[1]


def _slice(g: Graph, x: Tensor) -> Tensor | None:
    axes = [a for a, size in enumerate(x.shape) if a and size is not None and size > 1]
    if not axes:
        return None
    axis = g.one_of(axes)
    size = x.shape[axis]
    assert size is not None
    if g.chance(0.25):
        ends = [g.ints(v) for v in (-1, -(size + 1), axis, -1)]
        return g.make("Slice", [x.name, *ends], x)
    start = int(g.rng.integers(0, size - 1))
    ends = [g.ints(v) for v in (start, 2**31 if g.chance(0.5) else size, axis)]
    shape = (*x.shape[:axis], size - start, *x.shape[axis + 1 :])
    return replace(g.make("Slice", [x.name, *ends], x), shape=shape)


def _gather(g: Graph, x: Tensor) -> Tensor | None:
    axes = [a for a, size in enumerate(x.shape) if a and size]
    if not axes:
        return None
    axis = g.one_of(axes)
    size = x.shape[axis]
    assert size is not None
    index = g.rng.integers(-size, size, int(g.rng.integers(1, 5)))
    made = g.make("Gather", [x.name, g.ints(*(int(i) for i in index))], x, axis=axis)
    return replace(made, shape=(*x.shape[:axis], len(index), *x.shape[axis + 1 :]))


def _pad(g: Graph, x: Tensor) -> Tensor | None:
    if not x.is_float or not x.is_batched or x.rank < 2:
        return None
    before, after = (int(v) for v in g.rng.integers(0, 3, 2))
    pads = [0] * (2 * x.rank)
    pads[x.rank - 1], pads[-1] = before, after
    inputs = [x.name, g.ints(*pads)]
    mode = g.one_of(("constant", "edge"))
    if mode == "constant" and g.chance(0.5):
        inputs.append(g.constant(0.25, x.dtype))
    shape = (*x.shape[:-1], (x.shape[-1] or 0) + before + after)
    return replace(g.make("Pad", inputs, x, mode=mode), shape=shape)


def _tile(g: Graph, x: Tensor) -> Tensor | None:
    if not x.is_batched or x.rank < 2 or (x.shape[-1] or 0) > 12:
        return None
    made = g.make("Tile", [x.name, g.ints(*[1] * (x.rank - 1), 2)], x)
    return replace(made, shape=(*x.shape[:-1], 2 * (x.shape[-1] or 0)))


def _expand(g: Graph, x: Tensor) -> Tensor | None:
    if x.rank < 2 or x.shape[-1] != 1:
        return None
    made = g.make("Expand", [x.name, g.ints(*[1] * (x.rank - 1), 3)], x)
    return replace(made, shape=(*x.shape[:-1], 3))


def _cumsum(g: Graph, x: Tensor) -> Tensor | None:
    if not x.is_float or x.dtype == np.float16 or not x.is_batched or x.rank < 2:
        return None
    axis = g.constant(np.array(x.rank - 1, np.int64))
    return replace(g.make("CumSum", [x.name, axis], x), reach=x.reach * (x.shape[-1] or 1))


def _trilu(g: Graph, x: Tensor) -> Tensor | None:
    if g.opset < 14 or x.rank < 3 or not x.is_float or x.dtype == np.float16:
        return None
    return g.make("Trilu", [x.name], x, upper=int(g.chance(0.5)))


def _gather_elements(g: Graph, x: Tensor) -> Tensor | None:
    if x.shape[:1] != (1,) or x.rank != 2 or not x.shape[1]:
        return None
    index = g.rng.integers(0, x.shape[1], (1, 3))
    made = g.make("GatherElements", [x.name, g.constant(index, np.int64)], x, axis=1)
    return replace(made, shape=(1, 3))


def _space_to_depth(g: Graph, x: Tensor) -> Tensor | None:
    if not x.is_float or x.rank != 4 or not x.is_batched:
        return None
    c, h, w = (size or 0 for size in x.shape[1:])
    if h % 2 or w % 2 or not h or not w:
        return None
    made = g.make("SpaceToDepth", [x.name], x, blocksize=2)
    return replace(made, shape=(None, 4 * c, h // 2, w // 2))


def _depth_to_space(g: Graph, x: Tensor) -> Tensor | None:
    if not x.is_float or x.rank != 4 or not x.is_batched or (x.shape[1] or 1) % 4:
        return None
    c, h, w = (size or 0 for size in x.shape[1:])
    made = g.make("DepthToSpace", [x.name], x, blocksize=2, mode=g.one_of(("DCR", "CRD")))
    return replace(made, shape=(None, c // 4, 2 * h, 2 * w))


# -- convolutions --


def _conv(g: Graph, x: Tensor) -> Tensor | None:
    if not x.is_float or not x.is_batched or x.rank not in (3, 4):
        return None
    channels = x.shape[1] or 0
    spatial = [size or 0 for size in x.shape[2:]]
    kernel = [int(g.rng.integers(1, min(3, size) + 1)) for size in spatial]
    group = channels if g.chance(0.2) else 1
    out = group * int(g.rng.integers(1, 3)) if group > 1 else int(g.rng.integers(1, 5))
    w = g.rng.normal(0, 0.5, (out, channels // group, *kernel))
    inputs = [x.name, g.constant(w, x.dtype)]
    if g.chance(0.7):
        inputs.append(g.constant(g.rng.normal(0, 0.3, out), x.dtype))
    made = g.make("Conv", inputs, x, group=group, kernel_shape=kernel)
    sizes = [size - k + 1 for size, k in zip(spatial, kernel, strict=True)]
    return replace(made, shape=(None, out, *sizes), exact=False, reach=2 * x.reach)


def _conv_transpose(g: Graph, x: Tensor) -> Tensor | None:
    if not x.is_float or not x.is_batched or x.rank not in (3, 4):
        return None
    w = g.rng.normal(0, 0.5, (x.shape[1] or 0, 2, *[2] * (x.rank - 2)))
    made = g.make("ConvTranspose", [x.name, g.constant(w, x.dtype)], x)
    sizes = [(size or 0) + 1 for size in x.shape[2:]]
    return replace(made, shape=(None, 2, *sizes), exact=False, reach=2 * x.reach)


def _pool(op: str) -> Operator:
    def grow(g: Graph, x: Tensor) -> Tensor | None:
        if not x.is_float or not x.is_batched or x.rank not in (3, 4):
            return None
        if min(size or 0 for size in x.shape[2:]) < 2:
            return None
        stride, pad = int(g.one_of((1, 2))), int(g.one_of((0, 0, 1)))
        n = x.rank - 2
        attributes: dict[str, Any] = {"kernel_shape": [2] * n, "strides": [stride] * n}
        if pad:
            attributes["pads"] = [pad] * (2 * n)
        if op == "AveragePool" and g.chance(0.5):
            attributes["count_include_pad"] = 1
        made = g.make(op, [x.name], x, **attributes)
        sizes = [((size or 0) + 2 * pad - 2) // stride + 1 for size in x.shape[2:]]
        return replace(made, shape=(*x.shape[:2], *sizes))

    return grow


def _global_pool(op: str) -> Operator:
    def grow(g: Graph, x: Tensor) -> Tensor | None:
        if not x.is_float or not x.is_batched or x.rank not in (3, 4):
            return None
        return replace(g.make(op, [x.name], x), shape=(*x.shape[:2], *[1] * (x.rank - 2)))

    return grow


def _normalization(op: str, since: int = 1) -> Operator:
    def grow(g: Graph, x: Tensor) -> Tensor | None:
        if not x.is_float or not x.is_batched or x.rank < 3 or g.opset < since:
            return None
        size = (x.shape[-1] if op == "LayerNormalization" else x.shape[1]) or 1
        numbers = [g.rng.uniform(0.5, 1.5, size), g.rng.normal(0, 0.3, size)]
        if op == "BatchNormalization":
            numbers += [g.rng.normal(0, 0.2, size), g.rng.uniform(0.5, 1.5, size)]
        names = [g.constant(v, x.dtype) for v in numbers]
        # With an epsilon of its own order, what is normalised is smooth.
        return replace(g.make(op, [x.name, *names], x, epsilon=0.1), reach=4.0)

    return grow


def _lrn(g: Graph, x: Tensor) -> Tensor | None:
    if x.dtype != np.float32 or not x.is_batched or x.rank != 4:
        return None
    return g.make("LRN", [x.name], x, size=3)


MOVEMENT: list[Operator] = [
    *(_transpose, _flatten, _reshape, _reshape, _mix_batch, _unsqueeze, _squeeze, _concat, _concat),
    *(_split, _slice, _gather, _pad, _tile, _expand, _cumsum, _trilu, _gather_elements),
    *(_space_to_depth, _depth_to_space, _conv, _conv, _conv_transpose),
    *(_pool(op) for op in ("MaxPool", "AveragePool")),
    *(_global_pool(op) for op in ("GlobalAveragePool", "GlobalMaxPool")),
    *(_normalization(op) for op in ("BatchNormalization", "InstanceNormalization")),
    _normalization("LayerNormalization", since=17),
    _lrn,
]
