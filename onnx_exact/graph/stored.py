"""Whether what a model stores of its tensors fills their sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator

from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper

# Bits of the types that are packed as raw data, and which of them are in a typed field too, as
# many to an entry as fit into a byte.
_BITS = {
    **{"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2},
    **{"FLOAT6E2M3": 6, "FLOAT6E3M2": 6},
}
_PACKED = {name for name, bits in _BITS.items() if 8 % bits == 0}


def tensors_of(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor stored in a model: initializers and attributes, subgraphs and functions too."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            for attribute in node.attribute:
                yield from _attribute_tensors(attribute)


def misfit(model: ModelProto) -> str | None:
    """What is wrong with the first tensor whose data does not fill its sizes; None: all do."""
    for tensor in tensors_of(model):
        wrong = _misfit(tensor)
        if wrong is not None:
            return f"the tensor {tensor.name!r} {wrong}"
    return None


def repeated(model: ModelProto) -> str | None:
    """Which initializer of the main graph there is twice, in words; None: none."""
    seen: set[str] = set()
    for tensor in model.graph.initializer:
        if tensor.name in seen:
            return f"there is more than one initializer {tensor.name!r}"
        seen.add(tensor.name)
    return None


def _graph_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        for attribute in node.attribute:
            yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    # Asking a field that is not there for its parts would put it there.
    one = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
    for sparse in (*one, *attribute.sparse_tensors):
        yield sparse.values
        yield sparse.indices
    if attribute.HasField("g"):
        yield from _graph_tensors(attribute.g)
    for graph in attribute.graphs:
        yield from _graph_tensors(graph)


def _misfit(tensor: TensorProto) -> str | None:
    if any(size < 0 for size in tensor.dims):
        return f"has the size {min(tensor.dims)}"
    if tensor.data_type == TensorProto.UNDEFINED:
        # What an attribute holds where it holds no tensor.
        return None if tensor == TensorProto() or not tensor.name else "has no element type"
    if tensor.data_type not in TensorProto.DataType.values():
        return f"has the element type {tensor.data_type}, which ONNX does not know"
    count = math.prod(tensor.dims)
    if tensor.data_type == TensorProto.STRING:
        stored, wanted = len(tensor.string_data), count
    elif tensor.HasField("raw_data"):
        stored, wanted = len(tensor.raw_data), _bytes(tensor, count)
    else:
        packed = TensorProto.DataType.Name(tensor.data_type) in _PACKED
        stored, wanted = _entries(tensor), _bytes(tensor, count) if packed else count
    if stored == wanted:
        return None
    return (
        f"of the sizes {list(tensor.dims)} holds {'less' if stored < wanted else 'more'} than that"
    )


def _bytes(tensor: TensorProto, count: int) -> int:
    name = TensorProto.DataType.Name(tensor.data_type)
    if name in _BITS:
        return -(-count * _BITS[name] // 8)
    return count * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _entries(tensor: TensorProto) -> int:
    """Entries in the field that is for the tensor's type; a complex number takes two."""
    field = getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type))
    complex_number = tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128)
    return len(field) // 2 if complex_number else len(field)
