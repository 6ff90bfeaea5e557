"""Whether two models are the same: their values at points that climb, and all they say beside.

A rewrite may round otherwise, so that values may differ by what rounding does. What that is for a
given graph is measured on the model before: how far its own values move where its dense layers are
evaluated with weights that are moved by units in the last place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from benchmarks.fuzzing.tensors import Tensor

Array = NDArray[Any]
Feed = dict[str, Array]

# What rounding alone may do, in units of the last place of the largest value.
FREE_UNITS = 64.0
# How much more than what moved weights were seen to do a rewrite may do.
SPARE = 16.0
# Models with moved weights that rounding is measured with, and how many units they are moved by.
MOVED = 4
MOVED_UNITS = 4.0
# Steps of the climb and points that are tried in each.
STEPS = 4
POINTS = 5


@dataclass(frozen=True)
class Difference:
    """An output that is not the same.

    Attributes:
        output: its name.
        found, allowed: the largest difference, and what rounding explains.
        feed: the inputs that show it.
    """

    output: str
    found: float
    allowed: float
    feed: Feed


def session(model: ModelProto, optimized: bool = False) -> onnxruntime.InferenceSession:
    """The model in onnxruntime, as it is written unless `optimized`.

    Raises:
        Exception: whatever onnxruntime raises for a model it cannot run.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimized:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    data = model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


class Inputs:
    """Points of a domain, of any batch."""

    def __init__(
        self,
        tensors: Sequence[Tensor],
        boxes: Mapping[str, tuple[Array, Array]],
        rng: np.random.Generator,
    ) -> None:
        self._rng, self._boxes = rng, boxes
        self._shapes = {t.name: [size or 0 for size in t.shape] for t in tensors}
        self._types = {t.name: t.dtype for t in tensors}

    def draw(self, corner: bool, batch: int) -> Feed:
        """A random point, or a random corner."""
        feed = {}
        for name, shape in self._shapes.items():
            sizes = [size or batch for size in shape]
            share = self._rng.random(sizes)
            feed[name] = self._at(name, np.round(share) if corner else share)
        return feed

    def near(self, feed: Feed) -> Feed:
        """A point close by: some entries moved, a few to a side of the domain."""
        moved = {}
        for name, values in feed.items():
            low, high = self._boxes[name]
            step = (high - low) * self._rng.normal(0, 0.2, values.shape)
            there = values.astype(np.float64) + step * (self._rng.random(values.shape) < 0.5)
            ends = self._at(name, np.round(self._rng.random(values.shape)))
            there = np.where(self._rng.random(values.shape) < 0.1, ends, there)
            moved[name] = np.clip(there, low, high).astype(values.dtype)
        return moved

    def _at(self, name: str, share: Array) -> Array:
        low, high = self._boxes[name]
        values: Array = (low + share * (high - low)).astype(self._types[name])
        return values


def first_difference(
    old: ModelProto, new: ModelProto, inputs: Inputs, rng: np.random.Generator
) -> Difference | None:
    """The first output that differs by more than rounding, at points that climb for it."""
    before, after = session(old), session(new)
    names = [output.name for output in before.get_outputs()]
    if names != [output.name for output in after.get_outputs()]:
        return Difference("the names of the outputs", np.inf, 0.0, {})
    climb = _Climb(inputs)
    suspects: list[tuple[int, Feed]] = []
    for feed in climb.feeds():
        try:
            values = before.run(None, feed)
        except Exception:
            # Of such a batch the graph itself makes nothing.
            continue
        again = after.run(None, feed)
        unit = _unit(feed)
        gaps = [_gap(a, b, unit) for a, b in zip(values, again, strict=True)]
        index = int(np.argmax(gaps))
        climb.seen(gaps[index], feed)
        if gaps[index] > FREE_UNITS:
            suspects.append((index, feed))
    for index, feed in suspects[-3:]:
        found = _beyond_rounding(old, before, after, names[index], feed, rng)
        if found is not None:
            return found
    return None


class _Climb:
    """Random points, corners, and points close to the worst so far."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._worst = -1.0
        self._best: Feed | None = None

    def seen(self, gap: float, feed: Feed) -> None:
        """Takes in how far apart the models were at a point."""
        if gap >= self._worst:
            self._worst, self._best = gap, feed

    def feeds(self) -> Iterator[Feed]:
        """The points, one by one."""
        for number in range(POINTS):
            yield self._inputs.draw(corner=False, batch=1 + 2 * (number % 2))
            yield self._inputs.draw(corner=True, batch=1 + number % 3)
        for _ in range(STEPS):
            best = self._best
            if best is not None:
                for _ in range(POINTS):
                    yield self._inputs.near(best)


def _gap(a: Array, b: Array, unit: float) -> float:
    """How far apart two arrays are, in units of the last place of the largest value.

    Args:
        a, b: the arrays.
        unit: that of the coarsest input; where an operator has no kernel for a type, onnxruntime
            rounds to it or not, as the nodes around it are.
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if a.dtype.kind != "f":
        return 0.0 if np.array_equal(a, b) else float("inf")
    if not a.size:
        return 0.0
    x, y = a.astype(np.float64), b.astype(np.float64)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    if not (np.isfinite(x) == np.isfinite(y)).all():
        return float("inf")
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(x - y))
    if not np.isfinite(gap).all():
        return float("inf")
    scale = max(1.0, float(np.abs(x[np.isfinite(x)]).max(initial=0.0)))
    return float(gap.max()) / (max(unit, float(np.finfo(a.dtype).eps)) * scale)


def _unit(feed: Feed) -> float:
    """The unit in the last place of 1 in the coarsest type of the inputs."""
    kinds = [values.dtype for values in feed.values() if values.dtype.kind == "f"]
    return max((float(np.finfo(kind).eps) for kind in kinds), default=0.0)


def _beyond_rounding(
    old: ModelProto, before: Any, after: Any, output: str, feed: Feed, rng: np.random.Generator
) -> Difference | None:
    """The difference at a point, unless moving the old weights a little does as much."""
    values = before.run([output], feed)[0]
    unit = _unit(feed)
    found = _gap(values, after.run([output], feed)[0], unit)
    others = (session(_moved(old, rng)).run([output], feed)[0] for _ in range(MOVED))
    moves = [_gap(values, other, unit) for other in others]
    allowed = FREE_UNITS + SPARE * max(moves)
    return Difference(output, found, allowed, feed) if found > allowed else None


def _moved(model: ModelProto, rng: np.random.Generator) -> ModelProto:
    """The model with every stored number moved by units in the last place of the coarsest type."""
    moved = ModelProto()
    moved.CopyFrom(model)
    tensors = [t for t in moved.graph.initializer if t.data_type in _TYPES]
    halves = any(t.data_type == TensorProto.FLOAT16 for t in tensors) or any(
        attribute.i == TensorProto.FLOAT16
        for node in model.graph.node
        if node.op_type == "Cast"
        for attribute in node.attribute
    )
    singles = any(t.data_type == TensorProto.FLOAT for t in tensors)
    for tensor in tensors:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind != "f":
            continue
        kind = np.float16 if halves else np.float32 if singles else np.float64
        unit = max(float(np.finfo(kind).eps), float(np.finfo(array.dtype).eps))
        factor = 1.0 + MOVED_UNITS * unit * rng.uniform(-1, 1, array.shape)
        other = np.asarray(array * factor, array.dtype)
        tensor.CopyFrom(numpy_helper.from_array(other, tensor.name))
    return moved


_TYPES: dict[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.FLOAT16: np.dtype(np.float16),
}


# -- what is said beside --


def first_loss(old: ModelProto, new: ModelProto, chain_nodes: set[str]) -> str | None:
    """The first thing of a model that is not the same in the other and should be; None: nothing.

    Args:
        old, new: the models.
        chain_nodes: names of the nodes that may have changed (their outputs where they have none).
    """
    for name in ("ir_version", "producer_name", "producer_version", "domain", "model_version"):
        if getattr(old, name) != getattr(new, name):
            return name
    for name in ("opset_import", "functions"):
        if list(getattr(old, name)) != list(getattr(new, name)):
            return name
    theirs = {entry.key: entry.value for entry in new.metadata_props}
    if any(theirs.get(entry.key) != entry.value for entry in old.metadata_props):
        return "metadata_props"
    if old.doc_string != new.doc_string or old.graph.doc_string != new.graph.doc_string:
        return "doc_string"
    if old.graph.name != new.graph.name or list(old.graph.output) != list(new.graph.output):
        return "graph.output"
    if list(old.graph.input) != list(new.graph.input):
        return "graph.input"
    return _lost_node(old, new, chain_nodes) or _lost_tensor(old, new, chain_nodes)


def _label(node: NodeProto) -> str:
    return str(node.name or node.output[0])


def _lost_node(old: ModelProto, new: ModelProto, chain_nodes: set[str]) -> str | None:
    outside = _outside(old, chain_nodes)
    there = [n.SerializeToString(deterministic=True) for n in new.graph.node]
    position, is_sorted = 0, _is_sorted(old)
    for node in outside:
        try:
            found = there.index(node.SerializeToString(deterministic=True), position)
            # Nodes that were in no order get one.
            position = found + 1 if is_sorted else 0
        except ValueError:
            return f"node {_label(node)!r}"
    by_name = {(n.op_type, n.name): n for n in new.graph.node if n.name}
    for node in old.graph.node:
        after = by_name.get((node.op_type, node.name))
        if after is not None and node.name and after.doc_string != node.doc_string:
            return f"doc_string of node {node.name!r}"
    return None


def _outside(model: ModelProto, chain_nodes: set[str]) -> list[NodeProto]:
    """The nodes that have to stay: constants that a chain alone read are its own."""
    known = {tensor.name for tensor in model.graph.initializer}
    constant = set()
    for i, node in enumerate(model.graph.node):
        if known.issuperset(filter(None, node.input)):
            known.update(node.output)
            constant.add(i)
    read = {value.name for value in model.graph.output}
    kept = []
    for i in range(len(model.graph.node) - 1, -1, -1):
        node = model.graph.node[i]
        if _label(node) in chain_nodes or (i in constant and read.isdisjoint(node.output)):
            continue
        kept.append(node)
        read |= _reads(node)
    return kept[::-1]


def _reads(node: NodeProto) -> set[str]:
    """What a node reads, in its branches too."""
    found = set(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            found |= _reads(inner)
    return found


def _is_sorted(model: ModelProto) -> bool:
    made = {name for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if made.intersection(node.input):
            return False
        made.difference_update(node.output)
    return True


def _lost_tensor(old: ModelProto, new: ModelProto, chain_nodes: set[str]) -> str | None:
    stored = {tensor.name: tensor for tensor in new.graph.initializer}
    outside = {name for node in _outside(old, chain_nodes) for name in node.input if name}
    for tensor in old.graph.initializer:
        after = stored.get(tensor.name)
        if after is None:
            if tensor.name in outside:
                return f"initializer {tensor.name!r}"
        elif after.doc_string != tensor.doc_string:
            return f"doc_string of initializer {tensor.name!r}"
        elif tensor.name in outside and after != tensor:
            return f"initializer {tensor.name!r}"
    return None
