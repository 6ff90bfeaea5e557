"""Random whole graphs: what `benchmarks.fuzz` runs the tool on.

A graph grows node by node out of a few inputs. Dense layers come in all spellings, with units that
are dead, always on, proportional or unread; every other operator of `fuzz_operators` may stand in
front of them, between them, beside them and behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Array = NDArray[Any]
Shape = tuple[int | None, ...]

OPSETS = (11, 12, 13, 14, 15, 17, 18, 20, 21)
IR_VERSIONS = {11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 17: 8, 18: 8, 20: 9, 21: 10}
TYPES = (np.float32, np.float32, np.float32, np.float64, np.float16)
# Values of about this size are what every operator is made for.
REACH = 4.0


@dataclass(frozen=True)
class Tensor:
    """A tensor of a graph.

    Attributes:
        name: its name.
        shape: its sizes, None for the batch.
        dtype: its element type.
        exact: whether it is the same, bit for bit, in any two models that agree over the reals.
        reach: about the largest absolute value.
        mixed: whether its unknown size is another than the batch: rows have become features.
    """

    name: str
    shape: Shape
    dtype: np.dtype[Any]
    exact: bool = True
    reach: float = 1.0
    mixed: bool = False

    @property
    def is_float(self) -> bool:
        """Whether it holds floating-point numbers."""
        return self.dtype.kind == "f"

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def is_batched(self) -> bool:
        """Whether its first axis, and no other, is the batch."""
        if self.mixed or not self.shape:
            return False
        return self.shape[0] is None and None not in self.shape[1:]


@dataclass
class Graph:
    """A graph that grows."""

    rng: np.random.Generator
    opset: int
    dtype: np.dtype[Any]
    nodes: list[NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    inputs: list[ValueInfoProto] = field(default_factory=list)
    live: list[Tensor] = field(default_factory=list)
    read: set[str] = field(default_factory=set)
    operators: set[str] = field(default_factory=set)
    counter: int = 0

    def name(self, stem: str) -> str:
        """A new name."""
        self.counter += 1
        return f"{stem}_{self.counter}"

    def chance(self, share: float) -> bool:
        """True in that share of all cases."""
        return bool(self.rng.random() < share)

    def one_of(self, items: Sequence[Any]) -> Any:
        """One of them."""
        return items[int(self.rng.integers(len(items)))]

    def constant(self, values: Any, dtype: Any = None, stem: str = "w") -> str:
        """A stored tensor, in an initializer or a Constant node."""
        array = np.asarray(values, dtype=dtype)
        name = self.name(stem)
        tensor = numpy_helper.from_array(array, name)
        if self.chance(0.08):
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
            self.operators.add("Constant")
        else:
            self.initializers.append(tensor)
        return name

    def ints(self, *values: int) -> str:
        """A stored vector of integers."""
        return self.constant(np.array(values, np.int64), stem="i")

    def add(self, op: str, inputs: Sequence[str], count: int = 1, **attributes: Any) -> list[str]:
        """A node; the names of its outputs."""
        outputs = [self.name(op.lower()) for _ in range(count)]
        name = "" if self.chance(0.15) else self.name("node")
        node = helper.make_node(op, list(inputs), outputs, name=name, **attributes)
        self.nodes.append(node)
        self.read.update(inputs)
        self.operators.add(op)
        return outputs

    def make(self, op: str, inputs: Sequence[str], like: Tensor, **attributes: Any) -> Tensor:
        """A node with one output, which is a tensor like `like`."""
        return replace(like, name=self.add(op, inputs, **attributes)[0])

    def with_axes(self, op: str, x: str, axes: Sequence[int], since: int, **attributes: Any) -> str:
        """A node whose axes are an attribute up to some operator set and an input from then on."""
        if self.opset >= since:
            return self.add(op, [x, self.ints(*axes)], **attributes)[0]
        return self.add(op, [x], axes=list(axes), **attributes)[0]


# -- dense layers --


def weights(g: Graph, n_in: int, n_out: int, reach: float) -> tuple[Array, Array]:
    """A random layer: of its units some are dead, some always on, some copies or idle."""
    rng = g.rng
    w = rng.normal(0.0, n_in**-0.5, (n_out, n_in))
    if g.chance(0.3):
        w *= rng.random(w.shape) < 0.5
    b = rng.normal(0.0, 0.2, n_out)
    for i in range(n_out):
        most = 1.05 * reach * np.abs(w[i]).sum() + 0.1
        kind = rng.random()
        if kind < 0.25:
            b[i] = -most
        elif kind < 0.45:
            b[i] = most
        elif kind < 0.52 and i:
            factor = float(2.0 ** rng.integers(-2, 3))
            w[i], b[i] = factor * w[i - 1], factor * b[i - 1]
        elif kind < 0.56 and i:
            w[i], b[i] = -w[i - 1], -b[i - 1]
        elif kind < 0.6:
            w[i] = 0.0
    if g.chance(0.3):
        w[:, rng.random(n_in) < 0.2] = 0.0
    return w, b


def dense(g: Graph, x: Tensor, n_out: int, shared: list[tuple[str, str, int, int]]) -> Tensor:
    """One affine map along the last axis, in one of its spellings."""
    n_in = x.shape[-1]
    assert n_in is not None
    w, b = weights(g, n_in, n_out, x.reach)
    after = replace(x, shape=(*x.shape[:-1], n_out), exact=False, reach=min(REACH, 2 * x.reach))
    spelling = g.rng.random()
    if x.rank == 2 and spelling < 0.55:
        return _gemm(g, x, after, w, b, shared)
    if x.rank == 2 and x.is_batched and spelling < 0.65:
        return _from_the_left(g, x, after, w, b)
    matrix = w.T
    if x.rank > 2 and g.chance(0.2):
        matrix = matrix[None]
    product = g.make("MatMul", [x.name, g.constant(matrix, x.dtype)], after)
    if g.chance(0.15):
        return product
    bias = b[(None,) * int(g.rng.integers(0, x.rank))]
    pair = [product.name, g.constant(bias, x.dtype, "b")]
    op = "Sub" if g.chance(0.1) else "Add"
    return g.make(op, pair[:: g.one_of((1, -1))] if op == "Add" else pair, after)


def _gemm(
    g: Graph,
    x: Tensor,
    after: Tensor,
    w: Array,
    b: Array,
    shared: list[tuple[str, str, int, int]],
) -> Tensor:
    same = [s for s in shared if s[2:] == w.shape[::-1]]
    if same and g.chance(0.5):
        name, bias, _, _ = g.one_of(same)
        return g.make("Gemm", [x.name, name, bias], after, transB=1)
    attributes: dict[str, Any] = {}
    if g.chance(0.2):
        attributes["alpha"] = float(g.one_of((0.5, 1.0, -1.0, 0.3)))
    if g.chance(0.2):
        attributes["beta"] = float(g.one_of((0.0, 0.5, 1.0, 2.0)))
    transposed = g.chance(0.6)
    name = g.constant(w if transposed else w.T, x.dtype)
    if transposed:
        attributes["transB"] = 1
    inputs = [x.name, name]
    if g.chance(0.85):
        inputs.append(g.constant(b[None] if g.chance(0.2) else b, x.dtype, "b"))
        if set(attributes) == {"transB"}:
            shared.append((name, inputs[2], w.shape[1], w.shape[0]))
    return g.make("Gemm", inputs, after, **attributes)


def _from_the_left(g: Graph, x: Tensor, after: Tensor, w: Array, b: Array) -> Tensor:
    """W x in columns, and back."""
    turned = g.make("Transpose", [x.name], x, perm=[1, 0])
    product = g.make("MatMul", [g.constant(w, x.dtype), turned.name], after)
    added = g.make("Add", [product.name, g.constant(b[:, None], x.dtype, "b")], after)
    kept = g.make("Relu", [added.name], after) if g.chance(0.4) else added
    return g.make("Transpose", [kept.name], after, perm=[1, 0])


def columns(g: Graph, x: Tensor) -> Tensor | None:
    """One or two affine maps along the last axis but one."""
    if not x.is_float or x.rank < 2 or x.shape[-2] is None:
        return None
    for _ in range(int(g.rng.integers(1, 3))):
        n_out = int(g.rng.integers(1, 6))
        w, b = weights(g, x.shape[-2] or 1, n_out, x.reach)
        shape = (*x.shape[:-2], n_out, x.shape[-1])
        x = replace(x, shape=shape, exact=False, reach=min(REACH, 2 * x.reach))
        x = g.make("MatMul", [g.constant(w, x.dtype), x.name], x)
        if g.chance(0.7):
            x = g.make("Add", [x.name, g.constant(b[:, None], x.dtype, "b")], x)
        if g.chance(0.8):
            x = g.make("Relu", [x.name], x)
    return x


def between(g: Graph, x: Tensor) -> Tensor:
    """What may stand between an affine map and its ReLU, or behind it, without ending a chain."""
    kind = g.rng.random()
    width = x.shape[-1]
    if kind < 0.08:
        return g.make("Dropout", [x.name], x)
    if kind < 0.16:
        return g.make("Identity", [x.name], x)
    if kind < 0.24 and width is not None:
        scale = g.rng.choice([0.5, 1.0, 2.0, -1.0], width)
        return g.make(g.one_of(("Mul", "Div")), [x.name, g.constant(scale, x.dtype)], x)
    if kind < 0.32 and width is not None and x.rank == 2:
        numbers = [g.rng.uniform(0.5, 1.5, width), g.rng.normal(0, 0.2, width)]
        numbers += [g.rng.normal(0, 0.2, width), g.rng.uniform(0.5, 1.5, width)]
        names = [g.constant(v, x.dtype, "bn") for v in numbers]
        return g.make("BatchNormalization", [x.name, *names], x)
    if kind < 0.38 and x.rank == 2 and x.shape[0] is None:
        longer = g.with_axes("Unsqueeze", x.name, [1], 13)
        return replace(x, name=g.with_axes("Squeeze", longer, [1], 13))
    return x


def network(g: Graph, x: Tensor, shared: list[tuple[str, str, int, int]]) -> Tensor:
    """A few layers one behind the other."""
    if x.rank > 2 and x.is_batched and g.chance(0.5):
        size = int(np.prod([s for s in x.shape[1:] if s is not None]))
        x = replace(x, name=g.add("Flatten", [x.name])[0], shape=(None, size))
    for _ in range(int(g.rng.integers(1, 4))):
        x = between(g, dense(g, x, int(g.rng.integers(1, 9)), shared))
        if g.chance(0.85):
            x = between(g, replace(g.make("Relu", [x.name], x)))
    if g.chance(0.6):
        x = dense(g, x, int(g.rng.integers(1, 5)), shared)
    return x


# -- whole graphs --

Operator = Callable[[Graph, Tensor], Tensor | None]


def random_graph(seed: int, operators: Sequence[Operator]) -> tuple[ModelProto, Graph]:
    """A model, and the graph it was made of, whose first live tensors are the inputs."""
    rng = np.random.default_rng(seed)
    opset = OPSETS[int(rng.integers(len(OPSETS)))]
    g = Graph(rng, opset, np.dtype(TYPES[int(rng.integers(len(TYPES)))]))
    for _ in range(1 if g.chance(0.7) else 2):
        _input(g)
    shared: list[tuple[str, str, int, int]] = []
    for _ in range(int(rng.integers(2, 9))):
        _step(g, operators, shared)
    if not {"Gemm", "MatMul"} & g.operators:
        _step(g, operators, shared, dense_only=True)
    return _finished(g), g


def _input(g: Graph) -> None:
    batch = g.one_of((None, None, None, 1, 2, 3))
    sizes = g.one_of(
        ((4,), (6,), (1,), (9,), (2, 4), (3, 5), (1, 6), (1, 4, 4), (2, 5, 3), (3, 4, 6))
    )
    name = g.name("x")
    shape: Shape = (batch, *sizes)
    declared = ["N" if size is None else size for size in shape]
    kind = helper.np_dtype_to_tensor_dtype(g.dtype)
    g.inputs.append(helper.make_tensor_value_info(name, kind, declared))
    g.live.append(Tensor(name, shape, g.dtype))


def _step(
    g: Graph,
    operators: Sequence[Operator],
    shared: list[tuple[str, str, int, int]],
    dense_only: bool = False,
) -> None:
    recent = g.live[-3:] if g.chance(0.7) else g.live
    x = g.one_of(recent)
    usable = (
        x.is_float
        and x.rank >= 2
        and not x.mixed
        and None not in x.shape[1:]
        and (x.shape[-1] or 0) > 0
    )
    if dense_only and not usable:
        x, usable = g.live[0], True
    found: Tensor | None = None
    if usable and (dense_only or g.chance(0.4)):
        found = network(g, x, shared)
    elif x.rank >= 2 and x.shape[-2] is not None and g.chance(0.15):
        found = columns(g, x)
    else:
        for _ in range(6):
            operator = operators[int(g.rng.integers(len(operators)))]
            found = operator(g, x)
            if found is not None:
                break
    if found is not None:
        g.live.append(replace(found, reach=min(found.reach, REACH)))


def _finished(g: Graph) -> ModelProto:
    """The model: every tensor that nobody reads is an output, and some others are."""
    outputs = [t for t in g.live[len(g.inputs) :] if t.name not in g.read or g.chance(0.1)]
    values = []
    for t in outputs:
        kind = helper.np_dtype_to_tensor_dtype(t.dtype)
        value = helper.make_tensor_value_info(t.name, kind, None)
        value.type.tensor_type.ClearField("shape")
        for axis, size in enumerate(t.shape):
            dim = value.type.tensor_type.shape.dim.add()
            if size is None:
                dim.dim_param = f"{t.name}_{axis}" if axis or t.mixed else "N"
            else:
                dim.dim_value = size
        value.type.tensor_type.shape.SetInParent()
        values.append(value)
    graph = helper.make_graph(g.nodes, "fuzzed", g.inputs, values, g.initializers)
    opsets = [helper.make_opsetid("", g.opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSIONS[g.opset])
    _decorate(g, model)
    return model


def _decorate(g: Graph, model: ModelProto) -> None:
    """What has to be kept: words, metadata, declared types, an order of the nodes."""
    model.doc_string, model.producer_name, model.model_version = "a fuzzed model", "fuzz", 7
    model.metadata_props.add(key="author", value="fuzz")
    for item in (*model.graph.node, *model.graph.initializer, *model.graph.input):
        if g.chance(0.3):
            item.doc_string = f"of {item.name}"
    if model.ir_version >= 10:
        for node in model.graph.node:
            if g.chance(0.2):
                node.metadata_props.add(key="k", value="v")
    if g.chance(0.3):
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        model.graph.value_info.extend(inferred.graph.value_info)
    for tensor in model.graph.initializer:
        if g.chance(0.03):
            annotation = model.graph.quantization_annotation.add(tensor_name=tensor.name)
            entry = annotation.quant_parameter_tensor_names.add()
            entry.key, entry.value = "SCALE_TENSOR", tensor.name
    _make_odd(g, model)


def _make_odd(g: Graph, model: ModelProto) -> None:
    """What onnxruntime runs and a strict reader might not."""
    graph = model.graph
    if g.chance(0.05):
        order = g.rng.permutation(len(graph.node))
        nodes = [graph.node[int(i)] for i in order]
        graph.ClearField("node")
        graph.node.extend(nodes)
    if g.chance(0.05):
        graph.output[0].type.tensor_type.ClearField("shape")
    elif g.chance(0.05):
        graph.output[0].type.tensor_type.shape.dim.add(dim_value=3)
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if g.chance(0.08):
            dims[len(dims) - 1].Clear()
        if not dims[0].HasField("dim_value") and g.chance(0.08):
            dims[0].dim_value = -1
