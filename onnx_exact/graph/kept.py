"""What a file says of its tensors and nodes beside what they compute, kept true of what changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TensorShapeProto,
    ValueInfoProto,
    helper,
)

from onnx_exact.graph.layout import Dim, Layout


def not_kept(old: ModelProto, new: ModelProto) -> tuple[str, ...]:
    """What of a model is not in the one that was made of it, a line each."""
    lost = []
    if len(new.training_info) < len(old.training_info):
        lost.append(
            "training_info is left out: it says how to train weights that are no longer those"
        )
    tensors = {tensor.tensor_name for tensor in new.graph.quantization_annotation}
    for annotation in old.graph.quantization_annotation:
        if annotation.tensor_name not in tensors:
            lost.append(
                f"the quantization annotation of {annotation.tensor_name!r} is left out: the tensor"
                " is gone or has another size"
            )
    return tuple(lost)


def keep_words(before: NodeProto | TensorProto, after: NodeProto | TensorProto) -> None:
    """Lets what is said of something be said of what takes its place."""
    if before.HasField("doc_string"):
        after.doc_string = before.doc_string
    after.metadata_props.extend(before.metadata_props)


def correct_types(
    graph: GraphProto,
    gone: set[str],
    layouts: Mapping[str, Layout],
    initializers: Sequence[TensorProto],
) -> None:
    """Corrects the declared types of tensors that changed, and drops those of tensors that went.

    Args:
        graph: with its new nodes and initializers.
        gone: names that are no longer there.
        layouts: of what new nodes make.
        initializers: the new ones.
    """
    stored = {t.name: t for t in initializers}
    for position in range(len(graph.value_info) - 1, -1, -1):
        value = graph.value_info[position]
        layout = layouts.get(value.name)
        if value.name in gone:
            del graph.value_info[position]
        elif value.name in stored:
            tensor = stored[value.name]
            kind = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
            value.type.CopyFrom(kind)
        elif layout is not None and not _corrected(value, layout):
            _declare(value, layout)


def keep_annotations(graph: GraphProto, old: GraphProto, layouts: Mapping[str, Layout]) -> None:
    """Drops the quantization annotations of what went, and of what no longer has their sizes."""
    sizes = {t.name: list(t.dims) for t in old.initializer}
    stored = {t.name: t for t in graph.initializer}
    there = {name for node in graph.node for name in node.output} | stored.keys()
    there |= {value.name for value in graph.input}
    for position in range(len(graph.quantization_annotation) - 1, -1, -1):
        annotation = graph.quantization_annotation[position]
        name = annotation.tensor_name
        resized = name in stored and list(stored[name].dims) != sizes.get(name)
        changed = name in layouts or resized
        parameters = [entry.value for entry in annotation.quant_parameter_tensor_names]
        per_unit = any(math.prod(sizes.get(p, ())) != 1 for p in parameters)
        if name not in there or (changed and per_unit):
            del graph.quantization_annotation[position]


def _corrected(value: ValueInfoProto, layout: Layout) -> bool:
    """Sets the width in a declared shape; False where the shape no longer has that form."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return True
    dims = tensor.shape.dim
    if len(dims) != layout.rank:
        return False
    others = [axis for axis in range(layout.rank) if not layout.start <= axis < layout.stop]
    if not all(_agrees(dims[axis], layout.shape[axis]) for axis in others):
        return False
    for axis in range(layout.start, layout.stop):
        dims[axis].Clear()
        dims[axis].dim_value = layout.shape[axis].size
    return True


def _declare(value: ValueInfoProto, layout: Layout) -> None:
    """Sets a shape anew, with the sizes that are known."""
    shape = value.type.tensor_type.shape
    shape.ClearField("dim")
    for size in layout.shape:
        dim = shape.dim.add()
        if size.static:
            dim.dim_value = size.size


def _agrees(declared: TensorShapeProto.Dimension, dim: Dim) -> bool:
    """Whether a declared size is this one, and not that of an axis which was here before."""
    if declared.HasField("dim_value"):
        return dim == Dim(declared.dim_value)
    return dim == Dim(1, (declared.dim_param,)) if declared.dim_param else not dim.static
