"""Writing trained networks as ONNX files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest

from benchmarks.training.export import (
    DOMAIN_KEY,
    Layer,
    read_metadata,
    relu_network_model,
    write_model,
)
from tests.benchmarks.helpers import FLOAT32_ATOL, FLOAT32_RTOL, forward, random_layers, run_onnx


@pytest.mark.parametrize("widths", [[5, 3], [4, 7, 2], [6, 5, 5, 1], [1, 1, 1]])
def test_written_model_equals_numpy_forward_pass_at_every_batch_size(
    widths: list[int], tmp_path: Path
) -> None:
    layers = random_layers(widths)
    path = tmp_path / "network.onnx"
    write_model(relu_network_model(layers, {}), path)
    onnx.checker.check_model(str(path), full_check=True)
    for batch in (1, 2, 33):
        x = np.random.default_rng(batch).random((batch, widths[0]), dtype=np.float32)
        np.testing.assert_allclose(
            run_onnx(path, x), forward(layers, x), rtol=FLOAT32_RTOL, atol=FLOAT32_ATOL
        )


def test_written_model_is_a_plain_chain_in_the_dialect_of_every_consumer() -> None:
    model = relu_network_model(random_layers([4, 7, 6, 2]), {})
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Relu", "Gemm", "Relu", "Gemm"]
    for node in model.graph.node:
        if node.op_type == "Gemm":
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            assert attributes == {"alpha": 1.0, "beta": 1.0, "transB": 1}
            assert len(node.input) == 3
    assert all(tensor.raw_data for tensor in model.graph.initializer)
    reads = [name for node in model.graph.node for name in node.input]
    assert len(reads) == len(set(reads))
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert (shape[0].dim_param, shape[1].dim_value) == ("batch", 4)


def test_written_model_carries_its_domain_and_the_given_metadata(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    write_model(relu_network_model(random_layers([3, 2]), {"training.seed": "7"}), path)
    found = read_metadata(path)
    assert json.loads(found.pop(DOMAIN_KEY)) == {"input": {"lower": 0.0, "upper": 1.0}}
    assert found == {"training.seed": "7"}


def test_float64_layers_are_refused() -> None:
    with pytest.raises(TypeError, match="float64"):
        relu_network_model([cast(Layer, (np.eye(2), np.zeros(2)))], {})


def test_a_model_that_fails_the_checker_leaves_no_file(tmp_path: Path) -> None:
    model = relu_network_model(random_layers([3, 2]), {})
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(onnx.checker.ValidationError):
        write_model(model, tmp_path / "network.onnx")
    assert list(tmp_path.iterdir()) == []
