"""Random whole graphs: what `benchmarks.fuzz` runs the tool on.

A graph grows node by node out of a few inputs. Dense layers (`fuzz_dense`) and every other operator
(`fuzz_operators`) may stand in front of, between, beside and behind each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import ModelProto, helper

from benchmarks.fuzzing.dense import REACH, Shared, columns, network
from benchmarks.fuzzing.tensors import Graph, Shape, Tensor

OPSETS = (11, 12, 13, 14, 15, 17, 18, 20, 21)
IR_VERSIONS = {11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 17: 8, 18: 8, 20: 9, 21: 10}
TYPES = (np.float32, np.float32, np.float32, np.float64, np.float16)

Operator = Callable[[Graph, Tensor], Tensor | None]


def random_graph(seed: int, operators: Sequence[Operator]) -> tuple[ModelProto, Graph]:
    """A model, and the graph it was made of, whose first live tensors are the inputs."""
    rng = np.random.default_rng(seed)
    opset = OPSETS[int(rng.integers(len(OPSETS)))]
    g = Graph(rng, opset, np.dtype(TYPES[int(rng.integers(len(TYPES)))]))
    for _ in range(1 if g.chance(0.7) else 2):
        _input(g)
    shared: list[Shared] = []
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
    shared: list[Shared],
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
