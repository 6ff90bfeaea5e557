"""An ONNX model as the checker reads it: hash, constants, shapes, who makes and reads a tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper, shape_inference
from onnx.external_data_helper import load_external_data_for_model

from onnx_exact.domains import DOMAIN_KEY
from onnx_exact.errors import NotVerifiedError

STANDARD = ("", "ai.onnx")
FLOATS = (TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE)
# Operators of older sets broadcast by attributes, and their Dropout may train.
OLDEST_OPSET = 7
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

    Attributes:
        path, sha256: of the file.
        graph: the graph.
        nodes: its nodes.
        producer: position of the node that makes a tensor.
        metadata: of the model.
    """

    def __init__(self, path: Path) -> None:
        try:
            data = path.read_bytes()
            proto = ModelProto.FromString(data)
            onnx.checker.check_model(str(path))
            load_external_data_for_model(proto, str(path.parent))
        except Exception as error:  # whatever a parser of hostile files may raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise NotVerifiedError(f"{path} is no model that can be read: {reason}") from error
        if any(function.domain in STANDARD for function in proto.functions):
            raise NotVerifiedError(f"cannot check: {path} redefines an operator of ONNX")
        self.path, self.proto = path, proto
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.graph: GraphProto = proto.graph
        self.nodes: list[NodeProto] = list(proto.graph.node)
        self.producer = {
            name: i for i, node in enumerate(self.nodes) for name in node.output if name
        }
        self.metadata = {entry.key: entry.value for entry in proto.metadata_props}
        versions = {o.domain: o.version for o in proto.opset_import}
        self.opset = versions.get("", versions.get("ai.onnx", 0))
        self._constants: dict[str, NDArray[np.generic]] = {}

    @cached_property
    def initializers(self) -> dict[str, TensorProto]:
        """Stored tensors by name."""
        return {tensor.name: tensor for tensor in self.graph.initializer}

    @cached_property
    def inputs(self) -> tuple[Input, ...]:
        """What a user has to feed."""
        given = set(self.initializers) | {s.values.name for s in self.graph.sparse_initializer}
        found = []
        for value in self.graph.input:
            if value.name not in given:
                tensor = value.type.tensor_type
                dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
                shape = tuple(dims) if tensor.HasField("shape") else None
                found.append(Input(value.name, shape, tensor.elem_type))
        return tuple(found)

    @property
    def domain_text(self) -> str | None:
        """The domain that the model's metadata names, as text."""
        return self.metadata.get(DOMAIN_KEY)

    def shape(self, tensor: str, size: int = 1) -> tuple[int, ...] | None:
        """Sizes of a tensor where every symbolic size is `size`; None where that is not known."""
        return self._shapes[size].get(tensor)

    @cached_property
    def _shapes(self) -> dict[int, dict[str, tuple[int, ...]]]:
        return {size: self._inferred(size) for size in (1, 2)}

    def _inferred(self, size: int) -> dict[str, tuple[int, ...]]:
        """Shapes as they follow from those of the inputs, whatever the file says of the others."""
        fixed = ModelProto()
        fixed.CopyFrom(self.proto)
        del fixed.graph.value_info[:]
        for value in fixed.graph.input:
            for dim in value.type.tensor_type.shape.dim:
                if not dim.HasField("dim_value"):
                    dim.dim_value = size
        for value in fixed.graph.output:
            value.type.tensor_type.ClearField("shape")
        try:
            inferred = shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True).graph
        except (shape_inference.InferenceError, RuntimeError, ValueError):
            return {}
        shapes = {
            value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
            for value in (*inferred.input, *inferred.value_info, *inferred.output)
            if value.type.tensor_type.HasField("shape")
            and all(d.HasField("dim_value") for d in value.type.tensor_type.shape.dim)
        }
        return shapes | {t.name: tuple(t.dims) for t in self.graph.initializer}

    def constant(self, tensor: str) -> NDArray[np.generic] | None:
        """The value of an initializer or of a Constant node, None for any other tensor."""
        if tensor in self._constants:
            return self._constants[tensor]
        proto = self.initializers.get(tensor)
        position = self.producer.get(tensor)
        if proto is not None:
            self._constants[tensor] = array_of(proto)
        elif position is not None and is_standard(node := self.nodes[position]):
            if node.op_type == "Constant" and node.attribute[0].name in _NUMBERS:
                value = onnx.helper.get_attribute_value(node.attribute[0])
                is_tensor = isinstance(value, TensorProto)
                kind = None if is_tensor or isinstance(value, int | list) else np.float32
                array = array_of(value) if is_tensor else np.asarray(value, kind)
                if node.attribute[0].name == "value_floats":
                    array = array.astype(np.float32)
                self._constants[tensor] = array
            elif node.op_type == "Identity":
                inner = self.constant(node.input[0])
                if inner is not None:
                    self._constants[tensor] = inner
        return self._constants.get(tensor)

    def numbers(self, tensor: str) -> NDArray[np.float64] | None:
        """A constant of floating-point numbers in float64, None for any other tensor."""
        value = self.constant(tensor)
        if value is None or value.dtype.kind != "f":
            return None
        found = value.astype(np.float64)
        if not np.isfinite(found).all():
            raise NotVerifiedError(f"{self.path}: a weight in {tensor!r} is not finite")
        return found


def array_of(tensor: TensorProto) -> NDArray[np.generic]:
    """The numbers of a stored tensor."""
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:  # whatever a hostile tensor may lead to
        raise NotVerifiedError(f"the tensor {tensor.name!r} cannot be read") from error


def is_standard(node: NodeProto) -> bool:
    """Whether the operator is one of ONNX's own."""
    return node.domain in STANDARD


def names_read(node: NodeProto) -> Iterator[str]:
    """Tensors that a node reads, in the bodies of its subgraphs too."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from names_read(inner)
