"""Which layers a runtime computes with the numbers that were read."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_exact.graph.locate import locate_chains
from onnx_exact.graph.plain import is_plain

NUMBERS = {
    "w1": np.array([[1.0, -2.0], [0.5, 1.0], [2.0, 0.25]], dtype=np.float32),
    "m1": np.array([[1.0, 0.5, 2.0], [-2.0, 1.0, 0.25]], dtype=np.float32),
    "b1": np.array([0.5, -0.5, 0.25], dtype=np.float32),
    "w2": np.array([[1.0, -1.0, 0.5]], dtype=np.float32),
    "b2": np.array([0.125], dtype=np.float32),
}


def model_of(*first: NodeProto) -> ModelProto:
    """The nodes from x to g, a ReLU, and a Gemm from h to y."""
    nodes = [
        *first,
        helper.make_node("Relu", ["g"], ["h"], "relu"),
        helper.make_node("Gemm", ["h", "w2", "b2"], ["y"], "fc2", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(value, name) for name, value in NUMBERS.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def gemm(result: str = "g", **attributes: Any) -> NodeProto:
    return helper.make_node("Gemm", ["x", "w1", "b1"], [result], "fc1", transB=1, **attributes)


def matmul(result: str) -> NodeProto:
    return helper.make_node("MatMul", ["x", "m1"], [result], "fc1")


@pytest.mark.parametrize(
    ("nodes", "plain"),
    [
        ([gemm()], True),
        ([gemm(alpha=1.0, beta=1.0)], True),
        ([gemm(alpha=2.0)], False),
        ([gemm(beta=0.5)], False),
        ([matmul("g")], True),
        ([matmul("a"), helper.make_node("Add", ["a", "b1"], ["g"])], True),
        ([gemm("a"), helper.make_node("Add", ["a", "b1"], ["g"])], False),
        ([matmul("a"), helper.make_node("Mul", ["a", "b1"], ["g"])], False),
    ],
)
def test_only_single_products_and_sums_are_plain(nodes: list[NodeProto], plain: bool) -> None:
    model = model_of(*nodes)
    (located,) = locate_chains(model)
    assert is_plain(model, located) == plain
