"""How each operator in front of a chain acts on intervals: one small function each, one table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto

from onnx_exact.verifier.intervals import (
    Interval,
    added,
    divided,
    hull,
    linear,
    multiplied,
    negated,
    rounding,
)
from onnx_exact.verifier.model import MOST_ENTRIES, Model, Shape
from onnx_exact.verifier.operators import Attributes
from onnx_exact.verifier.rounding import Array

# What numpy's tanh, and sums of a few of its terms, may be off by; their values are at most 1.
FUNCTION_ERROR = 2.0**-50
# Operations of a normalisation.
FEW = 8


@dataclass(frozen=True, eq=False)
class Place:
    """A node, and what is known of what it reads.

    Attributes:
        model, node, options: the node and its attributes.
        x: intervals of its inputs, None for those left out.
        shapes: of the output that is wanted, at every trial.
        number: of that output.
        kind: its type.
    """

    model: Model
    node: NodeProto
    options: Attributes
    x: list[Interval | None]
    shapes: tuple[Shape, ...]
    number: int
    kind: np.dtype[Any]

    def input(self, slot: int = 0) -> Interval:
        """The interval of an input that is there."""
        found = self.x[slot]
        assert found is not None
        return found

    def constant(self, slot: int, name: str = "") -> Array | None:
        """The numbers of a constant input, or of the attribute that older sets have instead."""
        if name and name in self.options:
            return np.asarray(self.options[name])
        if slot >= len(self.node.input) or not self.node.input[slot]:
            return None
        value = self.model.constant(self.node.input[slot])
        if value is None or value.dtype.kind not in "fiu":
            return None
        return value.astype(np.float64 if value.dtype.kind == "f" else np.int64)

    def sizes(self, slot: int = 0) -> tuple[Shape, ...]:
        """The shape of an input at every trial."""
        return self.model.shapes(self.node.input[slot])


Rule = Callable[[Place], Interval | None]


def _same(p: Place) -> Interval | None:
    if p.node.op_type == "Dropout" and len(p.node.input) > 2 and p.node.input[2]:
        return None
    return p.input() if p.number == 0 else None


def _cast(p: Place) -> Interval | None:
    """Rounding is what it does; it never swaps two numbers."""
    low, high = p.input()
    ends = (low.astype(p.kind).astype(np.float64), high.astype(p.kind).astype(np.float64))
    return np.minimum(low, ends[0]), np.maximum(high, ends[1])


def _regrouped(p: Place) -> Interval | None:
    """The same entries in the same order: symbolic axes have to stay in front."""
    x, before = p.input(), p.sizes()
    for stop in range(len(before[0]) + 1):
        static = all(shape[stop:] == before[0][stop:] for shape in before)
        for other in range(len(p.shapes[0]) + 1) if static else ():
            pairs = zip(before, p.shapes, strict=True)
            if all(math.prod(a[:stop]) == math.prod(b[:other]) for a, b in pairs) and all(
                shape[other:] == p.shapes[0][other:] for shape in p.shapes
            ):
                low, high = hull(x, tuple(range(stop)))
                if low.size == high.size == 1:
                    return low.reshape((1,) * len(p.shapes[0])), high.reshape(
                        (1,) * len(p.shapes[0])
                    )
                inner, outer = before[0][stop:], p.shapes[0][other:]
                if math.prod(inner) > MOST_ENTRIES:
                    return None
                full = (np.broadcast_to(v.reshape(v.shape[stop:]), inner) for v in (low, high))
                a, b = (v.reshape((1,) * other + outer) for v in full)
                return a, b
    return _anywhere(p)


def _anywhere(p: Place) -> Interval | None:
    """Every entry is one of the first input."""
    low, high = p.input()
    sizes = (1,) * len(p.shapes[0])
    return np.full(sizes, low.min()), np.full(sizes, high.max())


def _transposed(p: Place) -> Interval | None:
    axes = p.options.get("perm", range(p.input()[0].ndim)[::-1])
    return p.input()[0].transpose(axes), p.input()[1].transpose(axes)


def _concatenated(p: Place) -> Interval | None:
    parts = [x for x in p.x if x is not None]
    axis = int(p.options["axis"]) % parts[0][0].ndim
    lengths = [{shape[axis] for shape in p.sizes(i)} for i in range(len(parts))]
    if any(len(length) > 1 for length in lengths):
        return _joined([hull(x, (axis,)) for x in parts])
    if sum(length.pop() for length in lengths) > MOST_ENTRIES:
        return None
    whole = [
        tuple(
            max(x[0].shape[i] for x in parts) if i != axis else p.sizes(number)[0][axis]
            for i in range(parts[0][0].ndim)
        )
        for number in range(len(parts))
    ]
    sides = (
        np.concatenate(
            [np.broadcast_to(x[side], size) for x, size in zip(parts, whole, strict=True)], axis
        )
        for side in (0, 1)
    )
    low, high = sides
    return low, high


def _joined(parts: list[Interval]) -> Interval:
    return np.minimum.reduce([x[0] for x in parts]), np.maximum.reduce([x[1] for x in parts])


def _pairwise(f: Callable[[Interval, Interval], Interval]) -> Rule:
    def rule(p: Place) -> Interval | None:
        found = p.input()
        for slot in range(1, len(p.x)):
            found = f(found, p.input(slot))
        return found

    return rule


def _monotone(f: Callable[[Array], Array]) -> Rule:
    """Of functions that are computed without rounding."""
    return lambda p: (f(p.input()[0]), f(p.input()[1]))


def _absolute(p: Place) -> Interval | None:
    low, high = p.input()
    return np.maximum(np.maximum(low, -high), 0.0), np.maximum(-low, high)


def _leaky(p: Place) -> Interval | None:
    slope = float(p.options.get("alpha", np.float32(0.01)))
    low, high = p.input()
    below = multiplied((np.minimum(low, 0.0), np.minimum(high, 0.0)), (np.array(slope),) * 2)
    return below[0] + np.maximum(low, 0.0), below[1] + np.maximum(high, 0.0)


def _clipped(p: Place) -> Interval | None:
    low, high = p.input()
    for slot, name, f in ((1, "min", np.maximum), (2, "max", np.minimum)):
        if name in p.options or (slot < len(p.node.input) and p.node.input[slot]):
            end = p.constant(slot, name)
            if end is None or end.size != 1:
                return None
            low, high = f(low, float(end.reshape(()))), f(high, float(end.reshape(())))
    return low, high


def _between(f: Callable[[Array], Array], least: float) -> Rule:
    """Of non-decreasing functions between `least` and 1, computed to within an error."""

    def rule(p: Place) -> Interval | None:
        low, high = (f(side) for side in p.input())
        return np.maximum(low - FUNCTION_ERROR, least), np.minimum(high + FUNCTION_ERROR, 1.0)

    return rule


def _logistic(x: Array) -> Array:
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def _softmax(p: Place) -> Interval | None:
    sizes = (1,) * len(p.shapes[0])
    return np.zeros(sizes), np.ones(sizes)


def _normalized(p: Place) -> Interval | None:
    if p.options.get("training_mode", 0) or p.options.get("spatial", 1) != 1 or p.number:
        return None
    values = [p.constant(slot) for slot in range(1, 5)]
    low, high = p.input()
    if any(v is None for v in values) or low.ndim < 2:
        return None
    gain, offset, mean, variance = (
        v.reshape(-1, *[1] * (low.ndim - 2)) for v in values if v is not None
    )
    scale = gain / np.sqrt(variance + float(p.options.get("epsilon", np.float32(1e-5))))
    ends = [(side - mean) * scale + offset for side in (low, high)]
    size = (np.maximum(np.abs(low), np.abs(high)) + np.abs(mean)) * np.abs(scale) + np.abs(offset)
    error = rounding(size, FEW)
    return np.minimum(*ends) - error, np.maximum(*ends) + error


def _gemm(p: Place) -> Interval | None:
    x, weight = p.input(), p.constant(1)
    if weight is None:
        return None
    if p.options.get("transA", 0):
        x = x[0].T, x[1].T
    weight = (weight if p.options.get("transB", 0) else weight.T) * p.options.get("alpha", 1.0)
    x = _whole(x, -1, weight.shape[1])
    found = linear(lambda w, v: v @ w.T, weight, x, weight.shape[1])
    if found is None or len(p.x) < 3 or p.x[2] is None:
        return found
    beta = np.array(float(p.options.get("beta", 1.0)))
    return added(found, multiplied(p.input(2), (beta, beta)))


def _whole(x: Interval, axis: int, size: int) -> Interval:
    """The same bounds written out along an axis."""
    low, high = (np.repeat(v, size, axis) if v.shape[axis] == 1 else v for v in x)
    return low, high


def _matmul(p: Place) -> Interval | None:
    weights = [p.constant(slot) for slot in (0, 1)]
    right, left = weights[1], weights[0]
    if right is not None and right.ndim == 2:
        x = _whole(p.input(), -1, len(right))
        return linear(lambda w, v: v @ w, right, x, len(right))
    if left is not None and left.ndim == 2 and p.input(1)[0].ndim > 1:
        x = _whole(p.input(1), -2, left.shape[1])
        return linear(lambda w, v: w @ v, left, x, left.shape[1])
    return None


@dataclass(frozen=True)
class Windows:
    """Where the windows of a convolution or a pool lie along the spatial axes."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    out: tuple[int, ...]

    def padded(self, x: Array, value: float) -> Array:
        """x with as much on both sides as the windows reach."""
        return np.pad(x, [(0, 0), (0, 0), *self.pads], constant_values=value)

    def seen(self, padded: Array, at: tuple[int, ...]) -> Array:
        """What all windows have at one place of the kernel."""
        spatial = [
            slice(i * d, i * d + s * (n - 1) + 1, s)
            for i, d, s, n in zip(at, self.dilations, self.strides, self.out, strict=True)
        ]
        return padded[(slice(None), slice(None), *spatial)]

    @property
    def places(self) -> list[tuple[int, ...]]:
        """All places of the kernel."""
        return list(itertools.product(*map(range, self.kernel)))


def _windows(p: Place, kernel: tuple[int, ...]) -> Windows | None:
    rank = len(kernel)
    sizes = [shape[2:] for shape in p.sizes()]
    outs = [shape[2:] for shape in p.shapes]
    if any(s != sizes[0] for s in sizes) or any(o != outs[0] for o in outs):
        return None
    strides = tuple(p.options.get("strides", (1,) * rank))
    dilations = tuple(p.options.get("dilations", (1,) * rank))
    needed = [
        (n - 1) * s + (k - 1) * d + 1 - size
        for n, s, k, d, size in zip(outs[0], strides, kernel, dilations, sizes[0], strict=True)
    ]
    auto = p.options.get("auto_pad", b"NOTSET")
    if auto == b"NOTSET":
        begins = list(p.options.get("pads", (0,) * 2 * rank))[:rank]
    else:
        total = [max(n, 0) for n in needed]
        begins = [(n + (auto == b"SAME_LOWER")) // 2 for n in total]
    # The last window ends where its output says, whatever `ceil_mode` or the pads allow.
    pads = tuple((b, max(n - b, 0)) for b, n in zip(begins, needed, strict=True))
    entries = math.prod(s + sum(e) for s, e in zip(sizes[0], pads, strict=True))
    if min(begins, default=0) < 0 or entries * max(p.sizes()[0][1], 1) > MOST_ENTRIES:
        return None
    return Windows(kernel, strides, dilations, pads, outs[0])


def _spread(p: Place) -> Interval:
    """The bounds of an input with its channels and its spatial axes written out."""
    sizes = p.sizes()[0]
    low, high = (np.broadcast_to(v, (v.shape[0], *sizes[1:])) for v in p.input())
    return low, high


def _convolved(p: Place) -> Interval | None:
    weight = p.constant(1)
    windows = None if weight is None else _windows(p, weight.shape[2:])
    if weight is None or windows is None:
        return None
    groups = int(p.options.get("group", 1))
    x = tuple(windows.padded(v, 0.0) for v in _spread(p))
    parts = np.split(weight, groups), [np.split(side, groups, axis=1) for side in x]
    found = []
    for i, rows in enumerate(parts[0]):
        own = (parts[1][0][i], parts[1][1][i])
        found.append(linear(_product(windows), rows, own, math.prod(rows.shape[1:])))
    known = [f for f in found if f is not None]
    if len(known) < groups:
        return None
    joined = tuple(np.concatenate([f[side] for f in known], axis=1) for side in (0, 1))
    if len(p.x) < 3 or p.x[2] is None:
        return joined[0], joined[1]
    bias = tuple(v.reshape(-1, *[1] * len(windows.kernel)) for v in p.input(2))
    return added((joined[0], joined[1]), (bias[0], bias[1]))


def _product(windows: Windows) -> Callable[[Array, Array], Array]:
    def product(weight: Array, padded: Array) -> Array:
        total = np.zeros((padded.shape[0], len(weight), *windows.out))
        for at in windows.places:
            rows = np.moveaxis(weight, (0, 1), (-2, -1))[at]
            total += np.einsum("oc,nc...->no...", rows, windows.seen(padded, at), optimize=True)
        return total

    return product


def _pooled(p: Place) -> Interval | None:
    """Maxima and means of a window lie between the least and the greatest number in it."""
    if p.number or p.options.get("storage_order", 0):
        return None
    windows = _windows(p, tuple(p.options["kernel_shape"]))
    if windows is None:
        return None
    low, high = _spread(p)
    mean = p.node.op_type == "AveragePool"
    # Means may count what is padded, as 0; a maximum is that of what is there.
    fills = (-np.inf, -np.inf) if not mean else (np.inf, -np.inf)
    sides = [windows.padded(v, fill) for v, fill in zip((low, high), fills, strict=True)]
    seen = [[windows.seen(side, at) for at in windows.places] for side in sides]
    found = (np.minimum if mean else np.maximum).reduce(seen[0]), np.maximum.reduce(seen[1])
    if not mean:
        return found
    if any(sum(pad) for pad in windows.pads):
        found = np.minimum(found[0], 0.0), np.maximum(found[1], 0.0)
    return _about(found, len(windows.places))


def _global(p: Place) -> Interval | None:
    low, high = p.input()
    axes = tuple(range(2, low.ndim))
    if p.node.op_type == "GlobalMaxPool":
        return low.max(axis=axes, keepdims=True), high.max(axis=axes, keepdims=True)
    terms = max(math.prod(shape[2:]) for shape in p.sizes())
    return _about(hull((low, high), axes), terms)


def _about(x: Interval, terms: int) -> Interval:
    """Bounds on means of `terms` numbers."""
    return x[0] - rounding(np.abs(x[0]), terms), x[1] + rounding(np.abs(x[1]), terms)


RULES: dict[str, Rule] = {
    "Abs": _absolute,
    "Add": _pairwise(added),
    "AveragePool": _pooled,
    "BatchNormalization": _normalized,
    "Cast": _cast,
    "Clip": _clipped,
    "Concat": _concatenated,
    "Conv": _convolved,
    "Div": _pairwise(divided),
    "Dropout": _same,
    "Flatten": _regrouped,
    "Gather": _anywhere,
    "Gemm": _gemm,
    "GlobalAveragePool": _global,
    "GlobalMaxPool": _global,
    "Identity": _same,
    "LeakyRelu": _leaky,
    "MatMul": _matmul,
    "Max": _pairwise(lambda a, b: (np.maximum(a[0], b[0]), np.maximum(a[1], b[1]))),
    "MaxPool": _pooled,
    "Min": _pairwise(lambda a, b: (np.minimum(a[0], b[0]), np.minimum(a[1], b[1]))),
    "Mul": _pairwise(multiplied),
    "Neg": lambda p: negated(p.input()),
    "Relu": _monotone(lambda v: np.maximum(v, 0.0)),
    "Reshape": _regrouped,
    "Sigmoid": _between(_logistic, 0.0),
    "Slice": _anywhere,
    "Softmax": _softmax,
    "Split": _anywhere,
    "Squeeze": _regrouped,
    "Sub": _pairwise(lambda a, b: added(a, negated(b))),
    "Sum": _pairwise(added),
    "Tanh": _between(np.tanh, -1.0),
    "Transpose": _transposed,
    "Unsqueeze": _regrouped,
}
