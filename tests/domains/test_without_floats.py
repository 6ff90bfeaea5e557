"""Models of which no input holds floating-point numbers: nothing can be said of their domain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_exact.cli import main


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """uint8 in, a chain of which some units are never on."""
    rng = np.random.default_rng(0)
    bias = np.where(np.arange(8) < 3, -1e5, 0.0)
    constants = {"w": rng.normal(size=(4, 8)), "b": bias, "v": rng.normal(size=(8, 2))}
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Gemm", ["f", "w", "b"], ["g"]),
        helper.make_node("Relu", ["g"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        *(nodes, "bytes"),
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "in.onnx"
    onnx.save(model, path)
    return path


def test_what_comes_out_can_be_used_again(file: Path, tmp_path: Path) -> None:
    first, second = str(tmp_path / "1.onnx"), str(tmp_path / "2.onnx")
    proof = ["--certificate", str(tmp_path / "c.npz")]
    assert main(["optimize", str(file), first, "--quiet", *proof]) == 0
    assert len(onnx.load(first).graph.initializer[1].dims) == 1
    assert main(["verify", str(file), first, *proof]) == 0
    assert main(["verify", str(file), first]) == 3
    assert main(["inspect", first]) == 0
    assert main(["optimize", first, second, "--quiet"]) == 0
    assert Path(first).read_bytes() == Path(second).read_bytes()
    bounds = ["--bounds", str(tmp_path / "b.npz")]
    assert main(["optimize", first, second, "--quiet", *bounds]) == 0
