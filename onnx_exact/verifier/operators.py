"""What a node of a chain does to the features of the one tensor that it reads and that varies.

A tensor of a chain holds, in row-major order, `lead` positions, `features`, `trail` positions:
entry f of position (a, b) is number (a features + f) trail + b. A chain computes the same function
of the features at every position. `Layout` has these three numbers at each trial of the symbolic
sizes; that two layouts are the same at every trial is what keeps samples apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto

from onnx_exact.errors import UncheckedError
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
        lead, trail = self.lead[trial], self.trail[trial]
        starts = [i for i in range(len(shape) + 1) if math.prod(shape[:i]) == lead]
        stops = [i for i in range(len(shape) + 1) if math.prod(shape[i:]) == trail]
        for start in starts[:1]:
            for stop in stops[::-1]:
                if stop >= start and math.prod(shape[start:stop]) == self.features:
                    return start, stop
        return None


@dataclass(frozen=True, eq=False)
class Step:
    """One node on the way.

    Attributes:
        kind: "dense", "relu", "same", or one of `PER_ENTRY` and "BatchNormalization".
        source, output: the tensors it reads and makes.
        node: its position.
        values: of "dense": W (out, in), alpha, beta of alpha W x + beta b; of
            "BatchNormalization": scale, B, mean, var; of the others their constant. These and b
            broadcast against the output.
        bias: b, None for none.
        swapped: whether a constant comes before the tensor.
        before, after: of "dense": where the features lie in `source` and in `output`.
        epsilon: of "BatchNormalization".
    """

    kind: str
    source: str
    output: str
    node: int
    values: tuple[Array, ...] = ()
    bias: Array | None = None
    swapped: bool = False
    before: Layout | None = None
    after: Layout | None = None
    epsilon: float = 0.0


def read_step(model: Model, tensor: str) -> Step:
    """What the node that makes `tensor` does.

    Raises:
        UncheckedError: nothing that the checker knows.
    """
    position = model.producer[tensor]
    node = model.nodes[position]
    step = None
    if model.is_standard(node) and node.output[0] == tensor and not _refers(node):
        varying = [slot for slot, name in enumerate(node.input) if _varies(model, name)]
        if node.op_type == "Reshape":
            varying = varying[:1]  # Its sizes are those that follow for its output.
        if len(varying) == 1:
            step = _read(model, node, position, varying[0])
    if step is None:
        raise UncheckedError(f"cannot check: operator {node.op_type} ({tensor!r} of {model.name})")
    return step


def _varies(model: Model, name: str) -> bool:
    return bool(name) and model.constant(name) is None


def _refers(node: NodeProto) -> bool:
    return any(attribute.ref_attr_name for attribute in node.attribute)


def attributes(node: NodeProto) -> Attributes:
    """The attributes of a node by name."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _read(model: Model, node: NodeProto, at: int, slot: int) -> Step | None:
    source, output, op = node.input[slot], node.output[0], node.op_type
    shapes, after = model.shapes(source), model.shapes(output)
    sizes = [(math.prod(a), math.prod(b)) for a, b in zip(shapes, after, strict=True)]
    if op == "Relu":
        return Step("relu", source, output, at)
    if op in SAME and slot == 0 and all(a == b for a, b in sizes):
        trains = op == "Dropout" and len(node.input) > 2 and node.input[2]
        return None if trains else Step("same", source, output, at)
    if op in PER_ENTRY and shapes == after:
        constant = model.numbers(node.input[1 - slot])
        if constant is None or (op == "Div" and (slot == 1 or not constant.all())):
            return None
        return Step(op, source, output, at, (constant,), swapped=slot == 1)
    reader = READERS.get(op)
    return None if reader is None else reader(model, node, at, slot)


def _normalization(model: Model, node: NodeProto, at: int, slot: int) -> Step | None:
    options = attributes(node)
    shapes = model.shapes(node.input[0])
    plain = not options.get("training_mode", 0) and options.get("spatial", 1) == 1
    if slot or not plain or sum(map(bool, node.output)) > 1 or len(shapes[0]) < 2:
        return None
    values = []
    for name in node.input[1:5]:
        value = model.numbers(name)
        if value is None or any(value.shape != shape[1:2] for shape in shapes):
            return None
        values.append(value.reshape(-1, *[1] * (len(shapes[0]) - 2)))
    epsilon = float(options.get("epsilon", np.float32(1e-5)))
    if not (values[3] + epsilon > 0.0).all():
        return None
    return Step(node.op_type, node.input[0], node.output[0], at, tuple(values), epsilon=epsilon)


def _gemm(model: Model, node: NodeProto, at: int, slot: int) -> Step | None:
    options = attributes(node)
    weight = model.numbers(node.input[1]) if slot == 0 else None
    shapes = model.shapes(node.input[0])
    if weight is None or weight.ndim != 2 or any(len(shape) != 2 for shape in shapes):
        return None
    weight = weight if options.get("transB", 0) else weight.T
    bias = None
    if len(node.input) > 2 and node.input[2]:
        bias = model.numbers(node.input[2])
        if bias is None:
            return None
    if options.get("transA", 0):
        before = Layout.of([(1, shape[0], shape[1]) for shape in shapes])
        rows = [shape[1] for shape in shapes]
    else:
        before = Layout.of([(shape[0], shape[1], 1) for shape in shapes])
        rows = [shape[0] for shape in shapes]
    after = Layout.of([(n, len(weight), 1) for n in rows])
    factors = (np.array(options.get(name, 1.0)) for name in ("alpha", "beta"))
    return _dense(
        Step("dense", node.input[0], node.output[0], at, (weight, *factors), bias), before, after
    )


def _matmul(model: Model, node: NodeProto, at: int, slot: int) -> Step | None:
    weight = model.numbers(node.input[1 - slot])
    shapes = model.shapes(node.input[slot])
    if weight is None or weight.ndim != 2 or not shapes[0]:
        return None
    weight = weight.T if slot == 0 else weight
    parts = []
    for shape in shapes:
        last = slot == 0 or len(shape) == 1
        lead, trail = (shape[:-1], ()) if last else (shape[:-2], shape[-1:])
        parts.append((math.prod(lead), shape[-1 if last else -2], math.prod(trail)))
    before, after = Layout.of(parts), Layout.of([(a, len(weight), b) for a, _, b in parts])
    one = np.ones(())
    return _dense(
        Step("dense", node.input[slot], node.output[0], at, (weight, one, one)), before, after
    )


def _dense(step: Step, before: Layout | None, after: Layout | None) -> Step | None:
    """The step with where its features lie, if its matrix fits these."""
    sizes = (after and after.features, before and before.features)
    return replace(step, before=before, after=after) if step.values[0].shape == sizes else None


READERS: dict[str, Callable[[Model, NodeProto, int, int], Step | None]] = {
    "BatchNormalization": _normalization,
    "Gemm": _gemm,
    "MatMul": _matmul,
}


def per_feature(model: Model, constant: Array, tensor: str, layout: Layout) -> Array:
    """What a constant that broadcasts against a tensor is for each feature, shape (features,).

    Raises:
        UncheckedError: it makes the tensor larger, or differs between positions.
    """
    found = []
    for trial, shape in enumerate(model.shapes(tensor)):
        axes = layout.at(trial, shape)
        values = None if axes is None else _along(constant, shape, *axes)
        if values is not None and layout.features <= MOST_ENTRIES:
            assert axes is not None
            found.append(np.broadcast_to(values, shape[slice(*axes)]).reshape(-1))
    if len(found) == len(layout.lead) and all(np.array_equal(found[0], v) for v in found):
        return found[0]
    raise UncheckedError(f"cannot check: a constant that {tensor!r} of {model.name} depends on")


def _along(constant: Array, shape: Shape, start: int, stop: int) -> Array | None:
    """A constant along the axes [start, stop), where it is the same along all others."""
    if constant.ndim > len(shape):
        return None
    values = constant.reshape((1,) * (len(shape) - constant.ndim) + constant.shape)
    if any(size not in (1, whole) for size, whole in zip(values.shape, shape, strict=True)):
        return None
    for axis in (*range(start), *range(stop, len(shape))):
        first = values.take([0], axis=axis)
        if not (values == first).all():
            return None
        values = first
    return values.reshape(values.shape[start:stop])
