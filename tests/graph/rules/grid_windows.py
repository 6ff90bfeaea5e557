"""The attribute combinations of convolutions and pools."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from onnx import TensorProto

from tests.graph.rules.combination import FLOATS, Combination, Constant, Variable

LINE = Variable(("n", 2, 5))
PLANE = Variable(("n", 2, 4, 3))
RNG = np.random.default_rng(8)
ROW = Variable(("n", 1, 5))
# The reference is slow at these: every attribute in one type, and some in all.
SINGLE = (TensorProto.FLOAT,)


def weights(*shape: int) -> Constant:
    values = RNG.normal(size=shape)
    return Constant(np.where(RNG.random(shape) < 0.2, 0.0, values))


def _paddings(axes: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{}]
    found += [{"auto_pad": mode} for mode in ("VALID", "SAME_UPPER", "SAME_LOWER")]
    found += [
        {"pads": [1] * (2 * axes)},
        {"pads": [1, 0] * axes},
        {"pads": [0] * axes + [2] * axes},
    ]
    return found


def _of_unknown_size() -> Iterator[Combination]:
    attributes: list[dict[str, Any]] = [
        {"pads": [1, 1]},
        {"pads": [1, 1], "dilations": [2]},
        {"pads": [1, 1], "strides": [2], "ceil_mode": 1},
        {"auto_pad": "SAME_UPPER", "strides": [2]},
        {"auto_pad": "SAME_LOWER", "dilations": [2]},
    ]
    for size, known in product(("one", "three"), attributes):
        image = Variable(("n", 1, size))
        pool = known | {"kernel_shape": [2]}
        yield Combination("MaxPool", (image,), pool, opset=19, types=SINGLE)
        yield Combination("AveragePool", (image,), pool, opset=19, types=SINGLE)
        if "ceil_mode" not in known:
            yield Combination("Conv", (image, weights(2, 1, 2), weights(2)), known, types=SINGLE)
        yield Combination("GlobalMaxPool", (image,), types=SINGLE)
        yield Combination("GlobalAveragePool", (image,), types=SINGLE)


def convolutions() -> Iterator[Combination]:
    for padding, stride, dilation in product(_paddings(1), (1, 2), (1, 2)):
        attributes = padding | {"strides": [stride], "dilations": [dilation]}
        yield Combination("Conv", (LINE, weights(3, 2, 2), weights(3)), attributes, types=SINGLE)
    for padding, group in product(_paddings(2), (1, 2)):
        attributes = padding | {"group": group, "strides": [2, 1], "dilations": [1, 2]}
        yield Combination("Conv", (PLANE, weights(4, 2 // group, 3, 2)), attributes, types=SINGLE)
    for padding in _paddings(1):
        yield Combination("Conv", (LINE, weights(3, 2, 2)), padding, opset=1)
    yield Combination("Conv", (PLANE, weights(2, 1, 1, 1), Variable((2,))), {"group": 2})
    yield Combination("Conv", (Variable((1, 2, 2, 2, 2)), weights(1, 2, 2, 1, 2)))
    yield Combination("Conv", (PLANE, Variable((1, 2, 2, 2))))
    yield Combination("Conv", (Variable((0, 2, 5)), weights(3, 2, 2)))


def pools() -> Iterator[Combination]:
    for padding, stride, kernel in product(_paddings(1), (1, 3), (2, 3)):
        attributes = padding | {"strides": [stride], "kernel_shape": [kernel]}
        if max(padding.get("pads", [0])) >= kernel:
            continue
        for ceil in (0, 1):
            yield Combination("MaxPool", (ROW,), attributes | {"ceil_mode": ceil}, types=SINGLE)
            for counted in (0, 1):
                more = {"ceil_mode": ceil, "count_include_pad": counted}
                yield Combination("AveragePool", (ROW,), attributes | more, types=SINGLE)
    for padding, dilation, ceil in product(_paddings(1), (2,), (0, 1)):
        attributes = padding | {"kernel_shape": [2], "dilations": [dilation], "ceil_mode": ceil}
        if max(padding.get("pads", [0])) >= 2:
            attributes |= {"kernel_shape": [3]}
        yield Combination("MaxPool", (ROW,), attributes, types=SINGLE)
        for counted in (0, 1):
            more = {"count_include_pad": counted}
            yield Combination("AveragePool", (ROW,), attributes | more, opset=19, types=SINGLE)
    # Windows that step over the whole image.
    for size, dilation in product((1, 2), (2, 3)):
        attributes = {"kernel_shape": [2], "dilations": [dilation], "pads": [1, 1]}
        image = Variable(("n", 1, size))
        yield Combination("MaxPool", (image,), attributes)
        for counted in (0, 1):
            more = {"count_include_pad": counted}
            yield Combination("AveragePool", (image,), attributes | more, opset=19, types=SINGLE)
    for padding, ceil in product(_paddings(2), (0, 1)):
        attributes = padding | {"kernel_shape": [3, 2] if padding else [2, 2], "ceil_mode": ceil}
        if max(padding.get("pads", [0])) >= 2:
            attributes |= {"kernel_shape": [3, 3]}
        yield Combination("MaxPool", (PLANE,), attributes | {"storage_order": 1}, types=SINGLE)
        yield Combination("AveragePool", (PLANE,), attributes | {"strides": [2, 1]}, types=SINGLE)
    for op in ("MaxPool", "AveragePool"):
        yield Combination(op, (ROW,), {"kernel_shape": [1]})
        yield Combination(op, (ROW,), {"kernel_shape": [2]}, opset=7)
        yield Combination(op, (ROW,), {"kernel_shape": [3], "pads": [1, 1]}, opset=11)
    yield from _of_unknown_size()
    for shape in (LINE, PLANE, Variable((2, 3, 1)), Variable((1, 2, 2, 2, 2))):
        yield Combination("GlobalAveragePool", (shape,))
        yield Combination("GlobalMaxPool", (shape,), types=FLOATS[:2])
