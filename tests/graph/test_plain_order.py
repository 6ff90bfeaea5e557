"""What is added in front of a product is rounded before it: no layer as it is stored."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from onnx_exact.graph.locate import locate_chains
from onnx_exact.graph.plain import is_plain


def test_an_addition_in_front_of_a_product_is_not_part_of_it() -> None:
    numbers = {"w": np.ones((1, 2)), "c": np.full(2, 2.0**24), "v": np.array([[1.0], [-1.0]])}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["g"]),
        helper.make_node("Relu", ["g"], ["h"]),
        helper.make_node("Add", ["h", "c"], ["moved"]),
        helper.make_node("MatMul", ["moved", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [
            numpy_helper.from_array(value.astype(np.float32), name)
            for name, value in numbers.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (located,) = locate_chains(model)
    assert len(located.chain.layers) == 2
    assert not is_plain(model, located)
