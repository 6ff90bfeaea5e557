"""The attribute combinations of reductions, quantisation, selection and transposed convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from onnx import TensorProto

from tests.graph.rules.combination import FLOATS, Combination, Constant, Variable
from tests.graph.rules.grid_functions import functions

X = Variable(("n", 4))
STATIC = Variable((2, 3, 4))
LINE = Variable(("n", 2, 5))
RNG = np.random.default_rng(9)
SINGLE = (TensorProto.FLOAT,)
# What quantisation is defined for.
SMALL = FLOATS[:2]


def ints(*values: int) -> Constant:
    return Constant(np.asarray(values, np.int64))


def more() -> Iterator[Combination]:
    yield from _functions()
    yield from _selections()
    yield from _reductions()
    yield from _quantisations()
    yield from _transposed()
    yield from functions()


def _functions() -> Iterator[Combination]:
    for op in ("Cos", "Exp", "Sin", "Sqrt"):
        yield Combination(op, (X,))
        yield Combination(op, (Variable(()),))
    for alpha in (None, 0.0, 0.3, 4.0, -1.0):
        yield Combination("Elu", (X,), {} if alpha is None else {"alpha": alpha})
        for beta in (None, -0.7, 3.0):
            known = {"alpha": alpha, "beta": beta}
            attributes = {k: v for k, v in known.items() if v is not None}
            yield Combination("HardSigmoid", (X,), attributes, types=FLOATS if beta else SINGLE)


def _selections() -> Iterator[Combination]:
    flags = Variable(("n", 4), TensorProto.BOOL)
    yield Combination("Where", (flags, X, X))
    yield Combination("Where", (flags, X, Constant(np.array([0.1, -2.0, 1e5, 0.0]))))
    yield Combination("Where", (Constant(np.array([[True], [False]])), Variable((4,)), STATIC_ROW))
    for axis, values in product((-1, 0, 1), (np.array([0.0, 1.0]), np.array([0.1, -3.0]))):
        given = (Variable((3, 2), TensorProto.INT64), ints(4), Constant(values))
        yield Combination("OneHot", given, {"axis": axis}, types=SMALL[1:])
    yield Combination(
        "OneHot", (Variable((3,), TensorProto.INT64), ints(2), Variable((2,))), types=SINGLE
    )
    pads = [(0, 0, 1, 0, 0, 2), (0, 1, 0, 0, 0, 0), (0, 0, -1, 0, 0, 0), (0, 0, 0, 0, 0, 0)]
    for amounts in pads:
        yield Combination("Pad", (STATIC, ints(*amounts)))
        yield Combination("Pad", (STATIC, ints(*amounts), Constant(np.array(0.1))))
        yield Combination("Pad", (STATIC,), {"pads": amounts, "value": 0.7}, opset=10, types=SINGLE)
        for mode in ("edge", "reflect"):
            yield Combination(
                "Pad", (STATIC, ints(*amounts)), {"mode": mode}, opset=13, types=SINGLE
            )
    yield Combination("Pad", (STATIC, ints(1, 1), None, ints(2)), opset=18)
    yield Combination("Pad", (Variable((2, 2)), ints(0, 1, 0, 0), Variable(())))
    yield Combination("Expand", (Variable((2, 1)), ints(3, 2, 4)))
    yield Combination("Tile", (STATIC, ints(1, 2, 1)))


STATIC_ROW = Variable((2, 4))


def _reductions() -> Iterator[Combination]:
    for op, keep in product(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), (0, 1)):
        for axes in (None, [1], [0, -1]):
            attributes: dict[str, Any] = {"keepdims": keep}
            if axes is not None:
                attributes["axes"] = axes
            yield Combination(op, (STATIC,), attributes, opset=11, types=SINGLE)
            given = (STATIC,) if axes is None else (STATIC, ints(*axes))
            yield Combination(op, given, {"keepdims": keep}, opset=18, types=SINGLE)
        nothing = {"keepdims": keep, "noop_with_empty_axes": 1}
        yield Combination(op, (STATIC,), nothing, opset=18, types=SINGLE)
        yield Combination(op, (Variable(("n", 2, 3)), ints(2)), {"keepdims": keep}, opset=18)
        yield Combination(op, (Variable(("n", 40)), ints(1)), {"keepdims": keep}, opset=18)


def _quantisations() -> Iterator[Combination]:
    scales = [np.array(0.1), np.array([0.02, 3.0, 1e-3]), np.array(1.0 / 3.0), np.array(2.0)]
    kinds: list[Any] = [np.uint8, np.int8, np.int16, np.uint16]
    for scale, kind in product(scales, kinds):
        wide = kind in (np.int16, np.uint16)
        zero = np.full(scale.shape, 3, kind)
        opset = 21 if wide else 19
        attributes = {"axis": 1} if scale.ndim else {}
        given = (Variable((2, 3)), Constant(scale), Constant(zero))
        yield Combination("QuantizeLinear", given, attributes, opset=opset, types=SMALL)
        code = Variable((2, 3), int(TYPES[kind]))
        given = (code, Constant(scale), Constant(zero))
        yield Combination("DequantizeLinear", given, attributes, opset=opset, types=SMALL)
    yield Combination("QuantizeLinear", (X, Constant(scales[0])), opset=13, types=SINGLE)
    yield Combination("QuantizeLinear", (X, Constant(np.array(-0.5))), opset=13, types=SINGLE)
    for kind in (TensorProto.UINT8, TensorProto.INT32):
        given = (Variable(("n", 4), kind), Constant(scales[0]))
        yield Combination("DequantizeLinear", given, opset=13, types=SINGLE)
    yield Combination(
        "DequantizeLinear",
        (code, Variable(()), Constant(np.array(7, kinds[-1]))),
        opset=21,
        types=SINGLE,
    )


TYPES = {
    np.uint8: TensorProto.UINT8,
    np.int8: TensorProto.INT8,
    np.int16: TensorProto.INT16,
    np.uint16: TensorProto.UINT16,
}


def _transposed() -> Iterator[Combination]:
    settings: list[dict[str, Any]] = [
        {},
        {"strides": [2]},
        {"strides": [3], "output_padding": [1]},
        {"pads": [1, 0]},
        {"dilations": [2]},
        {"auto_pad": "SAME_UPPER", "strides": [2]},
    ]
    for attributes, group in product(settings, (1, 2)):
        weight = Constant(RNG.normal(size=(2, 3, 2)))
        bias = Constant(RNG.normal(size=3 * group))
        known = attributes | {"group": group}
        yield Combination("ConvTranspose", (LINE, weight, bias), known, types=SINGLE)
        yield Combination("ConvTranspose", (LINE, weight), known, types=SINGLE)
