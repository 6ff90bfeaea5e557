"""An ONNX model as the checker reads it: hash, constants, shapes, who makes a tensor.

Every size that the file leaves open is tried at two large primes of its own (those of one name at
the same) and at 1: what holds of the shapes at all trials holds because of how they arise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.external_data_helper import load_external_data_for_model

from onnx_exact.domains import DOMAIN_KEY
from onnx_exact.errors import ModelError
from onnx_exact.verifier.refusals import require, require_known
from onnx_exact.verifier.shapes import TRIALS, Shape, infer, size_of

STANDARD = ("", "ai.onnx")
# The one operator of another domain of ONNX's own that is known: (x - offset) scale, in float32.
SCALER = ("ai.onnx.ml", "Scaler")
FLOATS: dict[int, Any] = {
    TensorProto.FLOAT16: np.float16,
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
}
# Operators of older sets broadcast by attributes, and their Dropout may train.
OLDEST_OPSET = 7
# From this IR version on an initializer that is an input too may be given another value.
OVERRIDABLE_SINCE_IR = 4
# Entries of a tensor that is written out, whatever a file says of its shape.
MOST_ENTRIES = 2**26
# Above this protobuf does not serialise.
MOST_SERIALISED = 2**31 - 2**20
# Their output has the shape of their first input, whatever others of one entry they read.
# fmt: off
SHAPED_LIKE = (
    "Abs", "Add", "Cast", "Clip", "Div", "Dropout", "Elu", "Erf", "Exp", "HardSigmoid",
    "HardSwish", "Identity", "LeakyRelu", "Max", "Min", "Mul", "Neg", "Relu", "Selu",
    "Scaler", "Sigmoid", "Sin", "Cos", "Softplus", "Sqrt", "Sub", "Sum", "Tanh",
)
# fmt: on
_NUMBERS = ("value", "value_float", "value_floats", "value_int", "value_ints")


@dataclass(frozen=True)
class Input:
    """An input of the graph that no initializer gives a value; None for sizes not known."""

    name: str
    shape: tuple[int | None, ...] | None
    elem_type: int

    @property
    def is_float(self) -> bool:
        """Whether it has a domain."""
        return self.elem_type in FLOATS


class Model:
    """A model that was loaded and checked.

    Args:
        source: a file, or a model, which is not changed.
        role: what it is called where it has no path.

    Attributes:
        source: as given.
        name: its path, or its role.
        proto: the model, nodes in an order in which they can be run.
        sha256: of the file, or of what `SerializeToString` gives.
        nbytes: their number.
        graph, nodes: of `proto`.
        producer: position of the node that makes a tensor.
        given: names that an initializer gives a value, sparse ones too.
        opset: the version of the standard operators; 0 where it is not plain.

    Raises:
        ModelError: it cannot be read, or is none.
    """

    def __init__(self, source: Path | ModelProto, role: str) -> None:
        self.source = source
        self.name = role if isinstance(source, ModelProto) else str(source)
        try:
            data = (
                source.SerializeToString()
                if isinstance(source, ModelProto)
                else source.read_bytes()
            )
            proto = ModelProto.FromString(data)
            if isinstance(source, Path):
                load_external_data_for_model(proto, str(source.parent))
            _sort(proto.graph)
            _check(proto)
            apart = any(t.data_location == TensorProto.EXTERNAL for t in _tensors(proto))
            require(not apart, "numbers in another file that are not read")
        except Exception as error:  # whatever a parser of hostile files may raise
            said = str(getattr(error, "strerror", None) or error) or type(error).__name__
            raise ModelError(
                f"{self.name} cannot be read as a model: {' '.join(said.split())[:200]}"
            ) from error
        self.proto, self.sha256 = proto, hashlib.sha256(data).hexdigest()
        self.nbytes = len(data)
        self.graph: GraphProto = proto.graph
        self.nodes: list[NodeProto] = list(proto.graph.node)
        self.producer = {
            name: i for i, node in enumerate(self.nodes) for name in node.output if name
        }
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        sparse = (tensor.values.name for tensor in self.graph.sparse_initializer)
        self.given = frozenset((*self.initializers, *sparse))
        versions = {o.version for o in proto.opset_import if o.domain in STANDARD}
        self.opset = versions.pop() if len(versions) == 1 else 0
        self._local = {f.name for f in proto.functions if f.domain in (*STANDARD, SCALER[0])}
        self._constants: dict[str, NDArray[np.generic]] = {}

    @cached_property
    def optional(self) -> frozenset[str]:
        """Inputs that may be fed and need not be."""
        if self.proto.ir_version < OVERRIDABLE_SINCE_IR:
            return frozenset()
        return self.given & {value.name for value in self.graph.input}

    @property
    def fed(self) -> list[onnx.ValueInfoProto]:
        """The inputs that a user has to feed, or may."""
        return [v for v in self.graph.input if v.name not in self.given - self.optional]

    @cached_property
    def inputs(self) -> tuple[Input, ...]:
        """What a user has to feed."""
        found = []
        for value in (v for v in self.graph.input if v.name not in self.given):
            tensor = value.type.tensor_type
            named = [size_of(dim) for dim in tensor.shape.dim]
            sizes = tuple(
                self.told.get((value.name, axis)) if size is None else size
                for axis, size in enumerate(named)
            )
            shape = sizes if tensor.HasField("shape") else None
            found.append(Input(value.name, shape, tensor.elem_type))
        return tuple(found)

    @cached_property
    def told(self) -> dict[tuple[str, int], int]:
        """Sizes of inputs, by name and axis, which the matrix that reads them has; others fail."""
        found = {}
        needed = self._needed()
        ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in self.graph.input}
        for node in self.nodes:
            reads = node.op_type in ("Gemm", "MatMul") and not needed.isdisjoint(node.output)
            if self.is_standard(node) and reads:
                source = self._of_its_shape(node.input[0])
                weight, rank = self._stored.get(node.input[1]), ranks.get(source, 0)
                if weight is not None and len(weight.dims) == 2 <= rank:
                    turned = {a.name for a in node.attribute if a.i}
                    found[source, 0 if "transA" in turned else rank - 1] = weight.dims[
                        "transB" in turned
                    ]
        return found

    def _needed(self) -> set[str]:
        """The tensors that are computed for their numbers: of others a runtime may know the sizes.

        What nobody reads is computed as well.
        """
        read = {name for node in self.nodes for name in names_read(node)}
        left = [value.name for value in self.graph.output] + sorted(self.producer.keys() - read)
        found: set[str] = set()
        while left:
            name = left.pop()
            if name not in found:
                found.add(name)
                node = self.nodes[self.producer[name]] if name in self.producer else NodeProto()
                left += [] if node.op_type in ("Shape", "Size") else names_read(node)
        return found

    def follows(self, value: onnx.ValueInfoProto) -> bool:
        """Whether what the file says of a tensor is what follows from the inputs."""
        tensor, kind = value.type.tensor_type, self.elem_type(value.name)
        shapes = self.shapes(value.name) if tensor.HasField("shape") else ()
        said = [size_of(dim) for dim in tensor.shape.dim]
        return tensor.elem_type in (kind, 0) and all(
            len(shape) == len(said)
            and all(a in (b, None) for a, b in zip(said, shape, strict=True))
            for shape in shapes
        )

    def _of_its_shape(self, tensor: str) -> str:
        """The first tensor in front of this one that has its shape for sure."""
        while tensor in self.producer:
            node = self.nodes[self.producer[tensor]]
            others = [self._stored.get(name) for name in node.input if name != node.input[0]]
            single = all(t is not None and list(t.dims) in ([], [1]) for t in others)
            if not (self.is_standard(node) and node.op_type in SHAPED_LIKE and single):
                break
            tensor = node.input[0]
        return tensor

    @property
    def domain_text(self) -> str | None:
        """The domain that the model's metadata names, as text."""
        texts = [p.value for p in self.proto.metadata_props if p.key == DOMAIN_KEY]
        require(len(texts) <= 1, f"the metadata of {self.name} name two domains")
        return texts[0] if texts else None

    def is_standard(self, node: NodeProto) -> bool:
        """Whether the operator is one of ONNX's own, of a set that is known here."""
        known = self.opset >= OLDEST_OPSET and node.op_type not in self._local
        return known and (node.domain in STANDARD or (node.domain, node.op_type) == SCALER)

    def shapes(self, tensor: str) -> tuple[Shape, ...]:
        """Its sizes at every trial.

        Raises:
            UncheckedError: they do not follow from those of the inputs.
        """
        known = self.known_shapes(tensor)
        require_known(len(known) >= TRIALS, f"the shape of {tensor!r} in {self.name}")
        return known

    def known_shapes(self, tensor: str) -> tuple[Shape, ...]:
        """Its sizes at those trials at which they are known."""
        return tuple(shapes[tensor] for shapes, _ in self._inferred if tensor in shapes)

    def elem_type(self, tensor: str) -> int:
        """The type of its entries, 0 where that is not known."""
        return self._inferred[0][1].get(tensor, 0)

    @cached_property
    def _inferred(self) -> tuple[tuple[dict[str, Shape], dict[str, int]], ...]:
        return tuple(infer(self, trial) for trial in range(TRIALS))

    def constant(self, tensor: str) -> NDArray[np.generic] | None:
        """The value of an initializer or of a Constant node, None for any other tensor."""
        stored = self._stored.get(tensor)
        if stored is not None and tensor not in self._constants:
            self._constants[tensor] = array_of(stored)
        return self._constants.get(tensor)

    @cached_property
    def _stored(self) -> dict[str, TensorProto]:
        """Initializers that nobody can override, Constant nodes, and Identity of them."""
        found = {k: t for k, t in self.initializers.items() if k not in self.optional}
        for node in self.nodes:
            if not self.is_standard(node):
                continue
            if node.op_type == "Identity" and node.input[0] in found:
                found[node.output[0]] = found[node.input[0]]
            alone = node.op_type == "Constant" and len(node.attribute) == 1
            attribute = node.attribute[0] if alone else None
            if attribute is None or attribute.name not in _NUMBERS or attribute.ref_attr_name:
                continue
            value = onnx.helper.get_attribute_value(attribute)
            if not isinstance(value, TensorProto):
                kind = np.float32 if "float" in attribute.name else np.int64
                value = numpy_helper.from_array(np.asarray(value, kind))
            found[node.output[0]] = value
        return found

    def numbers(self, tensor: str) -> NDArray[np.float64] | None:
        """A constant of floating-point numbers in float64, None for any other tensor."""
        value = self.constant(tensor)
        if value is None or value.dtype not in FLOATS.values():
            return None
        require(np.isfinite(value).all(), f"{self.name}: a weight in {tensor!r} is not finite")
        return value.astype(np.float64)


def _tensors(message: Any) -> Iterator[TensorProto]:
    """Every tensor that a message of a file has."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from [part] if isinstance(part, TensorProto) else _tensors(part)


def array_of(tensor: TensorProto) -> NDArray[np.generic]:
    """The numbers of a stored tensor."""
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except Exception as error:  # whatever a hostile tensor may lead to
        raise ModelError(f"the tensor {tensor.name!r} cannot be read") from error


def names_read(node: NodeProto) -> Iterator[str]:
    """Tensors that a node reads, in the bodies of its subgraphs too."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from names_read(inner)


def _sort(graph: GraphProto) -> None:
    """Puts the nodes in an order in which they can be run."""
    made = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    before = {
        i: {made[name] for name in names_read(node) if name in made}
        for i, node in enumerate(graph.node)
    }
    if any(max(reads, default=-1) >= i for i, reads in before.items()):
        nodes = [NodeProto.FromString(node.SerializeToString()) for node in graph.node]
        del graph.node[:]
        graph.node.extend(nodes[i] for i in TopologicalSorter(before).static_order())


def _check(proto: ModelProto) -> None:
    """Raises unless ONNX's own checker accepts the model, whatever shapes its outputs declare.

    It minds what no runtime minds: a graph without a name, and the long name of the usual domain.
    """
    require(proto.ByteSize() <= MOST_SERIALISED, "more than 2 GB in memory")
    checked = ModelProto()
    checked.CopyFrom(proto)
    checked.graph.name = checked.graph.name or "graph"
    for node in checked.graph.node:
        node.domain = "" if node.domain in STANDARD else node.domain
    for value in checked.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(checked)
