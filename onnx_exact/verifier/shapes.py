"""Shapes of all tensors of a model, at sizes that are tried for those that the file leaves open.

They follow from the inputs alone, whatever the file says of the others. Where a shape depends on
integers that are computed from shapes, these are computed, node by node, by ONNX's own reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from math import isqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, OperatorSetIdProto, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from onnx_exact.errors import UncheckedError

if TYPE_CHECKING:
    from onnx_exact.verifier.model import Model

# Symbolic sizes are tried at these and those above, two each, and at 1.
FIRST_PRIME = 10_007
TRIALS = 3
# Larger tensors are no shapes or axes, which shape inference needs the values of.
SMALL_TENSOR = 4096
# What computes shapes from shapes.
COMPUTED = ("Concat", "Constant", "Gather", "Identity", "Slice", "Squeeze", "Unsqueeze")

Shape = tuple[int, ...]
Integers = NDArray[np.generic]


def infer(model: Model, trial: int) -> tuple[dict[str, Shape], dict[str, int]]:
    """Shapes and types as they follow from those of the inputs, whatever else the file says."""
    fixed = _skeleton(model)
    primes = _primes()
    chosen: dict[str | tuple[str, int], int] = {}
    for value in fixed.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if size_of(dim) is None:
                tried = (next(primes), next(primes), 1)[trial]
                told = model.told.get((value.name, axis), tried)
                dim.dim_value = chosen.setdefault(dim.dim_param or (value.name, axis), told)
    try:
        shapes, types = _once(fixed)
        while _computed(model, fixed, shapes):
            shapes, types = _once(fixed)
    except Exception as error:  # of onnx's C++ code
        reason = " ".join(str(error).split())[:150]
        what = f"cannot check: the shapes of {model.name} do not follow from its inputs'"
        raise UncheckedError(f"{what} ({reason})") from error
    stored = [t for t in model.graph.initializer if t.name not in model.optional]
    stored += fixed.graph.initializer
    types |= {t.name: t.data_type for t in stored}
    return shapes | {t.name: tuple(t.dims) for t in stored}, types


def _once(fixed: ModelProto) -> tuple[dict[str, Shape], dict[str, int]]:
    found = shape_inference.infer_shapes(fixed, strict_mode=True).graph
    shapes: dict[str, Shape] = {}
    types: dict[str, int] = {}
    for value in (*found.input, *found.value_info, *found.output):
        if value.type.HasField("tensor_type"):
            tensor = value.type.tensor_type
            types[value.name] = tensor.elem_type
            if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
                shapes[value.name] = tuple(d.dim_value for d in tensor.shape.dim)
    return shapes, types


def _computed(model: Model, fixed: ModelProto, shapes: dict[str, Shape]) -> bool:
    """Puts integers that follow from shapes in the place of the nodes that compute them.

    Returns:
        Whether there was any, where a shape is not known yet.
    """
    if all(name in shapes for node in fixed.graph.node for name in node.output if name):
        return False
    known = {t.name: numpy_helper.to_array(t) for t in fixed.graph.initializer}
    left, before, opsets = [], len(known), list(fixed.opset_import)
    for node in fixed.graph.node:
        # Where entries are picked may not depend on sizes: at others it would be another place.
        fixed_there = all(model.constant(name) is not None for name in node.input[1:] if name)
        plain = model.is_standard(node) and (node.op_type == "Concat" or fixed_there)
        value = _value(node, known, shapes, opsets) if plain else None
        if value is None or value.dtype != np.int64 or value.nbytes > SMALL_TENSOR:
            left.append(NodeProto.FromString(node.SerializeToString()))
            continue
        known[node.output[0]] = value
        fixed.graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
    del fixed.graph.node[:]
    fixed.graph.node.extend(left)
    return len(known) > before


def _value(
    node: NodeProto,
    known: dict[str, Integers],
    shapes: dict[str, Shape],
    opsets: list[OperatorSetIdProto],
) -> Integers | None:
    """What a node puts out, if it computes integers from shapes; None otherwise."""
    if node.op_type == "Shape" and node.input[0] in shapes and not node.attribute:
        return np.array(shapes[node.input[0]], np.int64)
    if node.op_type not in COMPUTED or not all(name in known for name in node.input if name):
        return None
    return np.asarray(
        run_alone(node, {name: known[name] for name in node.input if name}, opsets)[0]
    )


def run_alone(
    node: NodeProto, values: Mapping[str, Integers], opsets: Iterable[OperatorSetIdProto]
) -> list[Any]:
    """What a node puts out for these inputs, by ONNX's own reference."""
    reads, makes = (
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in names]
        for names in (values, filter(None, node.output))
    )
    graph = onnx.helper.make_graph([node], "one", reads, makes)
    one = onnx.helper.make_model(graph, opset_imports=opsets)
    found: Any = ReferenceEvaluator(one).run(None, dict(values))
    return [np.asarray(value) for value in found]


def _skeleton(model: Model) -> ModelProto:
    """The model without large numbers, and without what it says of shapes that follow."""
    source, proto = model.graph, model.proto
    graph = onnx.helper.make_graph(
        [
            # Of a Scaler shape inference knows nothing.
            onnx.helper.make_node("Cast", node.input, node.output, to=onnx.TensorProto.FLOAT)
            if node.op_type == "Scaler" and model.is_standard(node)
            else node
            for node in source.node
        ],
        *("skeleton", source.input, source.output),
    )
    made = onnx.helper.make_model(
        graph,
        functions=proto.functions,
        opset_imports=proto.opset_import,
        ir_version=proto.ir_version,
    )
    fed = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.ByteSize() <= SMALL_TENSOR and tensor.name not in model.optional:
            made.graph.initializer.append(tensor)
        elif tensor.name not in fed:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            made.graph.input.append(info)
    for value in made.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    return made


def _primes() -> Iterator[int]:
    return (n for n in count(FIRST_PRIME) if all(n % factor for factor in range(2, isqrt(n) + 1)))


def size_of(dim: onnx.TensorShapeProto.Dimension) -> int | None:
    """A size that the file names; None for one that it leaves open."""
    return dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None
