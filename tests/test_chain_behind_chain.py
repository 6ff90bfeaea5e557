"""A chain that reads another one's outputs gets what a runtime computes, rounding and all."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from onnx_exact.pipeline import analyze
from tests.graph.build import run


def test_rounding_of_one_chain_is_in_the_domain_of_the_next() -> None:
    # y = 0.1 + ... + 0.1 in float32 is not seventy times the float32 nearest to 0.1; the second
    # chain magnifies by how much it is not.
    ones, tenth = np.ones((1, 70), np.float32), np.full((1, 70), 0.1, np.float32)
    exact = 70.0 * float(np.float32(0.1))
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["g"]),
        helper.make_node("Relu", ["g"], ["r"]),
        helper.make_node("MatMul", ["r", "I"], ["y"]),
        helper.make_node("Abs", ["y"], ["a"]),
        helper.make_node("Sub", ["a", "c"], ["d"]),
        helper.make_node("Abs", ["d"], ["n"]),
        helper.make_node("Gemm", ["n", "K", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["s"]),
        helper.make_node("MatMul", ["s", "I"], ["z"]),
    ]
    off = float(np.float32(exact) - exact)
    arrays = {
        "W": tenth.T,
        "I": np.eye(1, dtype=np.float32),
        "c": np.float32([exact]),
        "K": np.float32([[1e7]]),
        "b": np.float32([-1e7 * abs(off) - 2.0]),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 70])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(v, k) for k, v in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (found,) = run(model, {"x": ones})
    report = analyze(model, domain="1:1")
    second = report.chains[1]
    assert found.max() > 0.0
    assert second.layers[0].stably_inactive == 0
