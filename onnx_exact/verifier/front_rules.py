"""How each operator in front of a chain acts on intervals: one small function each, one table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
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
from onnx_exact.verifier.model import MOST_ENTRIES, Model
from onnx_exact.verifier.operators import Attributes, read_step
from onnx_exact.verifier.refusals import require_known
from onnx_exact.verifier.rounding import Array
from onnx_exact.verifier.shapes import Shape

# What numpy's tanh, and sums of a few of its terms, may be off by; their values are at most 1.
FUNCTION_ERROR = 2.0**-50
# Operations of a normalisation.
FEW = 8


@dataclass(frozen=True, eq=False)
class Place:
    """A node, and what is known of what it reads.

    Attributes:
        model, node, options: the node and its attributes.
        x: intervals of the inputs that it has.
        shapes: of the output that is wanted, at every trial.
        kind: its type.
    """

    model: Model
    node: NodeProto
    options: Attributes
    x: list[Interval]
    shapes: tuple[Shape, ...]
    kind: np.dtype[Any]

    def constant(self, slot: int) -> Array | None:
        """The numbers of a constant input; None for any other, or none."""
        return self.model.numbers("".join(self.node.input[slot : slot + 1]))

    def sizes(self, slot: int = 0) -> tuple[Shape, ...]:
        """The shape of an input at every trial."""
        return self.model.shapes(self.node.input[slot])

    def whole(self, slot: int = 0) -> Interval:
        """The bounds of an input written out along all axes of a size that is known."""
        sizes = [n[0] if len(set(n)) == 1 else 1 for n in zip(*self.sizes(slot), strict=True)]
        require_known(
            math.prod(sizes) <= MOST_ENTRIES, f"an input of {self.node.op_type} is too large"
        )
        low, high = (np.broadcast_to(side, sizes) for side in self.x[slot])
        return low, high


Rule = Callable[[Place], Interval | None]


def _pairwise(f: Callable[[Interval, Interval], Interval]) -> Rule:
    """Of operators that take their inputs two by two."""
    return lambda p: reduce(f, p.x)


def _between(f: Callable[[Array], Array], least: float) -> Rule:
    """Of non-decreasing functions between `least` and 1, exact at 0, else to within an error."""
    return lambda p: (
        np.maximum(f(p.x[0][0]) - FUNCTION_ERROR, np.where(p.x[0][0] < 0.0, least, f(np.zeros(1)))),
        np.minimum(f(p.x[0][1]) + FUNCTION_ERROR, np.where(p.x[0][1] > 0.0, 1.0, f(np.zeros(1)))),
    )


def _same(p: Place) -> Interval | None:
    return None if p.node.op_type == "Dropout" and "".join(p.node.input[2:3]) else p.x[0]


def _cast(p: Place) -> Interval | None:
    """Rounding is what it does; it never swaps two numbers."""
    low, high = (side.astype(p.kind).astype(np.float64) for side in p.x[0])
    return np.minimum(p.x[0][0], low), np.maximum(p.x[0][1], high)


def _full(p: Place, low: Array | float, high: Array | float) -> Interval:
    """The same bounds for every entry."""
    sizes = (1,) * len(p.shapes[0])
    return np.full(sizes, low), np.full(sizes, high)


def _anywhere(p: Place) -> Interval | None:
    """Every entry is one of the first input."""
    return _full(p, p.x[0][0].min(initial=np.inf), p.x[0][1].max(initial=-np.inf))


def _regrouped(p: Place) -> Interval | None:
    """The same entries in the same order: symbolic axes have to stay in front."""
    pairs = list(zip(p.sizes(), p.shapes, strict=True))
    ranks = itertools.product(*(range(len(shape) + 1) for shape in pairs[0]))
    for stop, other in ranks:
        tails = {(a[stop:], b[other:]) for a, b in pairs}
        if len(tails) == 1 and all(math.prod(a[:stop]) == math.prod(b[:other]) for a, b in pairs):
            low, high = hull(p.whole(), tuple(range(stop)))
            sizes = (1,) * other + tails.pop()[1]
            return low.reshape(sizes), high.reshape(sizes)
    return _anywhere(p)


def _transposed(p: Place) -> Interval | None:
    return p.x[0][0].transpose(p.options.get("perm")), p.x[0][1].transpose(p.options.get("perm"))


def _concatenated(p: Place) -> Interval | None:
    axis, slots = int(p.options["axis"]) % len(p.shapes[0]), range(len(p.x))
    if any(len({shape[axis] for shape in p.sizes(slot)}) > 1 for slot in slots):
        ends = [hull(x, tuple(range(x[0].ndim))) for x in p.x]
        return np.minimum.reduce([x[0] for x in ends]), np.maximum.reduce([x[1] for x in ends])
    low, high = (np.concatenate(sides, axis) for sides in zip(*map(p.whole, slots), strict=True))
    return low, high


def _absolute(p: Place) -> Interval | None:
    low, high = p.x[0]
    return np.maximum(np.maximum(low, -high), 0.0), np.maximum(-low, high)


def _leaky(p: Place) -> Interval | None:
    slope = np.array(float(p.options.get("alpha", np.float32(0.01))))
    low, high = p.x[0]
    below = multiplied((np.minimum(low, 0.0), np.minimum(high, 0.0)), (slope, slope))
    # One of the two is 0 at any point.
    return below[0] + np.maximum(low, 0.0), below[1] + np.maximum(high, 0.0)


def _clipped(p: Place) -> Interval | None:
    low, high = p.x[0]
    for slot, name, f in ((1, "min", np.maximum), (2, "max", np.minimum)):
        end = p.options.get(name, p.constant(slot))
        if end is None and any(p.node.input[slot : slot + 1]):
            return None
        low, high = (v if end is None else f(v, np.float64(end)) for v in (low, high))
    return low, high


def _normalized(p: Place) -> Interval | None:
    step = read_step(p.model, p.node.output[0])
    gain, offset, mean, variance = step.values
    scale = gain / np.sqrt(variance + step.epsilon)
    ends = [(side - mean) * scale + offset for side in p.x[0]]
    size = np.maximum(*map(np.abs, p.x[0])) + np.abs(mean)
    error = rounding(size * np.abs(scale) + np.abs(offset), FEW)
    return np.minimum(*ends) - error, np.maximum(*ends) + error


def _dense(p: Place) -> Interval | None:
    """A Gemm or MatMul: its features lie along the last axis, or the last but one."""
    step = read_step(p.model, p.node.output[0])
    weight, bias, alpha, beta = ((v, v) for v in step.values)
    slot = list(p.node.input).index(step.source)
    if p.x[slot][0].ndim < 2:
        return None
    turned = bool(p.options.get("transA", 0))

    def product(w: Array, v: Array) -> Array:
        return w @ v if slot else (v.swapaxes(-1, -2) if turned else v) @ w.T

    found = linear(product, weight[0], p.whole(slot), weight[0].shape[1])
    return added(multiplied(found, alpha), multiplied(bias, beta))


def _windows(p: Place, kernel: Shape) -> Callable[[Array, float], Array] | None:
    """What all windows of a convolution or a pool have at each place of the kernel.

    The result takes an array, with its channels and spatial axes written out, and what it is padded
    with; the axes of the kernel come last. The last window ends where its output says, whatever
    `ceil_mode` or the pads allow.
    """
    rank, sizes = len(kernel), {shape[1:] for shape in p.sizes()}
    outs = {shape[2:] for shape in p.shapes}
    if len(sizes) > 1 or len(outs) > 1:
        return None
    (inner,), (out,) = sizes, outs
    steps, dilations = (p.options.get(n, (1,) * rank) for n in ("strides", "dilations"))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    axes = list(zip(inner[1:], out, steps, reach, strict=True))
    needed = [(n - 1) * s + r - size for size, n, s, r in axes]
    auto = p.options.get("auto_pad", b"NOTSET")
    begins = [(max(n, 0) + (auto == b"SAME_LOWER")) // 2 for n in needed]
    if auto == b"NOTSET":
        begins = list(p.options.get("pads", (0,) * 2 * rank))[:rank]
    pads = [(0, 0), (0, 0), *((b, max(n - b, 0)) for b, n in zip(begins, needed, strict=True))]
    if min(begins, default=0) < 0 or math.prod((*out, *inner[:1], *kernel)) > MOST_ENTRIES:
        return None
    every = [slice(0, (n - 1) * s + 1, s) for _, n, s, _ in axes]
    within = [slice(None, None, d) for d in dilations]

    def seen(x: Array, fill: float) -> Array:
        padded = np.pad(np.broadcast_to(x, (len(x), *inner)), pads, constant_values=fill)
        views = sliding_window_view(padded, reach, tuple(range(2, 2 + rank)))
        return np.asarray(views[(slice(None), slice(None), *every, *within)])

    return seen


def _convolved(p: Place) -> Interval | None:
    weight = p.constant(1)
    seen = None if weight is None else _windows(p, weight.shape[2:])
    if weight is None or seen is None:
        return None
    windows, groups = seen, int(p.options.get("group", 1))
    spots = [*range(2 - weight.ndim, 0)]

    def product(rows: Array, x: Array) -> Array:
        parts = zip(np.split(rows, groups), np.split(windows(x, 0.0), groups, 1), strict=True)
        found = [np.tensordot(w, v, ([1, *spots], [1, *spots])) for w, v in parts]
        return np.moveaxis(np.concatenate(found), 0, 1)

    found = linear(product, weight, p.x[0], math.prod(weight.shape[1:]))
    bias = p.x[2] if len(p.x) > 2 else (np.zeros(1),) * 2
    low, high = (v.reshape(-1, *[1] * len(spots)) for v in bias)
    return added(found, (low, high))


def _pooled(p: Place) -> Interval | None:
    """Maxima and means of a window lie between the least and the greatest number in it."""
    kernel = tuple(p.options["kernel_shape"])
    seen = _windows(p, kernel)
    if seen is None or p.options.get("storage_order", 0):
        return None
    spots = tuple(range(-len(kernel), 0))
    high = seen(p.x[0][1], -np.inf).max(axis=spots)
    if p.node.op_type == "MaxPool":
        return seen(p.x[0][0], -np.inf).max(axis=spots), high
    low = seen(p.x[0][0], np.inf).min(axis=spots)
    # Means may count what is padded, as 0.
    padded = seen(np.zeros_like(p.x[0][0]), np.inf).max(axis=spots) == np.inf
    return np.where(padded, np.minimum(low, 0.0), low), np.where(
        padded, np.maximum(high, 0.0), high
    )


def _global(p: Place) -> Interval | None:
    axes = tuple(range(2, p.x[0][0].ndim))
    low, high = hull(p.x[0], axes)
    return (p.x[0][0].max(axes, keepdims=True) if p.node.op_type == "GlobalMaxPool" else low), high


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
    "Gemm": _dense,
    "GlobalAveragePool": _global,
    "GlobalMaxPool": _global,
    "Identity": _same,
    "LeakyRelu": _leaky,
    "MatMul": _dense,
    "Max": _pairwise(lambda a, b: (np.maximum(a[0], b[0]), np.maximum(a[1], b[1]))),
    "MaxPool": _pooled,
    "Min": _pairwise(lambda a, b: (np.minimum(a[0], b[0]), np.minimum(a[1], b[1]))),
    "Mul": _pairwise(multiplied),
    "Neg": lambda p: negated(p.x[0]),
    "Relu": lambda p: (np.maximum(p.x[0][0], 0.0), np.maximum(p.x[0][1], 0.0)),
    "Reshape": _regrouped,
    "Sigmoid": _between(lambda v: 0.5 + 0.5 * np.tanh(0.5 * v), 0.0),
    "Slice": _anywhere,
    "Softmax": lambda p: _full(p, 0.0, 1.0),
    "Split": _anywhere,
    "Squeeze": _regrouped,
    "Sub": _pairwise(lambda a, b: added(a, negated(b))),
    "Sum": _pairwise(added),
    "Tanh": _between(np.tanh, -1.0),
    "Transpose": _transposed,
    "Unsqueeze": _regrouped,
}
# The rule holds for all outputs of these, for the first alone of all others.
EVERY_OUTPUT = ("Split",)
