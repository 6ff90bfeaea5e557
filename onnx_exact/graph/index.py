"""What a graph knows of its tensors: who makes and reads them, constants, shapes, element types."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from onnx_exact.graph.constants import FOLDED, OF_SHAPE, Value, sizes
from onnx_exact.graph.inference import inferred_types
from onnx_exact.graph.layout import Dim, Shape, static
from onnx_exact.network import Box
from onnx_exact.network.affine import Array

DEFAULT_DOMAINS = ("", "ai.onnx")
# From this IR version on a user may override an initializer that is also a graph input.
OVERRIDABLE_SINCE_IR = 4
FLOATS: dict[int, np.dtype[np.floating]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.FLOAT16: np.dtype(np.float16),
}
INTEGERS = (
    TensorProto.INT64,
    TensorProto.INT32,
    TensorProto.INT16,
    TensorProto.INT8,
    TensorProto.UINT16,
    TensorProto.UINT8,
    TensorProto.BOOL,
)
# Operators that read sizes, after the tensor that they act on.
TAKES_SIZES = {"ConstantOfShape", "Expand", "Reshape", "Slice", "Tile"}
# So many entries at most, and so many rounds until sizes no longer tell others.
MOST_SIZES, MOST_INFERENCES = 64, 6
_SUPPORTED = {np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)) for kind in (*FLOATS, *INTEGERS)}


def attributes(node: NodeProto) -> dict[str, AttributeProto]:
    """The attributes of a node by name."""
    return {attribute.name: attribute for attribute in node.attribute}


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs in the attributes of a node."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def names_in(graph: GraphProto) -> Iterator[str]:
    """Every tensor name a subgraph mentions; those of the outer scope are among them."""
    for node in graph.node:
        yield from node.input
        yield from node.output
        for inner in subgraphs(node):
            yield from names_in(inner)
    yield from (value.name for value in (*graph.input, *graph.output))
    yield from (tensor.name for tensor in graph.initializer)
    yield from (tensor.values.name for tensor in graph.sparse_initializer)


def outer_reads(graph: GraphProto) -> set[str]:
    """The tensors of the outer scope that a subgraph reads."""
    own = {value.name for value in graph.input} | {t.name for t in graph.initializer}
    own |= {t.values.name for t in graph.sparse_initializer}
    reads: set[str] = {value.name for value in graph.output}
    for node in graph.node:
        reads.update(node.input)
        for inner in subgraphs(node):
            reads |= outer_reads(inner)
        own.update(node.output)
    return reads - own - {""}


class Index:
    """Look-ups in the main graph of a model, which must not change while the index is in use.

    Args:
        model: the model.
        bounds: of its tensors, over the domain of interest, with the rank of the tensor and size 1
            along unknown axes; None where nothing is known of any.
        checked: whether only those spellings count that the checker of certificates reads.
    """

    def __init__(
        self,
        model: ModelProto,
        bounds: Callable[[str], Box] | None = None,
        *,
        checked: bool = False,
    ) -> None:
        self.model = model
        self.bounds = bounds
        self.checked = checked
        self.graph = model.graph
        self.nodes = list(model.graph.node)
        self.producer = {t: i for i, node in enumerate(self.nodes) for t in node.output if t}
        self.readers: dict[str, list[int]] = {}
        # Read by someone who cannot be part of a chain: the graph's outputs and subgraphs.
        self.pinned = {value.name for value in self.graph.output}
        for i, node in enumerate(self.nodes):
            for tensor in node.input:
                if tensor:
                    self.readers.setdefault(tensor, []).append(i)
            for inner in subgraphs(node):
                self.pinned |= outer_reads(inner)
        self._initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        self._inputs = {value.name for value in self.graph.input}
        self._local = {(f.domain, f.name) for f in model.functions}
        self._values: dict[str, Value | None] = {}
        self._inferred: dict[str, ValueInfoProto] | None = None

    @cached_property
    def opset(self) -> int:
        """The version of the default operator set, 0 where the model does not import it."""
        versions = (o.version for o in self.model.opset_import if o.domain in DEFAULT_DOMAINS)
        return max(versions, default=0)

    def is_standard(self, node: NodeProto) -> bool:
        """Whether the node's operator is ONNX's own, not a custom or model-local one."""
        if node.domain not in DEFAULT_DOMAINS:
            return False
        return not any((domain, node.op_type) in self._local for domain in DEFAULT_DOMAINS)

    def operator(self, node: NodeProto) -> str:
        """The name of a node's operator, with its domain in front where that is not the default.

        Empty for a function of the model's own.
        """
        if self.is_standard(node):
            return str(node.op_type)
        if node.domain in DEFAULT_DOMAINS or (node.domain, node.op_type) in self._local:
            return ""
        return f"{node.domain}.{node.op_type}"

    def sole_reader(self, tensor: str) -> int | None:
        """The one node that reads the tensor, once; None where anyone else does too."""
        readers = self.readers.get(tensor, [])
        return readers[0] if len(readers) == 1 and tensor not in self.pinned else None

    def unread(self, tensor: str) -> bool:
        """Whether nobody reads the tensor."""
        return tensor not in self.readers and tensor not in self.pinned

    # -- constants --

    def value(self, tensor: str) -> Value | None:
        """A constant and what it is off by; None for anything that is none.

        An initializer counts unless a user may override it; so does a Constant node, and what nodes
        make of constants alone. Sparse tensors are left alone.
        """
        if tensor not in self._values:
            for position in self._folded_behind(tensor):
                self._fold(position)
            if tensor not in self._values:
                self._values[tensor] = self._stored(tensor)
        return self._values[tensor]

    def is_constant(self, tensor: str) -> bool:
        """Whether the value of a tensor is known."""
        return self.value(tensor) is not None

    def is_computed(self, tensor: str) -> bool:
        """Whether a tensor is a constant that nodes make of others, but for Identity."""
        position = self.producer.get(tensor)
        if position not in self._folded:
            return False
        assert position is not None
        node = self.nodes[position]
        return node.op_type != "Identity" or self.is_computed(node.input[0])

    def is_overridable(self, tensor: str) -> bool:
        """Whether a tensor is an initializer that a user may give another value."""
        overridable = self.model.ir_version >= OVERRIDABLE_SINCE_IR and tensor in self._inputs
        return overridable and tensor in self._initializers

    def array(self, tensor: str) -> NDArray[np.generic] | None:
        """The value of a constant in its own type, where it is exact; None for anything else.

        Types other than those of `FLOATS` and `INTEGERS` are left alone.
        """
        value = self.value(tensor)
        if value is None or value.error is not None or value.values.dtype not in _SUPPORTED:
            return None
        return value.values

    @cached_property
    def _folded(self) -> set[int]:
        """The nodes that give constants, but for Constant nodes."""
        stored = {name for name in self._initializers if not self.is_overridable(name)}
        found: set[int] = set()
        for position, node in enumerate(self.nodes):
            if not self.is_standard(node):
                continue
            given = [name for name in node.input if name]
            plain = not any(a.ref_attr_name for a in node.attribute)
            if node.op_type == "Constant":
                stored.update(node.output)
            elif node.op_type in OF_SHAPE and plain:
                stored.update(node.output)
                found.add(position)
            elif node.op_type in FOLDED and plain and given and stored.issuperset(given):
                stored.update(filter(None, node.output))
                found.add(position)
        return found

    def _folded_behind(self, tensor: str) -> list[int]:
        """The nodes to fold before a tensor is known, in the order of the graph."""
        wanted: set[int] = set()
        open_ends = [tensor]
        while open_ends:
            name = open_ends.pop()
            position = self.producer.get(name)
            if name in self._values or position not in self._folded or position in wanted:
                continue
            assert position is not None
            wanted.add(position)
            if self.nodes[position].op_type not in OF_SHAPE:
                open_ends += self.nodes[position].input
        return sorted(wanted)

    def _fold(self, position: int) -> None:
        node = self.nodes[position]
        found: list[Value | None] = [None] * len(node.output)
        if node.op_type in OF_SHAPE:
            found = [sizes(self, node)]
        else:
            # Folding knows the intervals of operators, which know the graph.
            from onnx_exact.graph.fold import fold

            given = [self.value(name) if name else None for name in node.input]
            if all(v is not None for v, name in zip(given, node.input, strict=True) if name):
                found = fold(self, node, given)
        self._values |= {k: v for k, v in zip(node.output, found, strict=True) if k}

    def _stored(self, tensor: str) -> Value | None:
        values = None
        if tensor in self._initializers:
            if not self.is_overridable(tensor):
                values = _to_array(self._initializers[tensor])
        elif tensor in self.producer:
            node = self.nodes[self.producer[tensor]]
            if node.op_type == "Constant" and self.is_standard(node):
                values = _constant_value(node)
        return None if values is None else Value(values)

    def as_stored(self, tensor: str) -> NDArray[np.generic] | None:
        """The value of a constant of a supported floating-point type, in that type."""
        values = self.array(tensor)
        return values if values is not None and values.dtype in FLOATS.values() else None

    def floats(self, tensor: str) -> Array | None:
        """The value of a constant of a supported floating-point type, in float64."""
        values = self.as_stored(tensor)
        if values is None:
            return None
        exact = values.astype(np.float64)
        # What is read-only need not be copied by those who keep it.
        exact.flags.writeable = False
        return exact

    def integers(self, tensor: str) -> list[int] | None:
        """The entries of an integer or boolean constant."""
        values = self.array(tensor)
        if values is None or values.dtype.kind not in "ib":
            return None
        return [int(v) for v in values.reshape(-1)]

    # -- shapes and types --

    @property
    def _types(self) -> dict[str, ValueInfoProto]:
        """Types of all tensors: inference, told what it does not compute itself, until it helps."""
        if self._inferred is None:
            self._inferred = inferred_types(self.model, {}, {})
            told: object = ({}, {})
            for _ in range(MOST_INFERENCES):
                constants, shapes = self._computed_sizes()
                if (summary := ({k: v.tolist() for k, v in constants.items()}, shapes)) == told:
                    break
                told, self._inferred = summary, inferred_types(self.model, constants, shapes)
                # What was no constant may be one now.
                self._values.clear()
        return self._inferred

    def _computed_sizes(self) -> tuple[dict[str, NDArray[np.generic]], dict[str, Shape]]:
        """Integers that nodes compute of sizes, and shapes that a Reshape to others gives."""
        # Targets of a Reshape are read by the operators, which know the graph.
        from onnx_exact.graph.ops.regroup import reshaped

        constants: dict[str, NDArray[np.generic]] = {}
        shapes: dict[str, Shape] = {}
        for node in self.nodes:
            if node.op_type not in TAKES_SIZES or not self.is_standard(node):
                continue
            for name in node.input[1:] if node.op_type != "ConstantOfShape" else node.input:
                value = self.array(name) if self.producer.get(name) in self._folded else None
                if value is not None and value.size <= MOST_SIZES and value.dtype == np.int64:
                    constants[name] = value
            before, after = self.shape(node.input[0]), self.shape(node.output[0])
            if node.op_type == "Reshape" and before is not None:
                found = reshaped(self, node, before)
                if found is not None and (after is None or not all(dim.static for dim in after)):
                    shapes[node.output[0]] = found
        return constants, shapes

    def declaration(self, tensor: str) -> ValueInfoProto | None:
        """The type of a tensor as it would be declared, None where it is not known."""
        return self._types.get(tensor)

    def elem_type(self, tensor: str) -> int:
        """The ONNX element type of a tensor, 0 where it is not known."""
        if tensor in self._initializers:
            kind: int = self._initializers[tensor].data_type
            return kind
        info = self._types.get(tensor)
        return info.type.tensor_type.elem_type if info is not None else 0

    def shape(self, tensor: str) -> Shape | None:
        """The shape of a tensor, with a symbol of its own for every unknown size; None: unknown."""
        if tensor in self._initializers:
            return static(self._initializers[tensor].dims)
        info = self._types.get(tensor)
        if info is None or not info.type.tensor_type.HasField("shape"):
            return None
        dims = info.type.tensor_type.shape.dim
        return tuple(_dim(d, tensor, axis) for axis, d in enumerate(dims))


def _dim(dim: onnx.TensorShapeProto.Dimension, tensor: str, axis: int) -> Dim:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return Dim(dim.dim_value)
    # A symbol that inference invented is unique, one that the model declares is meant to be equal.
    return Dim(1, (dim.dim_param or f"?{tensor}:{axis}",))


def _to_array(tensor: TensorProto) -> NDArray[np.generic] | None:
    if tensor.data_type in (TensorProto.STRING, TensorProto.UNDEFINED):
        return None
    return onnx.numpy_helper.to_array(tensor)


def _constant_value(node: NodeProto) -> NDArray[np.generic] | None:
    for name, attribute in attributes(node).items():
        if attribute.ref_attr_name:
            return None
        match name:
            case "value":
                return _to_array(attribute.t)
            case "value_float":
                return np.asarray(attribute.f, dtype=np.float32)
            case "value_floats":
                return np.asarray(attribute.floats, dtype=np.float32)
            case "value_int":
                return np.asarray(attribute.i, dtype=np.int64)
            case "value_ints":
                return np.asarray(attribute.ints, dtype=np.int64)
    return None
