"""A model with numbers of twice the size, whose intervals are as good as those over the reals.

What rounding in float32 adds to an interval tells nothing of the numbers that the graph defines; in
float64 it is 2^-29 of that.
"""

from __future__ import annotations

import numpy as np
from onnx import AttributeProto, ModelProto, TensorProto, numpy_helper

# Attributes that name a type, or hold what is of one.
TYPED = {"to", "dtype", "value_float", "value_floats", "sparse_value", "output_dtype"}
GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)


def doubled(model: ModelProto) -> ModelProto | None:
    """The same graph in float64, with the same numbers; None where a node depends on the type."""
    attributes = [a for node in model.graph.node for a in node.attribute]
    typed = any(a.name in TYPED or a.type in GRAPHS or a.ref_attr_name for a in attributes)
    if typed or model.functions or model.graph.sparse_initializer:
        return None
    made = ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    constants = (a.t for node in graph.node for a in node.attribute if a.HasField("t"))
    for tensor in (*graph.initializer, *constants):
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return made
