"""Types and shapes of all tensors of a graph, by the inference of onnx."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from onnx_exact.graph.layout import Shape
from onnx_exact.graph.sizes import declared_inputs, forget_odd

# Larger initializers cannot be shapes or axes: shape inference does without their values.
SHAPE_INFERENCE_BYTES = 1024


def inferred_types(
    model: ModelProto, constants: Mapping[str, NDArray[Any]], shapes: Mapping[str, Shape]
) -> dict[str, ValueInfoProto]:
    """Types of all tensors of the main graph.

    Args:
        model: the model.
        constants: tensors whose value is known, such as targets of a Reshape.
        shapes: of tensors, where more is known of them than inference finds.

    Declared types but those of inputs may be stale or wrong: they count only where inference alone
    does not reach, such as behind a custom operator.
    """
    told = [_with_shape(name, shape) for name, shape in shapes.items()]
    found = _infer(model, told, constants)
    types = (*model.graph.value_info, *model.graph.output)
    declared = [_usable(v) for v in types if not _has_shape(found.get(v.name))]
    return _infer(model, [*declared, *told], constants) if declared else found


def _with_shape(tensor: str, shape: Shape) -> ValueInfoProto:
    """A tensor of that shape; a size that is more than one symbol stays open."""
    value = ValueInfoProto(name=tensor)
    for dim in shape:
        told = value.type.tensor_type.shape.dim.add()
        if dim.static:
            told.dim_value = dim.size
        elif dim.size == 1 and len(dim.symbols) == 1:
            told.dim_param = dim.symbols[0]
    return value


def _usable(declared: ValueInfoProto) -> ValueInfoProto:
    value = ValueInfoProto()
    value.CopyFrom(declared)
    forget_odd(value)
    return value


def _named(value: ValueInfoProto) -> ValueInfoProto:
    """An input whose open sizes have names, so that inference carries them on."""
    if value.type.HasField("tensor_type"):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not (dim.HasField("dim_value") or dim.dim_param):
                dim.dim_param = f"?{value.name}:{axis}"
    return value


def _has_shape(info: ValueInfoProto | None) -> bool:
    return info is not None and info.type.tensor_type.HasField("shape")


def _infer(
    model: ModelProto, declared: Iterable[ValueInfoProto], constants: Mapping[str, NDArray[Any]]
) -> dict[str, ValueInfoProto]:
    skeleton = ModelProto(ir_version=model.ir_version)
    skeleton.opset_import.extend(model.opset_import)
    skeleton.functions.extend(model.functions)
    graph = skeleton.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(
        _understood(node)
        for node in model.graph.node
        if not constants.keys() >= set(filter(None, node.output))
    )
    graph.input.extend(_named(_usable(value)) for value in declared_inputs(model))
    known = {value.name: value for value in declared}
    for value in model.graph.output:
        graph.output.append(known.pop(value.name, ValueInfoProto(name=value.name)))
    graph.value_info.extend(known.values())
    inputs = {value.name for value in graph.input}
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) <= SHAPE_INFERENCE_BYTES:
            graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            graph.input.append(info)
    for value in model.graph.sparse_initializer:
        if value.values.name not in inputs:
            kind = value.values.data_type
            info = onnx.helper.make_tensor_value_info(value.values.name, kind, value.dims)
            graph.input.append(info)
    graph.initializer.extend(
        onnx.numpy_helper.from_array(values, name) for name, values in constants.items()
    )
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, strict_mode=False, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        # A runtime may run what inference does not understand: nothing is known then.
        return {value.name: value for value in graph.input}
    done = inferred.graph
    found = {value.name: value for value in (*done.output, *done.value_info, *done.input)}
    for tensor in graph.initializer[len(graph.initializer) - len(constants) :]:
        info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        found[tensor.name] = info
    return found


def _understood(node: NodeProto) -> NodeProto:
    """A node of the standard domain that gives tensors of the same type and shape."""
    kind = (node.domain, node.op_type)
    if kind not in SAME_SHAPE:
        return node
    name, kept = SAME_SHAPE[kind]
    found = onnx.helper.make_node(name, node.input, node.output)
    found.attribute.extend(a for a in node.attribute if a.name in kept)
    if name == "Cast":
        found.attribute.append(onnx.helper.make_attribute("to", TensorProto.FLOAT))
    return found


# Operators that the inference of onnx knows nothing of: one of the same shape, and what it shares.
SAME_SHAPE: dict[tuple[str, str], tuple[str, set[str]]] = {
    ("com.microsoft", "FusedGemm"): ("Gemm", {"alpha", "beta", "transA", "transB"}),
    ("ai.onnx.ml", "Scaler"): ("Cast", set()),
}
