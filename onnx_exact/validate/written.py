"""A chain's nodes as they stand in a file, evaluated in float64.

Nothing of how chains are read is used: the nodes run in onnxruntime with every floating-point
constant, and the input, in float64. The constants are fed, so that there is no second copy of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from onnx_exact.errors import ValidationError
from onnx_exact.graph.index import DEFAULT_DOMAINS, Index
from onnx_exact.network.affine import Array
from onnx_exact.validate.float64 import SINCE, in_float64
from onnx_exact.validate.outside import walk_back
from onnx_exact.validate.sessions import Session, errors, one_line


class WrittenChain:
    """The nodes between two tensors of a model."""

    def __init__(self, model: ModelProto, read: str, made: str, original: Index) -> None:
        """Takes the nodes out of a model, which is not needed any more after that.

        Args:
            model: with external data loaded.
            read, made: the tensors that the chain reads and makes.
            original: what the chain was located in.

        Raises:
            ValidationError: the nodes read other tensors than `read` and constants, or cannot be
                evaluated.
        """
        index = Index(model)
        kept, ends = walk_back(model, [made], _Ends(index, original, read))
        self._constants: dict[str, NDArray[Any]] = {}
        for name in sorted(ends - {read}):
            constant = index.value(name)
            if constant is None:
                raise ValidationError(f"the rewritten chain of {made!r} reads the tensor {name!r}")
            values = constant.values
            if values.dtype.kind == "f":
                values = values.astype(np.float64, copy=False)
            self._constants[name] = values
        self._read = read if read in ends else None
        fed = [_value(name, array.dtype) for name, array in self._constants.items()]
        if self._read is not None:
            fed.append(_value(read, np.dtype(np.float64)))
        nodes = [part for i in kept for part in in_float64(index.nodes[i])]
        graph = helper.make_graph(nodes, "chain", fed, [_value(made, np.dtype(np.float64))])
        opsets = [helper.make_opsetid(o.domain, o.version) for o in model.opset_import]
        for opset in opsets:
            if opset.domain in DEFAULT_DOMAINS:
                opset.version = max(opset.version, SINCE)
        alone = helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)
        self._made = made
        name = f"the chain of {made!r} in float64"
        data = alone.SerializeToString()
        self._session = Session(data, ValidationError, name, optimized=False)

    def run(self, values: Array) -> Array:
        """What the nodes make of the chain's input, a tensor of the shape that it has there.

        Raises:
            ValidationError: they cannot be run on it.
        """
        feed = dict(self._constants)
        if self._read is not None:
            feed[self._read] = np.ascontiguousarray(values)
        try:
            return np.asarray(self._session.run(feed)[self._made], dtype=np.float64)
        except errors() as error:
            raise ValidationError(
                f"the rewritten chain of {self._made!r} fails in float64: {one_line(error)}"
            ) from error


class _Ends:
    """Where a chain's nodes end: at the tensor it reads, at stored tensors, and at constants.

    Constants are those of the original: where a layer has become a constant, what nodes that stay
    make of it is still theirs to compute.
    """

    def __init__(self, index: Index, original: Index, read: str) -> None:
        self._index, self._original, self._read = index, original, read

    def __contains__(self, name: object) -> bool:
        tensor = str(name)
        if tensor == self._read or tensor not in self._index.producer:
            return True
        node = self._index.nodes[self._index.producer[tensor]]
        return node.op_type == "Constant" or self._original.is_constant(tensor)


def _value(name: str, dtype: np.dtype[Any]) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    info = helper.make_tensor_value_info(name, kind, None)
    assert info.type.tensor_type.elem_type != TensorProto.UNDEFINED
    return info
