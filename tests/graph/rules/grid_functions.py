"""The attribute combinations of further functions, normalisations, recurrences and selections."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from onnx import TensorProto

from tests.graph.rules.combination import FLOATS, Combination, Constant, Variable

X = Variable(("n", 4))
STATIC = Variable((2, 3, 4))
IMAGE = Variable((1, 2, 3, 4))
RNG = np.random.default_rng(11)
SINGLE = (TensorProto.FLOAT,)
SMALL = FLOATS[:2]


def ints(*values: int) -> Constant:
    return Constant(np.asarray(values, np.int64))


def scalar(value: float) -> Constant:
    return Constant(np.asarray(value))


def functions() -> Iterator[Combination]:
    yield from _curves()
    yield from _kinks()
    yield from _sums()
    yield from _normalisations()
    yield from _recurrences()
    yield from _picks()


def _curves() -> Iterator[Combination]:
    for op in ("Atan", "Erf", "Log", "Reciprocal", "Softplus", "Softsign"):
        yield Combination(op, (X,))
        if op != "Softsign":
            yield Combination(op, (Variable(()),))
    for axis in (None, 0, -1):
        yield Combination("LogSoftmax", (STATIC,), {} if axis is None else {"axis": axis})
    for op in ("Mish", "HardSwish"):
        yield Combination(op, (X,), opset=18)
    for approximate in ("none", "tanh"):
        yield Combination("Gelu", (X,), {"approximate": approximate}, opset=20)
    for p in (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 2.5, 7.0, -1.0):
        yield Combination("Pow", (X, scalar(p)), opset=15)
    yield Combination("Pow", (X, Constant(np.asarray([2], np.int64))), opset=15)
    yield Combination("Pow", (X, X), opset=15)


def _kinks() -> Iterator[Combination]:
    for alpha in (None, 0.0, 0.3, 1.0, -0.4):
        attributes = {} if alpha is None else {"alpha": alpha}
        yield Combination("ThresholdedRelu", (X,), attributes)
        yield Combination("Celu", (X,), attributes if alpha else {}, types=SINGLE)
        yield Combination("Selu", (X,), attributes)
    yield Combination("Selu", (X,), {"alpha": 0.5, "gamma": 2.0})
    for slope in (np.asarray(0.0), np.asarray([0.1, 0.0, -1.0, 3.0]), np.asarray([[1.0], [0.2]])):
        given = Variable((2, 4)) if slope.ndim == 2 else X
        yield Combination("PRelu", (given, Constant(slope)))
    yield Combination("PRelu", (X, Variable((1, 4))))
    for op in ("Ceil", "Floor", "Round", "Sign"):
        yield Combination(op, (X,))
    yield Combination("Sign", (Variable(("n", 4), TensorProto.INT32),), types=SINGLE)
    for numbers in ({"offset": [0.1], "scale": [3.0]}, _scaling()):
        yield Combination("ai.onnx.ml.Scaler", (X,), numbers, types=SINGLE)
    whole = Variable(("n", 4), TensorProto.INT64)
    yield Combination("ai.onnx.ml.Scaler", (whole,), _scaling(), types=SINGLE)


def _scaling() -> dict[str, list[float]]:
    return {"offset": [0.1, -2.0, 1e-3, 7.0], "scale": [0.3, -1.0, 1e3, 0.0]}


def _sums() -> Iterator[Combination]:
    yield Combination("Mean", (X,))
    yield Combination("Mean", (X, X))
    yield Combination("Mean", (X, Constant(np.asarray([0.1, -2.0, 1e5, 0.0])), X))
    for op, keep in product(("ReduceL1", "ReduceL2", "ReduceSumSquare"), (0, 1)):
        for axes in (None, [1], [0, -1]):
            given = (STATIC,) if axes is None else (STATIC, ints(*axes))
            yield Combination(op, given, {"keepdims": keep}, opset=18, types=SINGLE)
        yield Combination(op, (Variable(("n", 40)), ints(1)), {"keepdims": keep}, opset=18)
    for op, axis in product(("ArgMax", "ArgMin"), (0, 1, -1)):
        yield Combination(op, (STATIC,), {"axis": axis}, types=SINGLE)
        yield Combination(op, (STATIC,), {"axis": axis, "keepdims": 0}, types=SINGLE)


def _normalisations() -> Iterator[Combination]:
    scale, offset = Constant(np.asarray([1.0, 0.3, -2.0, 0.0])), Constant(RNG.normal(size=4))
    for epsilon in (1e-5, 1e-2):
        known = {"epsilon": epsilon}
        yield Combination("LayerNormalization", (X, scale), known, types=SINGLE)
        yield Combination("LayerNormalization", (X, scale, offset), known, types=SINGLE)
        given = (STATIC, Constant(RNG.normal(size=(3, 4))))
        yield Combination("LayerNormalization", given, {**known, "axis": 1}, types=SINGLE)
        both = Constant(np.asarray([1.5, -0.5])), Constant(np.asarray([0.0, 2.0]))
        yield Combination("InstanceNormalization", (IMAGE, *both), known, types=SINGLE)


def _recurrences() -> Iterator[Combination]:
    steps = Variable((3, 1, 2))
    for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        hidden, outputs = 2, 2
        for direction in ("forward", "bidirectional"):
            ways = 1 + (direction == "bidirectional")
            read, kept = (Constant(RNG.normal(0, 2.0, (ways, gates * hidden, 2))) for _ in range(2))
            bias = Constant(RNG.normal(size=(ways, 2 * gates * hidden)))
            known: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
            yield Combination(op, (steps, read, kept), known, outputs=outputs, types=SINGLE)
            if op == "GRU":
                known = {**known, "linear_before_reset": 1}
            yield Combination(op, (steps, read, kept, bias), known, outputs=outputs, types=SINGLE)


def _picks() -> Iterator[Combination]:
    flags = Constant(np.asarray([True, False, True]))
    yield Combination("Compress", (STATIC, flags), {"axis": 1})
    zeros = Constant(np.zeros((2, 1, 4), np.int64))
    yield Combination("GatherElements", (STATIC, zeros), {"axis": 1})
    yield Combination("GatherND", (STATIC, Constant(np.asarray([[1, 2], [0, 0]], np.int64))))
    wide = Variable((1, 4, 2, 4))
    for mode in ("DCR", "CRD"):
        yield Combination("DepthToSpace", (wide,), {"blocksize": 2, "mode": mode}, types=SINGLE)
    yield Combination("SpaceToDepth", (wide,), {"blocksize": 2}, types=SINGLE)
    for upper in (0, 1):
        yield Combination("Trilu", (STATIC,), {"upper": upper})
    for largest in (0, 1):
        given = (STATIC, ints(2))
        yield Combination("TopK", given, {"largest": largest, "axis": 1}, outputs=2)
    rows = Constant(np.asarray([[1], [0]], np.int64))
    yield Combination("ScatterND", (Variable((3, 4)), rows, Variable((2, 4))))
    places = Constant(np.asarray([[1, 0]], np.int64))
    yield Combination("ScatterElements", (Variable((3, 4)), places, Variable((1, 2))), {"axis": 1})
    nothing = Constant(np.zeros(0, np.float32), fixed=True)
    twice = Constant(np.asarray([1, 1, 2, 2], np.float32), fixed=True)
    for mode, where in product(("nearest", "linear", "cubic"), ("half_pixel", "asymmetric")):
        known = {"mode": mode, "coordinate_transformation_mode": where}
        yield Combination("Resize", (IMAGE, nothing, twice), known, types=SINGLE)
    yield Combination("Upsample", (IMAGE, twice), {"mode": "nearest"}, opset=9, types=SINGLE)
