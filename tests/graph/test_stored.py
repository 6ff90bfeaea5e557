"""Tensors whose data does not fill their sizes are found, whatever their type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnx_exact.cli import main
from onnx_exact.errors import ModelError
from onnx_exact.graph import read_model
from onnx_exact.graph.stored import misfit
from tests.graph.build import Builder
from tests.lines import complaints

KINDS = [
    value.number
    for value in TensorProto.DataType.DESCRIPTOR.values
    if value.number not in (TensorProto.UNDEFINED, TensorProto.STRING)
]


def holding(tensor: TensorProto) -> ModelProto:
    model = Builder().model(["x"], check=False)
    model.graph.initializer.append(tensor)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [[], [3], [2, 3], [0], [0, 4]])
@pytest.mark.parametrize("raw", [False, True])
def test_tensor_that_is_all_there_fits(kind: int, sizes: list[int], raw: bool) -> None:
    array = np.zeros(sizes, helper.tensor_dtype_to_np_dtype(kind))
    tensor = numpy_helper.from_array(array, "t")
    assert tensor.data_type == kind
    if not raw:
        tensor = helper.make_tensor("t", kind, sizes, array.reshape(-1).tolist())
    assert misfit(holding(tensor)) is None


@pytest.mark.parametrize("kind", KINDS)
def test_byte_too_many_and_byte_too_few_are_found(kind: int) -> None:
    tensor = numpy_helper.from_array(np.zeros(5, helper.tensor_dtype_to_np_dtype(kind)), "t")
    data = tensor.raw_data
    for changed, word in ((data + b"\0", "more"), (data[:-1], "less"), (b"", "less")):
        tensor.raw_data = changed
        assert misfit(holding(tensor)) == f"the tensor 't' of the sizes [5] holds {word} than that"


def test_typed_fields_are_counted() -> None:
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    tensor.dims[0] = 4
    assert "less" in str(misfit(holding(tensor)))
    text = helper.make_tensor("t", TensorProto.STRING, [2], ["a", "b"])
    assert misfit(holding(text)) is None
    text.string_data.append(b"c")
    assert "more" in str(misfit(holding(text)))


@pytest.mark.parametrize(("sizes", "kind"), [([-1], TensorProto.FLOAT), ([1], 99), ([1], 0)])
def test_sizes_and_types_that_there_are_not_are_found(sizes: list[int], kind: int) -> None:
    tensor = TensorProto(name="t", dims=sizes, data_type=kind, raw_data=b"1234")
    assert misfit(holding(tensor)) is not None


def test_tensors_of_attributes_and_of_subgraphs_are_looked_at() -> None:
    wrong = numpy_helper.from_array(np.zeros(3, np.float32), "inner")
    wrong.dims[0] = 2
    inner = helper.make_graph([helper.make_node("Constant", [], ["k"], value=wrong)], "g", [], [])
    model = holding(numpy_helper.from_array(np.zeros(1, np.float32), "t"))
    model.graph.node.append(helper.make_node("If", ["c"], ["o"], then_branch=inner))
    assert "inner" in str(misfit(model))


def test_looking_changes_nothing() -> None:
    b = Builder()
    model = b.model([b.relu(b.gemm("x", 6, 2))])
    before = model.SerializeToString(deterministic=True)
    assert misfit(model) is None
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("command", ["analyze", "optimize"])
def test_command_ends_in_one_line_with_code_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    b = Builder()
    model = b.model([b.gemm(b.relu(b.gemm("x", 6, 4)), 4, 2)])
    model.graph.initializer[1].raw_data += b"\0"
    path = tmp_path / "in.onnx"
    path.write_bytes(model.SerializeToString())
    targets = [str(tmp_path / "out.onnx")] if command == "optimize" else []
    assert main([command, str(path), *targets, "--domain", "0:1"]) == 2
    assert complaints(capfd.readouterr().err).count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ModelError, match="holds more than that"):
        read_model(model)
