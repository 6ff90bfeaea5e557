"""How each operator in front of a chain acts on intervals: one small function each, one table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from onnx import NodeProto
from onnx.helper import make_node

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
from onnx_exact.verifier.operators import SAME, Attributes, read_step
from onnx_exact.verifier.quantized import dequantized
from onnx_exact.verifier.refusals import require_known
from onnx_exact.verifier.rounding import SMALLEST, Array
from onnx_exact.verifier.shapes import Shape, run_alone

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
        output: its name.
    """

    model: Model
    node: NodeProto
    options: Attributes
    x: list[Interval]
    shapes: tuple[Shape, ...]
    kind: np.dtype[Any]
    output: str

    def constant(self, slot: int) -> Array | None:
        """The numbers of a constant input, quantised perhaps; None for any other, or none."""
        name = "".join(self.node.input[slot : slot + 1])
        numbers = self.model.numbers(name)
        return dequantized(self.model, name) if numbers is None else numbers

    def sizes(self, slot: int = 0) -> tuple[Shape, ...]:
        """The shape of an input at every trial."""
        return self.model.shapes(self.node.input[slot])

    def run(self, node: NodeProto, read: Sequence[Any]) -> Array:
        """The output for these inputs of its node, or one like it, by ONNX's own reference."""
        # Sizes that are not known are at least 1 each.
        require_known(math.prod(self.shapes[-1]) <= MOST_ENTRIES, "so large an output")
        values = {name: value for name, value in zip(node.input, read, strict=True) if name}
        found = run_alone(node, values, self.model.proto.opset_import)
        return np.asarray(found[list(filter(None, node.output)).index(self.output)])

    def whole(self, slot: int = 0) -> Interval:
        """The bounds of an input written out along all axes of a size that is known."""
        sizes = [n[0] if len(set(n)) == 1 else 1 for n in zip(*self.sizes(slot), strict=True)]
        require_known(
            math.prod(sizes) <= MOST_ENTRIES, f"an input of {self.node.op_type} is too large"
        )
        low, high = (np.broadcast_to(side, sizes) for side in self.x[slot])
        return low, high

    def spots(self, slot: int = 0) -> bool:
        """Whether every size of an image is known; else all that is tried is a single spot."""
        return all(len(set(n)) == 1 for n in list(zip(*self.sizes(slot), strict=True))[2:])


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
    if p.kind.kind not in "iubf":
        return None
    if p.kind.kind in "iub":
        (low, high), kind = map(np.trunc, p.x[0]), np.iinfo(p.kind)
        return (low, high) if low.min() >= kind.min and high.max() <= kind.max else None
    low, high = (side.astype(p.kind).astype(np.float64) for side in p.x[0])
    return np.minimum(p.x[0][0], low), np.maximum(p.x[0][1], high)


def anywhere(p: Place) -> Interval:
    """Every entry is one of the first input's, or, as `PICKS` has it, of others."""
    _require_usual_windows(p)
    read = p.x[PICKS.get(p.node.op_type, slice(1))]
    low, high = zip(*(hull(x, tuple(range(x[0].ndim))) for x in read), strict=True)
    sizes = (1,) * len(p.shapes[0])
    return np.full(sizes, min(v.item() for v in low)), np.full(sizes, max(v.item() for v in high))


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
    return anywhere(p)


def _bent(p: Place) -> Interval:
    """LeakyRelu, PRelu and Elu: what is below 0 and what is above, one of them 0 at any point."""
    elu = p.node.op_type == "Elu"
    slope = np.array(float(p.options.get("alpha", 1.0 if elu else np.float32(0.01))))
    below = p.x[1] if p.node.op_type == "PRelu" else (slope, slope)
    low, high = (np.minimum(side, 0.0) for side in p.x[0])
    if elu:
        low, high = np.expm1(low) * (1.0 + FUNCTION_ERROR), np.expm1(high) * (1.0 - FUNCTION_ERROR)
    above = np.maximum(p.x[0][0], 0.0), np.maximum(p.x[0][1], 0.0)
    return added(multiplied((low, high), below), above)


def _resized(p: Place) -> Interval:
    """Each entry is one of its channel's, or lies between some."""
    between = p.options.get("mode", b"nearest") in (b"nearest", b"linear")
    crops = p.options.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
    scales = p.constant(len(p.node.input) - 1)
    known = scales is not None and (scales[:2] == 1.0).all() and "axes" not in p.options
    require_known(between and not crops and known, "a Resize")
    return hull(p.x[0], tuple(range(2, len(p.shapes[0]))))


def _clipped(p: Place) -> Interval:
    low, high = p.x[0]
    for slot, name, f in ((1, "min", np.maximum), (2, "max", np.minimum)):
        end = p.options.get(name, p.constant(slot))
        require_known(end is not None or not any(p.node.input[slot : slot + 1]), "where it clips")
        low, high = (v if end is None else f(v, np.float64(end)) for v in (low, high))
    return low, high


def _normalized(p: Place) -> Interval | None:
    step = read_step(p.model, p.node.output[0])
    gain, offset, mean, variance = step.values
    scale = gain / np.sqrt(variance + step.epsilon)
    ends = [(side - mean) * scale + offset for side in p.x[0]]
    size = np.maximum(*map(np.abs, p.x[0])) + np.abs(mean)
    # Times 0 nothing is rounded.
    error = np.where(gain == 0.0, 0.0, rounding(size * np.abs(scale) + np.abs(offset), FEW))
    return np.minimum(*ends) - error, np.maximum(*ends) + error


def _require_usual_windows(p: Place) -> None:
    """Runtimes and ONNX's reference differ in windows that miss the image, or of negative pads."""
    apart = any(d > 1 for d in p.options.get("dilations", ()))
    same = p.options.get("auto_pad", b"NOTSET") != b"NOTSET"
    padded = same or any(p.options.get("pads", ())) or p.options.get("ceil_mode", 0)
    kernel = p.constant(1)
    shape = p.options.get("kernel_shape") or (() if kernel is None else kernel.shape[2:])
    pairs = zip(p.options.get("strides", ()), shape, strict=False)
    far = same and any(stride > size for stride, size in pairs)
    pools = p.node.op_type.endswith("Pool")
    turned = p.node.op_type == "ConvTranspose" and (same or "output_shape" in p.options)
    require_known(not (pools and apart and padded) and not far and not turned, "these windows")


def _moved(p: Place) -> Interval:
    """Entries that constants pick, or the largest or least of some: as ONNX's own reference does it
    to the lower and to the upper ends, since none of these operators swaps two numbers."""
    _require_usual_windows(p)
    data = range(len(p.x)) if p.node.op_type == "Concat" else (0,)
    fixed = [p.model.constant(name) for name in p.node.input]
    known = (v is not None or i in data for i, v in enumerate(fixed) if p.node.input[i])
    require_known(all(known), "which entries are picked")
    sides = ([p.whole(i)[k] if i in data else v for i, v in enumerate(fixed)] for k in (0, 1))
    low, high = (p.run(p.node, side) for side in sides)
    sizes = zip(low.shape, zip(*p.shapes, strict=True), strict=True)
    fits = all(size == n[0] for size, n in sizes if len(set(n)) == 1)
    require_known(fits, "an output of another shape")
    return low, high


def _largest(p: Place) -> Interval:
    """A MaxPool; where ONNX's reference and runtimes differ, each entry is one of its channel's."""
    usual = p.options.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    if usual and not p.options.get("ceil_mode", 0):
        return _moved(p)
    _require_usual_windows(p)
    return hull(p.x[0], tuple(range(2, len(p.shapes[0]))))


def _totalled(p: Place) -> Interval:
    """Sums and means: of as many terms at every trial if they are summed."""
    pairs = list(zip(p.sizes(), p.shapes, strict=True))
    counts = {math.prod(a) // math.prod(b) for a, b in pairs}
    (low, high), sums = _moved(p), p.node.op_type == "ReduceSum"
    plain = not p.options.get("ceil_mode", 0) and not (sums and len(counts) > 1)
    plain &= not p.options.get("count_include_pad", 0) or p.spots()
    require_known(plain, "sums of several sizes")
    terms = math.prod(p.options.get("kernel_shape", ())) + max(counts)
    size = np.maximum(*map(np.abs, p.x[0])).max(initial=0.0)
    read = ((p.x[0][0] != 0.0) | (p.x[0][1] != 0.0)).astype(np.float64)
    # What adds up nothing but zeros is 0.
    some = _moved(replace(p, x=[(read, read), *p.x[1:]]))[0] > 0.0
    error = np.where(some, rounding(size * terms if sums else size, terms), 0.0)
    return low - error, high + error


def _bilinear(p: Place) -> Interval:
    """A product with constant weights: Gemm, MatMul, Conv or ConvTranspose."""
    slot = int(p.constant(1) is None)
    # Where neither is constant there are no sizes, and no bounds.
    weight, node = np.asarray(p.constant(1 - slot)), p.node
    options = {k: v for k, v in p.options.items() if k not in ("alpha", "beta")}
    _require_usual_windows(p)
    x = p.whole(slot)
    if node.op_type.startswith("Conv") and not p.spots(slot):
        # Each number of the kernel meets some entry of the image, or what it is padded with.
        require_known(node.op_type == "Conv", "a transposed convolution of open sizes")
        x = np.minimum(x[0], 0.0), np.maximum(x[1], 0.0)
        x = hull(x, tuple(range(2, weight.ndim)))
        sizes = *x[0].shape[:2], *weight.shape[2:]
        x = np.broadcast_to(x[0], sizes), np.broadcast_to(x[1], sizes)
        options = {"group": p.options.get("group", 1)}
    plain = make_node(node.op_type, node.input[:2], node.output, **options)
    # Of each sum at most; the sizes of a kernel, or of a matrix, are in it.
    terms = max(weight.size // min(weight.shape[:2]), *weight.shape)
    if spots := weight.ndim - 2 if node.op_type.startswith("Conv") else 0:
        products = math.prod(p.shapes[-1]) // p.shapes[-1][1] * terms * p.options.get("group", 1)
        require_known(products <= MOST_ENTRIES, "so large a convolution")

    def product(w: Array, x: Array) -> Array:
        return p.run(plain, [w, x] if slot else [x, w])

    found = linear(product, weight, x, terms)
    alpha, beta = ((np.array(p.options.get(name, 1.0)),) * 2 for name in ("alpha", "beta"))
    if len(p.x) < 3:
        return multiplied(found, alpha)
    low, high = (v.reshape(-1, *[1] * spots) if spots else v for v in p.x[2])
    return added(multiplied(found, alpha), multiplied((low, high), beta))


def _increasing(f: Callable[[Array], Array]) -> Rule:
    """Of functions that numpy has to within a few units in the last place."""
    return lambda p: (
        f(p.x[0][0]) - FUNCTION_ERROR * np.abs(f(p.x[0][0])) - SMALLEST,
        f(p.x[0][1]) + FUNCTION_ERROR * np.abs(f(p.x[0][1])) + SMALLEST,
    )


def _hard_sigmoid(p: Place) -> Interval:
    slope, offset = (
        (np.array(p.options.get(name, np.float32(v))).astype(np.float64),) * 2
        for name, v in (("alpha", 0.2), ("beta", 0.5))
    )
    low, high = added(multiplied(p.x[0], slope), offset)
    return np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)


def _wave(p: Place) -> Interval:
    """Sine and cosine are no steeper than 1."""
    (low, high), f = p.x[0], {"Sin": np.sin, "Cos": np.cos}[p.node.op_type]
    middle = f(0.5 * low + 0.5 * high)
    reach = (0.5 * high - 0.5 * low) + FUNCTION_ERROR * (1.0 + np.abs(low) + np.abs(high))
    return np.fmax(middle - reach, -1.0), np.fmin(middle + reach, 1.0)


def _chosen(p: Place) -> Interval:
    """A Where: of what its condition says, or of both."""
    takes, (_, a, b) = p.model.constant(p.node.input[0]), p.x
    if takes is None:
        return np.minimum(a[0], b[0]), np.maximum(a[1], b[1])
    return np.where(takes, a[0], b[0]), np.where(takes, a[1], b[1])


def _quantized(p: Place) -> Interval:
    """QuantizeLinear, which rounds and saturates, or DequantizeLinear."""
    require_known(not p.options.get("block_size", 0), "blocks")
    sizes = [1] * len(p.shapes[0])
    sizes[int(p.options.get("axis", 1)) if p.x[1][0].size > 1 else 0] = -1
    scale, *zero = [(a.reshape(sizes), b.reshape(sizes)) for a, b in p.x[1:]]
    offset = zero[0] if zero else (np.zeros(1),) * 2
    if p.node.op_type == "DequantizeLinear":
        return multiplied(added(p.x[0], negated(offset)), scale)
    ends, kind = divided(p.x[0], scale), np.iinfo(p.kind)
    low, high = (np.rint(end) + v for end, v in zip(ends, offset, strict=True))
    return np.clip(low, kind.min, kind.max), np.clip(high, kind.min, kind.max)


RULES: dict[str, Rule] = {
    "Abs": lambda p: (
        np.maximum(np.maximum(p.x[0][0], -p.x[0][1]), 0.0),
        np.maximum(-p.x[0][0], p.x[0][1]),
    ),
    "Add": _pairwise(added),
    "AveragePool": _totalled,
    "BatchNormalization": _normalized,
    "Cast": _cast,
    "Clip": _clipped,
    "Concat": _moved,
    "Conv": _bilinear,
    "ConvTranspose": _bilinear,
    "Cos": _wave,
    "DequantizeLinear": _quantized,
    "Div": _pairwise(divided),
    "Dropout": _same,
    "Elu": _bent,
    "Exp": _increasing(np.exp),
    "Expand": _moved,
    "Flatten": _regrouped,
    "Gather": _moved,
    "Gemm": _bilinear,
    "GlobalAveragePool": _totalled,
    "GlobalMaxPool": _moved,
    "HardSigmoid": _hard_sigmoid,
    "Identity": _same,
    "LeakyRelu": _bent,
    "MatMul": _bilinear,
    "Max": _pairwise(lambda a, b: (np.maximum(a[0], b[0]), np.maximum(a[1], b[1]))),
    "MaxPool": _largest,
    "Min": _pairwise(lambda a, b: (np.minimum(a[0], b[0]), np.minimum(a[1], b[1]))),
    "Mul": _pairwise(multiplied),
    "Neg": lambda p: negated(p.x[0]),
    "OneHot": anywhere,
    "PRelu": _bent,
    "Pad": _moved,
    "QuantizeLinear": _quantized,
    "ReduceMax": _moved,
    "ReduceMean": _totalled,
    "ReduceMin": _moved,
    "ReduceSum": _totalled,
    "Relu": lambda p: (np.maximum(p.x[0][0], 0.0), np.maximum(p.x[0][1], 0.0)),
    "Reshape": _regrouped,
    "Resize": _resized,
    # Features lie along the last of two axes; of more axes nothing is said.
    "Scaler": lambda p: (
        multiplied(
            added(p.x[0], (-np.array(p.options["offset"], np.float64),) * 2),
            (np.array(p.options["scale"], np.float64),) * 2,
        )
        if len(p.shapes[0]) <= 2
        else None
    ),
    "Sigmoid": _between(lambda v: 0.5 + 0.5 * np.tanh(0.5 * v), 0.0),
    "Sin": _wave,
    "Slice": _moved,
    "Softmax": lambda p: (np.zeros((1,) * len(p.shapes[0])), np.ones((1,) * len(p.shapes[0]))),
    "Split": _moved,
    "Sqrt": _increasing(np.sqrt),
    "Squeeze": _regrouped,
    "Sub": _pairwise(lambda a, b: added(a, negated(b))),
    "Sum": _pairwise(added),
    "Tanh": _between(np.tanh, -1.0),
    "Tile": _moved,
    "Transpose": _moved,
    "Unsqueeze": _regrouped,
    "Where": _chosen,
}
# The rule holds for all outputs of these, for the first alone of all others.
EVERY_OUTPUT = ("Split",)
# Every entry is one of the input's that they name, whichever.
PICKS = dict.fromkeys(
    ("Expand", "Gather", "MaxPool", "ReduceMax", "ReduceMin", "Slice", "Split", "Tile"), slice(1)
) | {"Concat": slice(None), "OneHot": slice(2, 3)}
# What is said of integers, which wrap in arithmetic, and of these alone.
INTEGERS = ("Cast", "QuantizeLinear", "Transpose", *PICKS, *SAME)
