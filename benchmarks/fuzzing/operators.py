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

from benchmarks.fuzzing.graphs import Operator
from benchmarks.fuzzing.movement import MOVEMENT
from benchmarks.fuzzing.tensors import Graph, Shape, Tensor

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
    *MOVEMENT,
    *(_cast, _cast, _where, _top, _one_hot, _shape_of, _constant_of_shape, _quantize, _if),
    *(_jump_to(op, np.bool_) for op in ("Greater", "Less", "Equal")),
    *_all(_logic, ("Not", "And", "Or", "Xor")),
    *_all(_arg, ("ArgMax", "ArgMin")),
    *_all(_integer, ("Add", "Mul", "Mod", "Sub")),
]
