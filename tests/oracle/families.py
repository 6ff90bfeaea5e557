"""Small random models of families that have each misled some implementation.

Every model is a whole ONNX file with one dense chain, in float16, float32 or float64, over a finite
box; the same family and seed give the same bytes. In the folded families a layer is several
operators, whose product no floating-point number need hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnx_exact.network import Box, Chain
from tests.oracle.networks import random_case

Array = NDArray[np.float64]
FloatType = np.dtype[np.floating[Any]]

OPSET, IR_VERSION = 17, 8
DTYPES: tuple[FloatType, ...] = tuple(np.dtype(f"float{bits}") for bits in (32, 64, 16))
# Decimal exponents of the largest magnitudes: a product with its inverse fits the type.
LARGEST_EXPONENT = {2: 3.0, 4: 30.0, 8: 150.0}
# Powers of two that swallow what is added to them, in each type.
SWALLOWING = {2: 11, 4: 60, 8: 60}
# The variance m^2 / 2^10 - 2^-10 and this epsilon have the rational root m / 2^5.
EPSILON, ROOT_UNIT = 2.0**-10, 2.0**-5
PROPORTIONS = (1.0, -1.0, 2.0, -0.5, 3.0, -1.25, 0.1)
SPARSE_SHARE = 0.3


@dataclass(frozen=True, eq=False)
class Network:
    """A model and its domain.

    Attributes:
        name: family and seed.
        model: with the input x and the output y.
        box: finite; its sides are numbers of the model's type.
    """

    name: str
    model: ModelProto
    box: Box


def network(family: str, seed: int) -> Network:
    """The network of a family of `FAMILIES` with that seed; the same every time."""
    rng = np.random.default_rng([sorted(FAMILIES).index(family), seed])
    dtype = DTYPES[seed % len(DTYPES)]
    model, box = FAMILIES[family](rng, dtype)
    return Network(f"{family} {seed}", model, box)


class Draft:
    """Collects the nodes of a dense model; weights are rounded to the model's type."""

    def __init__(self, dtype: FloatType, n_in: int) -> None:
        self.dtype, self.width, self._n_in = dtype, n_in, n_in
        self._nodes: list[Any] = []
        self._tensors: list[TensorProto] = []
        self._last = "x"

    def node(self, kind: str, *constants: object, flipped: bool = False, **options: Any) -> None:
        """One operator on the last tensor, with constants; `flipped` puts these first."""
        names = []
        for value in constants:
            names.append(f"c{len(self._tensors)}")
            array = np.asarray(value, dtype=np.float64).astype(self.dtype)
            self._tensors.append(numpy_helper.from_array(array, names[-1]))
        inputs = [*names, self._last] if flipped else [self._last, *names]
        self._last = f"t{len(self._nodes)}"
        name = f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [self._last], name=name, **options))

    def dense(self, weight: Array, bias: Array | None = None) -> None:
        """A Gemm, or a MatMul where there is no bias."""
        self.width = len(weight)
        if bias is None:
            self.node("MatMul", weight.T)
        else:
            self.node("Gemm", weight, bias, transB=1)

    def relu(self) -> None:
        """A ReLU."""
        self.node("Relu")

    def model(self) -> ModelProto:
        """The model; its output is the last tensor."""
        self._nodes[-1].output[0] = "y"
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        x, y = (
            helper.make_tensor_value_info(name, kind, ["batch", width])
            for name, width in (("x", self._n_in), ("y", self.width))
        )
        graph = helper.make_graph(self._nodes, "network", [x], [y], self._tensors)
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)


Rng = np.random.Generator
Made = tuple[ModelProto, Box]


def _box(rng: Rng, dtype: FloatType, n: int, fixed: float = 0.05) -> Box:
    """A box, each input of which has but one value with the probability `fixed`."""
    kind = int(rng.integers(8))
    low, high = np.zeros(n), np.ones(n)
    if kind > 1:
        low, high = -(1.0 + kind // 4) * high, high
    if kind > 5:
        low = rng.normal(size=n)
        high = low + rng.random(n) * (4.0 if kind == 6 else 2.0**-8)
    low, high = (side.astype(dtype).astype(np.float64) for side in (low, high))
    high = np.where(rng.random(n) < fixed, low, np.maximum(low, high))
    return Box(low, high)


def _numbers(rng: Rng, *shape: int) -> Array:
    """Normal numbers, or multiples of 1/4, of which many sums and products are equal."""
    if rng.integers(2):
        return rng.normal(size=shape)
    return rng.integers(-8, 9, size=shape) / 4.0


def _widths(rng: Rng) -> list[int]:
    """Inputs, one to three hidden layers, outputs."""
    hidden = rng.integers(2, 6, size=rng.integers(1, 4)).tolist()
    return [int(rng.integers(2, 4)), *hidden, int(rng.integers(1, 3))]


def _from_oracle(source: str) -> Callable[[Rng, FloatType], Made]:
    """Networks of `tests.oracle.networks`, with the structure that reductions look for."""

    def make(rng: Rng, dtype: FloatType) -> Made:
        case = random_case(source, int(rng.integers(2**32)))
        low, high = (s.astype(dtype).astype(np.float64) for s in (case.box.lower, case.box.upper))
        return model_of(case.chain, dtype), Box(low, np.maximum(low, high))

    return make


def model_of(chain: Chain, dtype: FloatType) -> ModelProto:
    """A chain as Gemm and Relu nodes."""
    draft = Draft(dtype, chain.n_in)
    for layer in chain.layers:
        draft.dense(layer.affine.weight, layer.affine.bias)
        if layer.relu:
            draft.relu()
    return draft.model()


def _plain(
    rng: Rng, dtype: FloatType, widths: list[int], change: Callable[[int, Array], Array]
) -> ModelProto:
    """Layers whose weight and bias side by side, shape (out, in + 1), `change` was applied to."""
    draft = Draft(dtype, widths[0])
    for index, (n_in, n_out) in enumerate(pairwise(widths)):
        rows = change(index, _numbers(rng, n_out, n_in + 1))
        draft.dense(rows[:, :-1], rows[:, -1])
        if index < len(widths) - 2:
            draft.relu()
    return draft.model()


def _sparse(rng: Rng, dtype: FloatType) -> Made:
    widths = _widths(rng)

    def change(index: int, rows: Array) -> Array:
        return np.where(rng.random(rows.shape) < SPARSE_SHARE, rows, 0.0)

    return _plain(rng, dtype, widths, change), _box(rng, dtype, widths[0])


def _magnitudes(rng: Rng, dtype: FloatType) -> Made:
    """Every unit on a scale of its own, which the next layer takes back more or less."""
    widths = _widths(rng)
    most = LARGEST_EXPONENT[dtype.itemsize]
    before = np.zeros(widths[0])

    def change(index: int, rows: Array) -> Array:
        nonlocal before
        own = rng.uniform(-most, most, len(rows)) * rng.integers(2, size=len(rows))
        if index == len(widths) - 2:
            own[:] = 0.0
        exponents = np.clip(own[:, None] - np.append(before, 0.0), -most, most)
        before = own
        loose = rng.random(rows.shape) < 0.05
        exponents = np.where(loose, rng.uniform(-most, 0.0, rows.shape), exponents)
        return np.asarray(rows * 10.0**exponents)

    return _plain(rng, dtype, widths, change), _box(rng, dtype, widths[0])


def _proportional(rng: Rng, dtype: FloatType) -> Made:
    """Rows that are copies, opposites, multiples or sums of rows before them."""
    widths = [max(2, width) for width in _widths(rng)]

    def change(index: int, rows: Array) -> Array:
        rows = rows.astype(dtype).astype(np.float64)
        for i in range(1, len(rows)):
            first, second = rng.integers(i, size=2)
            factor = rng.choice(PROPORTIONS)
            kind = int(rng.integers(5))
            if kind < 3:
                rows[i] = factor * rows[first]
            if kind == 2:
                rows[i, -1] = rng.normal()
            if kind == 3:
                rows[i] = rows[first] + factor * rows[second]
        if rng.integers(3) == 0:
            rows[:, -1] += np.abs(rows).sum(axis=1)
        return rows

    return _plain(rng, dtype, widths, change), _box(rng, dtype, widths[0])


def _deep(rng: Rng, dtype: FloatType) -> Made:
    """Many layers of one to three units."""
    hidden = rng.integers(1, 4, size=rng.integers(4, 8)).tolist()
    widths = [2, *hidden, 1]
    return _plain(rng, dtype, widths, lambda _, rows: rows), _box(rng, dtype, 2)


def _linear(rng: Rng, dtype: FloatType) -> Made:
    """Dense layers with no ReLU between them, wider or narrower than their neighbours."""
    widths = [*_widths(rng), int(rng.integers(1, 3))]
    draft = Draft(dtype, widths[0])
    for index, (n_in, n_out) in enumerate(pairwise(widths)):
        bias = _numbers(rng, n_out) if rng.integers(2) else None
        draft.dense(_numbers(rng, n_out, n_in), bias)
        if index < len(widths) - 2 and rng.integers(2):
            draft.relu()
    return draft.model(), _box(rng, dtype, widths[0])


def _fixed(rng: Rng, dtype: FloatType) -> Made:
    """Most inputs have a single value."""
    widths = _widths(rng)
    box = _box(rng, dtype, widths[0], fixed=0.6)
    return _plain(rng, dtype, widths, lambda _, rows: rows), box


def _shift(draft: Draft, rng: Rng) -> None:
    """A bias once more, from either side."""
    values = _numbers(rng, draft.width)
    if rng.integers(3) == 0:
        draft.node("Sub", values, flipped=bool(rng.integers(2)))
    else:
        draft.node("Add", values, flipped=bool(rng.integers(2)))


def _scale(draft: Draft, rng: Rng) -> None:
    """Factors or divisors, one for each unit or one for all."""
    values = _numbers(rng, draft.width if rng.integers(2) else 1)
    values = np.where(values == 0.0, 3.0, values)
    if rng.integers(2):
        draft.node("Div", np.where(np.abs(values) < 0.1, 3.0, values))
    else:
        draft.node("Mul", values, flipped=bool(rng.integers(2)))


def _normalise(draft: Draft, rng: Rng) -> None:
    """A batch normalisation whose root is rational."""
    roots = rng.integers(2, 40, size=draft.width)
    variance = (roots * ROOT_UNIT) ** 2 - EPSILON
    scale, shift, mean = (_numbers(rng, draft.width) for _ in range(3))
    draft.node("BatchNormalization", scale, shift, mean, variance, epsilon=EPSILON)


def _multiply(draft: Draft, rng: Rng) -> None:
    """One more product of matrices."""
    draft.dense(_numbers(rng, int(rng.integers(2, 5)), draft.width))


def _swallow(draft: Draft, rng: Rng) -> None:
    """A huge number is added, which a weight of the layer before may cancel, and taken away."""
    huge = 2.0 ** SWALLOWING[draft.dtype.itemsize]
    signs = rng.choice([-1.0, 1.0], draft.width)
    draft.node("Add", huge * signs)
    draft.node("Add", _numbers(rng, draft.width))
    draft.node("Sub", huge * signs)


Extra = Callable[[Draft, Rng], None]


def _folded(*extras: Extra) -> Callable[[Rng, FloatType], Made]:
    """Networks in which some of these follow a dense layer."""

    def make(rng: Rng, dtype: FloatType) -> Made:
        widths = _widths(rng)
        draft = Draft(dtype, widths[0])
        for index, n_out in enumerate(widths[1:]):
            weight = _numbers(rng, n_out, draft.width)
            draft.dense(weight, _numbers(rng, n_out) if rng.integers(2) else None)
            for _ in range(int(rng.integers(1, 3))):
                extras[int(rng.integers(len(extras)))](draft, rng)
            if index < len(widths) - 2:
                draft.relu()
        return draft.model(), _box(rng, dtype, widths[0])

    return make


FAMILIES: dict[str, Callable[[Rng, FloatType], Made]] = {
    "normal": _from_oracle("normal"),
    "dyadic": _from_oracle("dyadic"),
    "sparse": _sparse,
    "magnitudes": _magnitudes,
    "proportional": _proportional,
    "deep": _deep,
    "linear": _linear,
    "fixed": _fixed,
    "folded shifts": _folded(_shift),
    "folded factors": _folded(_scale),
    "folded norms": _folded(_normalise),
    "folded products": _folded(_multiply),
    "folded everything": _folded(_shift, _scale, _normalise, _multiply),
    "folded cancelling": _folded(_swallow, _shift),
}
