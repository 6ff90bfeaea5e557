"""What a node of a chain does to the features of the one tensor that it reads and that varies.

A tensor of a chain holds, in row-major order, `lead` positions, `features`, `trail` positions:
entry f of position (a, b) is number (a features + f) trail + b. A chain computes the same function
of the features at every position. `Layout` has these three numbers at each trial of the symbolic
sizes; that two layouts are the same at every trial is what keeps samples apart.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto

from onnx_exact.errors import UncheckedError
from onnx_exact.verifier.intervals import hull
from onnx_exact.verifier.model import MOST_ENTRIES, Model
from onnx_exact.verifier.rounding import Array
from onnx_exact.verifier.shapes import Shape

SAME = ("Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze")
PER_ENTRY = ("Add", "Sub", "Mul", "Div")
Attributes = dict[str, Any]


@dataclass(frozen=True)
class Layout:
    """Positions in front of the features, features, positions behind; one entry a trial."""

    lead: tuple[int, ...]
    features: int
    trail: tuple[int, ...]

    @staticmethod
    def of(parts: list[tuple[int, int, int]]) -> Layout | None:
        """The layout with these three numbers at each trial; None where features are no number."""
        lead, features, trail = zip(*parts, strict=True)
        return Layout(lead, features[0], trail) if len(set(features)) == 1 else None

    def at(self, trial: int, shape: Shape) -> tuple[int, int] | None:
        """The axes [start, stop) of `shape` that hold the features alone; None for no such axes."""
        wanted = (self.lead[trial], self.features, self.trail[trial])
        for start, stop in itertools.combinations_with_replacement(range(len(shape) + 1), 2):
            parts = shape[:start], shape[start:stop], shape[stop:]
            if tuple(map(math.prod, parts)) == wanted:
                return start, stop
        return None


@dataclass(frozen=True, eq=False)
class Step:
    """One node on the way.

    Attributes:
        kind: "dense", "relu", "same", or one of `PER_ENTRY` and "BatchNormalization".
        source, output: the tensors it reads and makes.
        node: its position.
        values: of "dense": W (out, in), b, alpha, beta of alpha W x + beta b; of
            "BatchNormalization": scale, B, mean, var; of the others their constant. These and b
            broadcast against the output.
        swapped: whether a constant comes before the tensor.
        before, after: of "dense": where the features lie in `source` and in `output`.
        epsilon: of "BatchNormalization".
    """

    kind: str
    source: str
    output: str
    node: int
    values: tuple[Array, ...] = ()
    swapped: bool = False
    before: Layout | None = None
    after: Layout | None = None
    epsilon: float = 0.0


def read_step(model: Model, tensor: str, start: str = "") -> Step:
    """What the node that makes `tensor` does; `start` varies, whatever makes it.

    Raises:
        UncheckedError: nothing that the checker knows.
    """
    position = model.producer[tensor]
    node = model.nodes[position]
    step = None
    refers = any(attribute.ref_attr_name for attribute in node.attribute)
    if model.is_standard(node) and node.output[0] == tensor and not refers:
        varying = [
            i
            for i, name in enumerate(node.input)
            if name and (name == start or model.constant(name) is None)
        ]
        # The sizes of a Reshape are those that follow for its output.
        if len(varying) == 1 or (varying and node.op_type == "Reshape"):
            step = _read(model, node, position, varying[0])
    if step is None:
        raise UncheckedError(f"cannot check: operator {node.op_type} ({tensor!r} of {model.name})")
    return step


def attributes(node: NodeProto) -> Attributes:
    """The attributes of a node by name."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _read(model: Model, node: NodeProto, at: int, slot: int) -> Step | None:
    source, output, op = node.input[slot], node.output[0], node.op_type
    shapes, after = model.shapes(source), model.shapes(output)
    sizes = [(math.prod(a), math.prod(b)) for a, b in zip(shapes, after, strict=True)]
    if op == "Relu":
        return Step("relu", source, output, at)
    # A Cast may round, and a Dropout train.
    same = (
        model.elem_type(source) == model.elem_type(output) > 0
        if op == "Cast"
        else op in SAME and not (op == "Dropout" and any(node.input[2:3]))
    )
    if same and slot == 0 and all(a == b for a, b in sizes):
        return Step("same", source, output, at)
    if op in PER_ENTRY and shapes == after:
        constant = model.numbers(node.input[1 - slot])
        if constant is None or (op == "Div" and (slot == 1 or not constant.all())):
            return None
        return Step(op, source, output, at, (constant,), swapped=slot == 1)
    if op == "BatchNormalization":
        return _normalization(model, node, at, slot)
    return _dense(model, node, at, slot) if op in ("Gemm", "MatMul") else None


def _normalization(model: Model, node: NodeProto, at: int, slot: int) -> Step | None:
    options = attributes(node)
    shapes = model.shapes(node.input[0])
    plain = not options.get("training_mode", 0) and options.get("spatial", 1) == 1
    if slot or not plain or sum(map(bool, node.output)) > 1 or len(shapes[0]) < 2:
        return None
    numbers = [model.numbers(name) for name in node.input[1:5]]
    fitting = [v for v in numbers if v is not None and {v.shape} == {s[1:2] for s in shapes}]
    values = [v.reshape(-1, *[1] * (len(shapes[0]) - 2)) for v in fitting]
    epsilon = float(options.get("epsilon", np.float32(1e-5)))
    if len(values) < 4 or not (values[3] + epsilon > 0.0).all():
        return None
    return Step(node.op_type, node.input[0], node.output[0], at, tuple(values), epsilon=epsilon)


def _dense(model: Model, node: NodeProto, at: int, slot: int) -> Step | None:
    """A Gemm, or a MatMul whose constant may come first: its features lie along the last axis but
    one then, as they do where a Gemm turns its input."""
    options, weight = attributes(node), model.numbers(node.input[1 - slot])
    shapes, rank = model.shapes(node.input[slot]), len(model.shapes(node.input[slot])[0])
    matrices = node.op_type == "Gemm"
    if weight is not None and not matrices and weight.ndim <= rank:
        # A vector, or a matrix with axes of size 1 in front.
        sizes = weight.shape[-2:] if weight.ndim > 1 else ((-1, 1), (1, -1))[slot]
        weight = weight.reshape(sizes) if math.prod(weight.shape[:-2]) == 1 else None
    if weight is None or weight.ndim != 2 or not rank or (matrices and (slot or rank != 2)):
        return None
    weight = weight if slot or options.get("transB", 0) else weight.T
    last = rank == 1 or not (slot or options.get("transA", 0))
    parts = [
        (shape[:-1], shape[-1], ()) if last else (shape[:-2], shape[-2], shape[-1:])
        for shape in shapes
    ]
    before = Layout.of([(math.prod(a), n, math.prod(b)) for a, n, b in parts])
    rows = [(math.prod(a), math.prod(b)) for a, _, b in parts]
    if matrices:
        rows = [(a * b, 1) for a, b in rows]
    after = Layout.of([(a, len(weight), b) for a, b in rows])
    bias = model.numbers(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    if bias is None or before is None or weight.shape[1] != before.features:
        return None
    factors = (np.array(options.get(name, 1.0)) for name in ("alpha", "beta"))
    values = (weight, bias, *factors)
    return Step("dense", node.input[slot], node.output[0], at, values, before=before, after=after)


def per_feature(model: Model, constant: Array, tensor: str, layout: Layout) -> Array:
    """What a constant that broadcasts against a tensor is for each feature, shape (features,).

    Raises:
        UncheckedError: it makes the tensor larger, or differs between positions.
    """
    found = []
    for trial, shape in enumerate(model.shapes(tensor)):
        axes = layout.at(trial, shape) or (0, -1)
        lacking = len(shape) - constant.ndim
        sizes = (1,) * lacking + constant.shape
        fits = all(a in (1, b) for a, b in zip(sizes, shape, strict=False)) and lacking >= 0
        if fits and axes[1] >= 0 and layout.features <= MOST_ENTRIES:
            others = (*range(axes[0]), *range(axes[1], len(shape)))
            low, high = hull((constant.reshape(sizes),) * 2, others)
            if (low == high).all():
                values = low.reshape(sizes[slice(*axes)])
                found.append(np.broadcast_to(values, shape[slice(*axes)]).reshape(-1))
    if len(found) == len(layout.lead) and all(np.array_equal(found[0], v) for v in found):
        return found[0]
    raise UncheckedError(f"cannot check: a constant that {tensor!r} of {model.name} depends on")
