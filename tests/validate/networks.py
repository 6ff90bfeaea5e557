"""Small networks with units to remove and to merge, and what may stand behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.side_by_side import F32, Input, model

X = Input("x", (None, 6))
# A tail: what it adds behind the tensor "f", its constants, its outputs.
Tail = tuple[Sequence[NodeProto], dict[str, Any], Sequence[tuple[str, int]]]


def parameters(
    sizes: Sequence[int] = (6, 18, 15, 4), seed: int = 0
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Weights and biases; over [0, 1] a third of the units is off and a third is on."""
    rng = np.random.default_rng(seed)
    layers = []
    for n, m in pairwise(sizes):
        weight, bias = rng.normal(0, n**-0.5, (m, n)), rng.normal(0, 0.1, m)
        if len(layers) < len(sizes) - 2:
            far = 2.0 + 4.0 * np.abs(weight).sum(axis=1)
            bias[: m // 3] -= far[: m // 3]
            bias[m // 3 : 2 * (m // 3)] += far[m // 3 : 2 * (m // 3)]
        layers.append((weight, bias))
    return layers


def network(
    read: str = "x",
    made: str = "f",
    dtype: type[np.floating[Any]] = np.float32,
    prefix: str = "",
    **options: Any,
) -> tuple[list[NodeProto], dict[str, Any]]:
    """Nodes and constants of a chain of Gemm and Relu."""
    nodes: list[NodeProto] = []
    constants: dict[str, Any] = {}
    layers, tensor = parameters(**options), read
    for k, (weight, bias) in enumerate(layers):
        names = f"{prefix}W{k}", f"{prefix}b{k}"
        constants |= dict(zip(names, (weight.astype(dtype), bias.astype(dtype)), strict=True))
        last = k == len(layers) - 1
        out = made if last else f"{prefix}g{k}"
        nodes.append(helper.make_node("Gemm", [tensor, *names], [out], transB=1))
        if not last:
            tensor = f"{prefix}h{k}"
            nodes.append(helper.make_node("Relu", [out], [tensor]))
    return nodes, constants


def with_tail(tail: Tail, inputs: Sequence[Input] = (X,), **options: Any) -> ModelProto:
    """A network with something behind it."""
    nodes, constants = network(**options)
    behind, more, outputs = tail
    return built([*nodes, *behind], outputs, inputs, **constants, **more)


def built(
    nodes: Sequence[NodeProto],
    outputs: Sequence[tuple[str, int]] = (("f", F32),),
    inputs: Sequence[Input] = (X,),
    **constants: Any,
) -> ModelProto:
    """A model with the shapes of its outputs declared."""
    made = ModelProto.FromString(model(nodes, inputs, outputs, **constants))
    return onnx.shape_inference.infer_shapes(made)


def plain(**options: Any) -> ModelProto:
    """A network whose output is the model's."""
    return with_tail(([], {}, [("f", options.pop("elem_type", F32))]), **options)


def casting() -> Tail:
    node = helper.make_node("Cast", ["f"], ["y"], to=TensorProto.DOUBLE)
    return [node], {}, [("y", TensorProto.DOUBLE)]


def half_island() -> Tail:
    nodes = [
        helper.make_node("Cast", ["f"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["h"], ["y"], to=TensorProto.FLOAT),
    ]
    return nodes, {}, [("y", F32)]


def largest() -> Tail:
    return [helper.make_node("ArgMax", ["f"], ["y"], axis=1)], {}, [("y", TensorProto.INT64)]


def quantised() -> Tail:
    node = helper.make_node("QuantizeLinear", ["f", "step", "zero"], ["y"])
    constants = {"step": np.float32(1e-5), "zero": np.int8(0)}
    return [node], constants, [("y", TensorProto.INT8)]


def amplifying() -> Tail:
    nodes = [
        helper.make_node("Softplus", ["f"], ["s"]),
        helper.make_node("Mul", ["s", "k"], ["y"]),
    ]
    return nodes, {"k": np.float32(1e6)}, [("y", F32)]


def random_noise() -> Tail:
    nodes = [
        helper.make_node("RandomNormalLike", ["f"], ["r"]),
        helper.make_node("Add", ["f", "r"], ["y"]),
    ]
    return nodes, {}, [("y", F32)]


def both() -> Tail:
    """The chain's output is put out, and read as well."""
    return [helper.make_node("Softmax", ["f"], ["y"], axis=1)], {}, [("y", F32), ("f", F32)]


def branching() -> Tail:
    """An If whose branches read the chain's output from the outer scope."""

    def branch(node: NodeProto) -> onnx.GraphProto:
        made = helper.make_tensor_value_info(node.output[0], F32, None)
        return helper.make_graph([node], node.output[0], [], [made])

    node = helper.make_node(
        "If",
        ["yes"],
        ["y"],
        then_branch=branch(helper.make_node("Mul", ["f", "two"], ["t"])),
        else_branch=branch(helper.make_node("Neg", ["f"], ["e"])),
    )
    return [node], {"yes": np.bool_(True), "two": np.float32(2)}, [("y", F32)]


TAILS: dict[str, Callable[[], Tail]] = {
    tail.__name__: tail
    for tail in (
        casting,
        half_island,
        largest,
        quantised,
        amplifying,
        random_noise,
        both,
        branching,
    )
}


def zip_map() -> ModelProto:
    """A classifier that puts out a sequence of maps."""
    nodes, constants = network()
    nodes += [
        helper.make_node("Softmax", ["f"], ["p"], axis=1),
        helper.make_node(
            "ZipMap", ["p"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2, 3]
        ),
    ]
    made = ModelProto.FromString(model(nodes, [X], [], **constants))
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    of = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(F32, []))
    made.graph.output.append(helper.make_value_info("y", helper.make_sequence_type_proto(of)))
    return made


def normalised(dtype: type[np.floating[Any]], offset: float) -> ModelProto:
    """A batch normalisation behind each product, with means and biases that cancel."""
    rng = np.random.default_rng(0)
    nodes: list[NodeProto] = []
    constants: dict[str, Any] = {}
    tensor = "x"
    for k, (weight, bias) in enumerate(parameters()):
        width, shift = len(bias), offset if k else 0.0
        values = {
            "W": weight.T,
            "b": (rng.normal(0, 0.1, width) if k == 1 else bias) + shift,
            "scale": rng.uniform(0.5, 2.0, width),
            "beta": rng.normal(0, 0.1, width),
            "mean": rng.normal(0, 0.1, width) + shift,
            "var": rng.uniform(0.5, 2.0, width),
        }
        constants |= {f"{name}{k}": np.asarray(v, dtype) for name, v in values.items()}
        given = [f"{name}{k}" for name in ("scale", "beta", "mean", "var")]
        out = "f" if k == 2 else f"n{k}"
        nodes += [
            helper.make_node("MatMul", [tensor, f"W{k}"], [f"p{k}"]),
            helper.make_node("Add", [f"p{k}", f"b{k}"], [f"a{k}"]),
            helper.make_node("BatchNormalization", [f"a{k}", *given], [out]),
        ]
        if k < 2:
            tensor = f"h{k}"
            nodes.append(helper.make_node("Relu", [out], [tensor]))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return built(nodes, [("f", kind)], [Input("x", (None, 6), kind)], **constants)


def saved(made: ModelProto, folder: Path) -> Path:
    path = folder / "in.onnx"
    onnx.save(made, path)
    return path


def constant(made: ModelProto, name: str) -> NDArray[Any]:
    """A constant of a model."""
    found = next(tensor for tensor in made.graph.initializer if tensor.name == name)
    return numpy_helper.to_array(found).copy()


def replaced(made: ModelProto, name: str, values: NDArray[Any]) -> ModelProto:
    """The model with other numbers in a constant."""
    other = ModelProto()
    other.CopyFrom(made)
    for tensor in other.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(values, name))
    return other
