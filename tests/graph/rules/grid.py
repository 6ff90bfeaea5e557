"""The attribute combinations that every rule is tried on; a test fails for a rule without any."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from onnx import TensorProto

from tests.graph.rules.combination import FLOATS, Array, Combination, Constant, Variable
from tests.graph.rules.grid_more import more
from tests.graph.rules.grid_windows import convolutions, pools

RNG = np.random.default_rng(7)
X = Variable(("n", 4))
# Every attribute in one type where there are many, and some in all.
SINGLE = (TensorProto.FLOAT,)
IMAGE = Variable(("n", 2, 3))
STATIC = Variable((2, 3, 4))


def weights(*shape: int) -> Constant:
    """Random numbers, with zeros, ones and halves among them."""
    values = RNG.normal(size=shape)
    chosen = RNG.integers(0, 8, shape)
    return Constant(np.select([chosen == k for k in range(4)], [0.0, 1.0, -1.0, 0.5], values))


def numbers(*values: float) -> Constant:
    return Constant(np.asarray(values))


def scalar(value: float) -> Constant:
    return Constant(np.asarray(value))


def ones(count: int) -> Constant:
    return Constant(np.ones(count))


def ints(*values: int) -> Constant:
    return Constant(np.asarray(values, np.int64))


# Sums and products at the edges: rounding ties, the largest and the smallest numbers, powers of 2.
EDGES = [
    numbers(0.0),
    numbers(-0.0, 1.0, -1.0, 2.0),
    numbers(2.0**-24, 2.0**-11, 2.0**-53, 0.1),
    numbers(1e-7, 6e-8, 1e-38, 1e-40),
    numbers(65504.0, -6e4, 3e38, 1e300),
    numbers(1.0 / 3.0, -7.7, 2049.0, 1e4),
]


def _arithmetic() -> Iterator[Combination]:
    for op in ("Add", "Sub", "Mul", "Div"):
        for edge in EDGES:
            yield Combination(op, (X, edge))
            yield Combination(op, (edge, X))
        yield Combination(op, (X, X))
        yield Combination(op, (X, scalar(3.0)), opset=7)
        yield Combination(op, (Variable(("n", 1, 4)), Variable(("n", 3, 1))))
        yield Combination(op, (Variable((4,)), weights(2, 1)))
    for op in ("Max", "Min", "Sum"):
        yield Combination(op, (X,))
        yield Combination(op, (X,), opset=8)
        yield Combination(op, (X, X))
        yield Combination(op, (X, EDGES[4], X))
        yield Combination(op, (X, Variable(("n", 1)), weights(4), EDGES[3]))
        yield Combination(op, (numbers(0.0), X, Variable((3, 1, 4))))


def _entrywise() -> Iterator[Combination]:
    for op in ("Abs", "Neg", "Relu", "Identity", "Sigmoid", "Tanh"):
        for opset in (6, 13, 17):
            yield Combination(op, (X,), opset=opset)
        yield Combination(op, (Variable(()),))
        yield Combination(op, (Variable((0, 3)),))
    for alpha in (None, 0.0, 0.01, 0.2, 1.0, 3.0, -0.5, 1e-30):
        attributes = {} if alpha is None else {"alpha": alpha}
        yield Combination("LeakyRelu", (X,), attributes)
    for low, high in product((None, -np.inf, -0.5, 0.1, 2.0), (None, np.inf, 1.0, 0.1, -1.0)):
        given = tuple(None if v is None else scalar(v) for v in (low, high))
        yield Combination("Clip", (X, *given))
        kept = {k: v for k, v in (("min", low), ("max", high)) if v is not None and np.isfinite(v)}
        yield Combination("Clip", (X,), kept, opset=6, types=SINGLE)
    yield Combination("Clip", (X, Variable(()), Variable(())))
    yield Combination("Dropout", (X,), {"ratio": 0.5}, opset=7)
    yield Combination("Dropout", (X,))
    yield Combination("Dropout", (X, scalar(0.5), Constant(np.asarray(False))))
    for axis, opset in product((None, 0, 1, -1), (1, 11, 13)):
        attributes = {} if axis is None else {"axis": axis}
        if opset >= 11 or axis != -1:
            yield Combination("Softmax", (IMAGE,), attributes, opset=opset)


INTEGERS = (
    TensorProto.UINT8,
    TensorProto.INT8,
    TensorProto.UINT16,
    TensorProto.INT16,
    TensorProto.INT32,
    TensorProto.UINT32,
    TensorProto.INT64,
    TensorProto.UINT64,
    TensorProto.BOOL,
)
TARGETS = (*FLOATS, TensorProto.BFLOAT16, *INTEGERS)


def _casts() -> Iterator[Combination]:
    for target in TARGETS:
        yield Combination("Cast", (X,), {"to": target})
        yield Combination("Cast", (X,), {"to": target}, opset=9)
        for source in INTEGERS:
            given = Variable(("n", 4), source)
            yield Combination("Cast", (given,), {"to": target}, types=(TensorProto.FLOAT,))
    # Integers: moved, or picked from, and never computed with.
    wrapping = Variable(("n", 4), TensorProto.INT32)
    for op, inputs in [
        ("Add", (wrapping, wrapping)),
        ("Mul", (wrapping, wrapping)),
        ("Neg", (wrapping,)),
        ("Abs", (wrapping,)),
        ("Max", (wrapping, wrapping)),
        ("Relu", (wrapping,)),
        ("Identity", (wrapping,)),
        ("Transpose", (wrapping,)),
        ("Clip", (wrapping, Constant(np.asarray(-3, np.int32)))),
    ]:
        yield Combination(op, inputs, types=(TensorProto.FLOAT,))


def _movements() -> Iterator[Combination]:
    for axis in (0, 1, 2, -1):
        yield Combination("Concat", (STATIC, weights(2, 3, 4)), {"axis": axis})
        yield Combination("Concat", (STATIC, STATIC, weights(2, 3, 4)), {"axis": axis})
        yield Combination("Flatten", (STATIC,), {"axis": axis})
        yield Combination("Gather", (STATIC, ints(1, 0)), {"axis": axis})
        yield Combination(
            "Gather", (STATIC, Constant(np.asarray([[-1]], np.int64))), {"axis": axis}
        )
        for size in (2, 3, 4):
            if size == (2, 3, 4, 4)[axis]:
                parts = ints(1, size - 1)
                yield Combination("Split", (STATIC, parts), {"axis": axis}, outputs=2)
    yield Combination("Concat", (STATIC, Constant(np.zeros((0, 3, 4)))), {"axis": 0})
    yield Combination("Concat", (Variable(("n", 2)), Variable(("n", 3))), {"axis": 1})
    yield Combination("Concat", (Variable((0, 3)), Variable((1, 3))), {"axis": 0})
    yield Combination("Gather", (Variable((0, 3)), Constant(np.zeros(0, np.int64))), {"axis": 0})
    yield Combination("Gather", (STATIC, Constant(np.zeros(0, np.int64))))
    yield Combination("Flatten", (Variable(("n", 2, 3)),))
    yield Combination("Flatten", (Variable(("n", 2, 3)),), {"axis": -1}, opset=11)
    for perm in (None, [2, 0, 1], [0, 2, 1]):
        attributes = {} if perm is None else {"perm": perm}
        yield Combination("Transpose", (STATIC,), attributes)
    yield Combination("Transpose", (Variable((3,)),))
    for target in ((6, 4), (-1,), (0, -1), (3, 2, 2, 2), (0, 2, -1, 3), (1, 0, 8)):
        yield Combination("Reshape", (STATIC, ints(*target)))
    yield Combination("Reshape", (Variable(("n", 2, 3)), ints(-1, 6)))
    yield Combination("Reshape", (Variable(("n", 2, 3)), ints(-1, 3, 1)))
    yield Combination("Reshape", (Variable((0, 3)), ints(0, 3)), {"allowzero": 1})
    yield Combination("Squeeze", (Variable(("n", 1, 3, 1)), ints(1, -1)))
    yield Combination("Squeeze", (Variable(("n", 1, 3, 1)),), {"axes": [1]}, opset=11)
    yield Combination("Squeeze", (Variable((1, 3, 1)),))
    yield Combination("Unsqueeze", (Variable(("n", 3)), ints(1, -1)))
    yield Combination("Unsqueeze", (Variable(("n", 3)),), {"axes": [0, 3]}, opset=11)
    yield Combination("Slice", (STATIC, ints(0, 1), ints(2, 9), ints(1, 2), ints(1, 2)))
    yield Combination("Slice", (STATIC, ints(-1), ints(-9), ints(2), ints(-2)))
    yield Combination("Slice", (STATIC, ints(2), ints(2), ints(1)))
    yield Combination("Slice", (STATIC,), {"starts": [1], "ends": [3], "axes": [2]}, opset=9)
    yield Combination("Split", (STATIC,), {"axis": 2}, outputs=2)
    yield Combination("Split", (STATIC,), {"axis": 2, "split": [1, 3]}, opset=11, outputs=2)


def _of_unknown_size() -> Iterator[Combination]:
    three = Variable(("three", 2))
    yield Combination("Concat", (three, weights(1, 2)), {"axis": 0})
    yield Combination("Flatten", (Variable(("n", "three", 2)),))
    yield Combination("Reshape", (Variable(("n", "three", 2)), ints(0, -1)))
    yield Combination("Transpose", (Variable(("n", "three", 2)),))
    yield Combination("Add", (Variable(("n", "three", 2)), weights(3, 2)))
    yield Combination("Add", (Variable(("n", "three", 1)), Variable(("n", 1, "three"))))
    yield Combination("MatMul", (Variable(("n", "three", 4)), weights(4, 2)))
    yield Combination("MatMul", (weights(2, 3), Variable(("n", "three", 2))))
    yield Combination("Split", (three,), {"axis": 1}, outputs=2)
    yield Combination("Slice", (three, ints(1), ints(2)))
    yield Combination("Gather", (three, ints(2, 0)))
    yield Combination("BatchNormalization", (Variable(("n", 2, "three")), *[ones(2)] * 4))
    for op in ("ReduceMax", "ReduceMean", "ReduceSum"):
        yield Combination(op, (Variable(("n", "three", 2)), ints(1)), opset=18)


def _dense() -> Iterator[Combination]:
    for trans_a, trans_b, alpha, beta in product((0, 1), (0, 1), (1.0, -0.3), (1.0, 0.0, 2.5)):
        attributes: dict[str, Any] = {"transA": trans_a, "transB": trans_b}
        attributes |= {"alpha": alpha, "beta": beta}
        x = Variable((4, 3) if trans_a else (3, 4))
        w = weights(5, 4) if trans_b else weights(4, 5)
        yield Combination("Gemm", (x, w, weights(5)), attributes, types=SINGLE)
        left = weights(4, 3) if trans_a else weights(3, 4)
        right = Variable((2, 4) if trans_b else (4, 2))
        yield Combination("Gemm", (left, right, weights(3, 1)), attributes, types=SINGLE)
    yield Combination("Gemm", (X, weights(4, 5)))
    yield Combination("Gemm", (X, weights(4, 5), scalar(0.7)))
    yield Combination("Gemm", (X, weights(4, 5), Variable((1, 5))))
    yield Combination("Gemm", (X, weights(4, 5), Variable((5,))), {"alpha": 1e-6}, opset=9)
    yield Combination("Gemm", (X, weights(4, 5), weights(5)), {"alpha": 0.0})
    yield Combination("Gemm", (X, Constant(np.eye(4)[:, ::-1].copy())))
    yield Combination("Gemm", (X, Variable((4, 2))))
    for shape, w in [
        (("n", 4), weights(4, 3)),
        (("n", 4), weights(4)),
        (("n", 2, 4), weights(4, 3)),
        ((2, 2, 4), weights(2, 4, 3)),
        ((4,), weights(4, 3)),
        ((4,), weights(4)),
        ((4,), weights(2, 4, 3)),
        (("n", 40), weights(40, 2)),
        (("n", 4), Constant(np.full((4, 1), 1e-6))),
        (("n", 4), Constant(np.array([[1e4], [-1e4], [1e30], [-1e300]]))),
        (("n", 4), Constant(np.zeros((4, 2)))),
    ]:
        yield Combination("MatMul", (Variable(shape), w))
    for w, shape in [
        (weights(3, 4), (4, 2)),
        (weights(4), (4, 2)),
        (weights(3, 4), ("n", 4, 2)),
        (weights(2, 3, 4), (4, 2)),
        (weights(3, 4), (4,)),
        (weights(2, 3, 4), (4,)),
    ]:
        yield Combination("MatMul", (w, Variable(shape)))
    yield Combination("MatMul", (Variable((2, 0)), Constant(np.zeros((0, 3)))))
    yield Combination("MatMul", (Variable((0, 4)), weights(4, 3)))


def _normalisations() -> Iterator[Combination]:
    gains: list[Array] = [np.array([1.0, -0.7]), np.array([0.0, 3.0]), np.array([1e-7, 100.0])]
    variances: list[Array] = [np.array([1.0, 0.3]), np.array([0.0, 1e-6]), np.array([4.0, 1e4])]
    for gain, variance, epsilon in product(gains, variances, (None, 1e-3)):
        given = [Constant(v) for v in (gain, np.array([0.4, -2.0]), np.array([0.1, 5.0]), variance)]
        attributes = {} if epsilon is None else {"epsilon": epsilon}
        yield Combination("BatchNormalization", (IMAGE, *given), attributes, opset=15)
    yield Combination("BatchNormalization", (IMAGE, *given), opset=9)
    given = [weights(4), weights(4), weights(4), Constant(np.full(4, 2.0))]
    yield Combination("BatchNormalization", (X, *given), opset=14)


def _grid() -> dict[str, list[Combination]]:
    found: dict[str, list[Combination]] = {}
    for family in (
        _arithmetic,
        _entrywise,
        _casts,
        _movements,
        _dense,
        _normalisations,
        convolutions,
        pools,
        more,
        _of_unknown_size,
    ):
        for combination in family():
            found.setdefault(combination.op, []).append(combination)
    return found


GRID = _grid()
