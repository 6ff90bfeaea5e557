"""The parts that a node of a chain has in float64 compute what it does in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnx_exact.graph.index import FLOATS
from onnx_exact.validate.float64 import SINCE, in_float64

MS = "com.microsoft"
X = np.random.default_rng(0).normal(0, 2, (20, 4)).astype(np.float32)
CONSTANTS: dict[str, Any] = {
    "low": np.float32(-0.5),
    "high": np.float32(1.5),
    "slope": np.float32([0.1, -1.0, 0.0, 2.0]),
    "weight": np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32),
    "bias": np.float32([1.0, 2.0, -3.0, 0.5]),
}
NODES: dict[str, tuple[int, NodeProto]] = {
    "Cast": (13, helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)),
    "Concat": (13, helper.make_node("Concat", ["x"], ["y"], axis=1)),
    "Mean": (13, helper.make_node("Mean", ["x"], ["y"])),
    "Clip": (13, helper.make_node("Clip", ["x", "low", "high"], ["y"])),
    "Clip low": (13, helper.make_node("Clip", ["x", "low"], ["y"])),
    "Clip high": (13, helper.make_node("Clip", ["x", "", "high"], ["y"])),
    "Clip by attributes": (7, helper.make_node("Clip", ["x"], ["y"], min=-0.25, max=1.0)),
    "Clip by one attribute": (7, helper.make_node("Clip", ["x"], ["y"], min=-0.25)),
    "LeakyRelu": (13, helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.3)),
    "LeakyRelu by default": (13, helper.make_node("LeakyRelu", ["x"], ["y"])),
    "PRelu": (13, helper.make_node("PRelu", ["x", "slope"], ["y"])),
    "ThresholdedRelu": (13, helper.make_node("ThresholdedRelu", ["x"], ["y"], alpha=0.0)),
    "HardSigmoid": (13, helper.make_node("HardSigmoid", ["x"], ["y"])),
    "HardSigmoid alpha": (13, helper.make_node("HardSigmoid", ["x"], ["y"], alpha=0.5, beta=0.1)),
    "Abs": (13, helper.make_node("Abs", ["x"], ["y"])),
    "FusedGemm": (
        13,
        helper.make_node(
            *("FusedGemm", ["x", "weight", "bias"], ["y"]),
            domain=MS,
            activation="Relu",
            transB=1,
            alpha=0.5,
        ),
    ),
    "FusedMatMul": (
        13,
        helper.make_node("FusedMatMul", ["x", "weight"], ["y"], domain=MS, transB=1, alpha=0.5),
    ),
}


def computed(nodes: list[NodeProto], opset: int, dtype: Any) -> Any:
    import onnxruntime

    kind = next(k for k, known in FLOATS.items() if known == np.dtype(dtype))
    stored = [numpy_helper.from_array(v.astype(dtype), k) for k, v in CONSTANTS.items()]
    value = helper.make_tensor_value_info("x", kind, ["n", 4])
    result = helper.make_tensor_value_info("y", kind, ["n", 4])
    graph = helper.make_graph(nodes, "g", [value], [result], stored)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MS, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"x": X.astype(dtype)})[0]


@pytest.mark.parametrize("name", NODES)
def test_parts_compute_what_the_node_does(name: str) -> None:
    opset, node = NODES[name]
    before = node.SerializeToString()
    wide = computed(in_float64(node), max(opset, SINCE), np.float64)
    narrow = computed([node], opset, np.float32)
    np.testing.assert_allclose(wide, narrow, rtol=1e-5, atol=1e-6)
    assert node.SerializeToString() == before
