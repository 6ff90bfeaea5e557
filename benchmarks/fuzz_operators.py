"""The operators that `fuzz_graphs` may put anywhere, each with random attributes.

An operator that jumps, as rounding and comparing do, is put only behind tensors that are the same
in both models bit for bit: elsewhere a difference in the last place may become any difference,
which is no fault of a rewrite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from benchmarks.fuzz_graphs import Graph, Operator, Shape, Tensor

BOUNDED, SAME, WIDER = 1.0, 0.0, 8.0


def _elementwise(
    op: str, since: int = 1, reach: float = SAME, jumps: bool = False, **attributes: Any
) -> Operator:
    def grow(g: Graph, x: Tensor) -> Tensor | None:
        if not x.is_float or g.opset < since or (jumps and not x.exact):
            return None
        made = g.make(op, [x.name], x, **attributes)
        return replace(made, reach=reach) if reach else made

    return grow


def _positive(op: str) -> Operator:
    """An operator that is smooth away from zero only."""

    def grow(g: Graph, x: Tensor) -> Tensor | None:
        if not x.is_float:
            return None
        size = g.make("Abs", [x.name], x)
        moved = g.make("Add", [size.name, g.constant(0.5, x.dtype)], x)
        return replace(g.make(op, [moved.name], x), reach=2.0)

    return grow


def _with_constant(op: str) -> Operator:
    def grow(g: Graph, x: Tensor) -> Tensor | None:
        if not x.is_float or x.rank == 0:
            return None
        sizes = [1 if size is None or g.chance(0.3) else size for size in x.shape]
        sizes = sizes[int(g.rng.integers(0, len(sizes) + 1)) :]
        values = g.rng.uniform(0.5, 1.5, sizes)
        pair = [x.name, g.constant(values, x.dtype)]
        if op != "Div" and op != "Pow" and g.chance(0.4):
            pair.reverse()
        return replace(g.make(op, pair, x), reach=min(WIDER, 2 * x.reach + 1.5))

    return grow


def _of_two(op: str) -> Operator:
    """Two live tensors of one shape."""

    def grow(g: Graph, x: Tensor) -> Tensor | None:
        others = [t for t in g.live if t.shape == x.shape and t.dtype == x.dtype and not t.mixed]
        if not x.is_float or not others or x.mixed:
            return None
        y = g.one_of(others)
        made = g.make(op, [x.name, y.name], x)
        reach = x.reach * y.reach if op == "Mul" else x.reach + y.reach
        return replace(made, exact=x.exact and y.exact, reach=reach)

    return grow


def _three(op: str) -> Operator:
    def grow(g: Graph, x: Tensor) -> Tensor | None:
        if not x.is_float:
            return None
        scaled = g.make("Mul", [x.name, g.constant(0.5, x.dtype)], x)
        return replace(g.make(op, [x.name, scaled.name, x.name], x), reach=3 * x.reach)

    return grow


def _clip(g: Graph, x: Tensor) -> Tensor | None:
    if not x.is_float:
        return None
    ends = [g.constant(-0.5, x.dtype), g.constant(float(g.one_of((0.75, 6.0))), x.dtype)]
    return g.make("Clip", [x.name, ends[0] if g.chance(0.8) else "", ends[1]], x)


def _prelu(g: Graph, x: Tensor) -> Tensor | None:
    if not x.is_float or not x.is_batched:
        return None
    sizes = [size if size is not None else 1 for size in x.shape[1:]]
    return g.make("PRelu", [x.name, g.constant(g.rng.uniform(0, 1, sizes), x.dtype)], x)


def _reduction(op: str, axes_as_input_since: int = 18, smooth: bool = True) -> Operator:
    def grow(g: Graph, x: Tensor) -> Tensor | None:
        if not x.is_float or x.rank < 2 or not x.is_batched:
            return None
        axis = int(g.rng.integers(1, x.rank))
        keep = g.chance(0.5)
        attributes = {"keepdims": int(keep)}
        axes = [axis - x.rank if g.chance(0.3) else axis]
        name = g.with_axes(op, x.name, axes, axes_as_input_since, **attributes)
        middle: Shape = (1,) if keep else ()
        shape = (*x.shape[:axis], *middle, *x.shape[axis + 1 :])
        size = x.shape[axis] or 1
        reach = x.reach * size if op in ("ReduceSum", "ReduceL1") else x.reach**2 * size
        return replace(x, name=name, shape=shape, reach=reach)

    return grow


def _along(op: str, **attributes: Any) -> Operator:
    def grow(g: Graph, x: Tensor) -> Tensor | None:
        if not x.is_float or x.rank < 2 or not x.is_batched:
            return None
        # Before operator set 13 a softmax runs over all axes from this one on.
        return replace(g.make(op, [x.name], x, axis=x.rank - 1, **attributes), reach=4.0)

    return grow


def _lp(g: Graph, x: Tensor) -> Tensor | None:
    if not x.is_float or not x.is_batched or x.rank < 2:
        return None
    moved = g.make("Add", [x.name, g.constant(9.0, x.dtype)], x)
    return replace(g.make("LpNormalization", [moved.name], x, axis=-1, p=2), reach=1.0)


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
        return replace(g.make("Flatten", [x.name], x, axis=2), shape=(None, last), mixed=True)
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


# -- casts, integers, choices --


def _cast(g: Graph, x: Tensor) -> Tensor | None:
    kinds: list[Any] = [np.float16, np.float32, np.float64]
    if x.exact:
        kinds += [np.int64, np.int32, np.bool_]
    dtype = np.dtype(g.one_of(kinds))
    if dtype == x.dtype or (not x.is_float and dtype.kind == "b"):
        return None
    made = g.make("Cast", [x.name], x, to=helper.np_dtype_to_tensor_dtype(dtype))
    # Rounding to fewer digits jumps.
    narrower = dtype.kind == "f" and x.is_float and dtype.itemsize < x.dtype.itemsize
    if narrower and not x.exact:
        return replace(made, dtype=dtype, exact=False)
    return replace(made, dtype=dtype)


def _jump_to(op: str, kind: Any) -> Operator:
    """Comparisons: a boolean tensor."""

    def grow(g: Graph, x: Tensor) -> Tensor | None:
        if not x.exact or not x.is_float or x.dtype == np.float16:
            return None
        made = g.make(op, [x.name, g.constant(0.3, x.dtype)], x)
        return replace(made, dtype=np.dtype(kind))

    return grow


def _logic(op: str) -> Operator:
    def grow(g: Graph, x: Tensor) -> Tensor | None:
        if x.dtype != np.bool_:
            return None
        return g.make(op, [x.name] if op == "Not" else [x.name, x.name], x)

    return grow


def _where(g: Graph, x: Tensor) -> Tensor | None:
    masks = [t for t in g.live if t.dtype == np.bool_ and t.shape == x.shape and not t.mixed]
    if not masks or not x.is_float or x.mixed:
        return None
    return g.make("Where", [g.one_of(masks).name, x.name, g.constant(0.5, x.dtype)], x)


def _arg(op: str) -> Operator:
    def grow(g: Graph, x: Tensor) -> Tensor | None:
        if not x.exact or not x.is_float or not x.is_batched or x.rank < 2:
            return None
        made = g.make(op, [x.name], x, axis=x.rank - 1, keepdims=1)
        return replace(made, shape=(*x.shape[:-1], 1), dtype=np.dtype(np.int64))

    return grow


def _top(g: Graph, x: Tensor) -> Tensor | None:
    if not x.is_float or not x.is_batched or x.rank < 2 or (x.shape[-1] or 0) < 2:
        return None
    values, _ = g.add("TopK", [x.name, g.ints(2)], 2, axis=-1)
    return replace(x, name=values, shape=(*x.shape[:-1], 2))


def _integer(op: str) -> Operator:
    def grow(g: Graph, x: Tensor) -> Tensor | None:
        if x.dtype not in (np.int64, np.int32):
            return None
        return g.make(op, [x.name, g.constant(np.array(3), x.dtype)], x)

    return grow


def _one_hot(g: Graph, x: Tensor) -> Tensor | None:
    if x.dtype != np.int64 or x.rank > 3:
        return None
    ends = g.constant(np.array([0, 1]), np.float32)
    made = g.make("OneHot", [x.name, g.ints(4), ends], x)
    return replace(made, shape=(*x.shape, 4), dtype=np.dtype(np.float32))


def _shape_of(g: Graph, x: Tensor) -> Tensor | None:
    """A target of Reshape that is computed from shapes, as exporters write it."""
    if not x.is_batched or x.rank < 2:
        return None
    whole = g.add("Shape", [x.name])[0]
    first = g.add("Gather", [whole, g.ints(0)], axis=0)[0]
    target = g.add("Concat", [first, g.ints(-1)], axis=0)[0]
    size = int(np.prod([s for s in x.shape[1:] if s is not None]))
    return replace(g.make("Reshape", [x.name, target], x), shape=(None, size))


def _constant_of_shape(g: Graph, x: Tensor) -> Tensor | None:
    if x.dtype != np.float32 or x.rank == 0:
        return None
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.5])
    filled = g.add("ConstantOfShape", [g.add("Shape", [x.name])[0]], value=value)[0]
    return replace(g.make("Add", [x.name, filled], x), reach=x.reach + 0.5)


def _quantize(g: Graph, x: Tensor) -> Tensor | None:
    if x.dtype != np.float32 or not x.exact:
        return None
    scale, zero = g.constant(0.05, np.float32), g.constant(np.array(3), np.uint8)
    narrow = g.add("QuantizeLinear", [x.name, scale, zero])[0]
    return g.make("DequantizeLinear", [narrow, scale, zero], x)


def _if(g: Graph, x: Tensor) -> Tensor | None:
    """Two branches that read x and a stored tensor of the outer scope."""
    if not x.is_float or not x.is_batched:
        return None
    factor = g.name("outer")
    g.initializers.append(
        helper.make_tensor(factor, helper.np_dtype_to_tensor_dtype(x.dtype), [], [0.5])
    )
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    branches = []
    for op in ("Mul", "Add"):
        inner = g.name("inner")
        value = helper.make_tensor_value_info(inner, kind, None)
        value.type.tensor_type.ClearField("shape")
        node = helper.make_node(op, [x.name, factor], [inner])
        branches.append(helper.make_graph([node], g.name("branch"), [], [value]))
    size = g.add("Size", [x.name])[0]
    condition = g.add("Greater", [size, g.constant(np.array(8, np.int64))])[0]
    g.read.add(x.name)
    made = g.make("If", [condition], x, then_branch=branches[0], else_branch=branches[1])
    return replace(made, reach=x.reach + 0.5)


def _all(make: Callable[[str], Operator], names: Sequence[str]) -> list[Operator]:
    return [make(name) for name in names]


OPERATORS: list[Operator] = [
    *_all(
        _elementwise,
        (
            *("Abs", "Neg", "Relu", "Identity", "Dropout", "Elu", "Selu", "LeakyRelu", "Celu"),
            *("ThresholdedRelu", "Softplus"),
        ),
    ),
    *(
        _elementwise(op, reach=BOUNDED)
        for op in ("Sigmoid", "Tanh", "Softsign", "HardSigmoid", "Erf", "Sin", "Cos", "Atan")
    ),
    _elementwise("HardSwish", since=14),
    _elementwise("Mish", since=18),
    _elementwise("Gelu", since=20),
    _elementwise("Asinh", reach=3.0),
    *(_elementwise(op, jumps=True) for op in ("Floor", "Ceil", "Round", "Sign")),
    *_all(_positive, ("Sqrt", "Log", "Reciprocal")),
    *_all(_with_constant, ("Add", "Sub", "Mul", "Div", "Max", "Min")),
    *_all(_of_two, ("Add", "Sub", "Mul", "Max", "Min")),
    *_all(_three, ("Sum", "Mean")),
    *(_clip, _prelu, _lp),
    _reduction("ReduceSum", 13),
    *_all(
        _reduction,
        ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceSumSquare", "ReduceLogSumExp"),
    ),
    *(_along("Softmax"), _along("LogSoftmax")),
    *(_transpose, _flatten, _reshape, _reshape, _mix_batch, _unsqueeze, _squeeze, _concat, _concat),
    *(_split, _slice, _gather, _pad, _tile, _expand, _cumsum, _trilu, _gather_elements),
    *(_space_to_depth, _depth_to_space, _conv, _conv, _conv_transpose),
    *_all(_pool, ("MaxPool", "AveragePool")),
    *_all(_global_pool, ("GlobalAveragePool", "GlobalMaxPool")),
    *_all(_normalization, ("BatchNormalization", "InstanceNormalization")),
    _normalization("LayerNormalization", since=17),
    *(_lrn, _cast, _cast, _where, _top, _one_hot, _shape_of, _constant_of_shape, _quantize, _if),
    *(_jump_to(op, np.bool_) for op in ("Greater", "Less", "Equal")),
    *_all(_logic, ("Not", "And", "Or", "Xor")),
    *_all(_arg, ("ArgMax", "ArgMin")),
    *_all(_integer, ("Add", "Mul", "Mod", "Sub")),
]
