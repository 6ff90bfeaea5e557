"""What can be read, and what is wrong with what cannot, in one line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from onnx_exact.errors import ModelError
from onnx_exact.graph import inputs_of, read_model
from tests.graph.build import Builder
from tests.versions import skip_where_onnx_is_wrong


def small(ir: int = 8) -> ModelProto:
    b = Builder(ir=ir, opset=8 if ir == 3 else 13)
    return b.model([b.gemm(b.relu(b.gemm("x", 6, 50)), 50, 2)])


def saved(folder: Path, **options: object) -> Path:
    path = folder / "model.onnx"
    onnx.save_model(small(), path, **options)
    return path


def refused(path: object, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        read_model(path)
    assert "\n" not in str(caught.value)


def test_file_is_read_with_its_digest_and_size(tmp_path: Path) -> None:
    path = saved(tmp_path)
    for given in (path, str(path)):
        source = read_model(given)
        assert source.model == small()
        assert source.path == path
        assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert source.nbytes == path.stat().st_size
        assert not source.locations


def test_model_in_memory_is_copied() -> None:
    model = small()
    source = read_model(model)
    assert source.model == model
    assert source.model is not model
    assert source.path is None
    data = model.SerializeToString(deterministic=True)
    assert source.sha256 == hashlib.sha256(data).hexdigest()
    source.model.graph.name = "changed"
    assert model.graph.name == "graph"


def test_external_data_is_loaded(tmp_path: Path) -> None:
    path = saved(tmp_path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    source = read_model(path)
    assert source.locations == ("weights.bin",)
    assert source.nbytes == path.stat().st_size + (tmp_path / "weights.bin").stat().st_size
    assert all(t.raw_data for t in source.model.graph.initializer)
    assert not any(t.external_data for t in source.model.graph.initializer)


def test_external_data_may_lie_beside_the_link_or_beside_the_file(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    path = saved(there, save_as_external_data=True, location="weights.bin", size_threshold=0)
    link = tmp_path / "link.onnx"
    link.symlink_to(path)
    assert read_model(link).model == read_model(path).model
    (there / "weights.bin").rename(tmp_path / "weights.bin")
    assert read_model(link).path == link


def test_missing_external_data_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    refused(path, "its external data 'weights.bin' is missing")


def test_truncated_external_data_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    data = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(data[: len(data) // 2])
    refused(path, "external data|checker|holds less than that")


def test_model_in_memory_without_its_external_data_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    refused(onnx.load_model(path, load_external_data=False), "external data is not loaded")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.onnx", "does not exist")


def test_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder")


def test_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.touch()
    refused(path, "is empty")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = saved(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(path, "does not parse|no graph|fails the ONNX checker")


@pytest.mark.parametrize(
    "data", [b"PK\x03\x04 not a model", b"\x00" * 64, b"hello world\n", b"\x08", b"\x08\x07"]
)
def test_bytes_that_are_no_model_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(data)
    refused(path, "does not parse|no graph|fails the ONNX checker")


def failing() -> dict[str, ModelProto]:
    unknown_tensor = small()
    unknown_tensor.graph.node[0].input[0] = "nowhere"
    unknown_op = small()
    unknown_op.graph.node[1].op_type = "Rulu"
    wrong_shape = small()
    wrong_shape.graph.node[2].attribute[0].i = 0
    twice = small()
    twice.graph.node.append(twice.graph.node[0])
    return {
        "unknown_tensor": unknown_tensor,
        "unknown_op": unknown_op,
        "wrong_shape": wrong_shape,
        "made_twice": twice,
        "empty": ModelProto(),
    }


@pytest.mark.parametrize("name", failing())
def test_model_that_fails_the_checker_is_refused(tmp_path: Path, name: str) -> None:
    skip_where_onnx_is_wrong(name == "wrong_shape")
    model = failing()[name]
    refused(model, "fails the ONNX checker|no graph")
    path = tmp_path / "bad.onnx"
    path.write_bytes(model.SerializeToString() or b"\x08\x08")
    refused(path, "fails the ONNX checker|no graph")


def test_custom_operators_pass_the_reader(tmp_path: Path) -> None:
    b = Builder()
    b.node("Mystery", "x", domain="custom.ops", outputs=["t"])
    model = b.model(["t"], check=False)
    model.graph.output[0].type.tensor_type.shape.dim.add(dim_param="n")
    model.opset_import.add(domain="custom.ops", version=1)
    path = tmp_path / "custom.onnx"
    path.write_bytes(model.SerializeToString())
    assert read_model(path).model == model
    assert read_model(model).model == model


@pytest.mark.parametrize("ir", [3, 8])
def test_inputs_are_those_without_an_initializer(ir: int) -> None:
    model = small(ir)
    (spec,) = inputs_of(model)
    assert (spec.name, spec.shape, spec.elem_type) == ("x", (None, 6), TensorProto.FLOAT)
    assert spec.is_float


def test_inputs_of_other_types_and_unknown_rank_are_told() -> None:
    model = small()
    model.graph.input.append(helper.make_tensor_value_info("i", TensorProto.INT64, [2, "n"]))
    model.graph.input.append(helper.make_tensor_value_info("r", TensorProto.DOUBLE, None))
    model.graph.input[2].type.tensor_type.ClearField("shape")
    model.graph.input.append(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [None]))
    _, integer, rankless, sequence = inputs_of(model)
    assert (integer.shape, integer.is_float) == ((2, None), False)
    assert (rankless.shape, rankless.is_float) == (None, True)
    assert (sequence.shape, sequence.is_float) == (None, False)


def test_reading_does_not_touch_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path)
    before = path.read_bytes(), path.stat().st_mtime_ns, sorted(tmp_path.iterdir())
    read_model(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns, sorted(tmp_path.iterdir())) == before


def test_weights_that_are_not_finite_outside_chains_are_read() -> None:
    b = Builder()
    mask = b.constant(np.array([np.nan] * 6, np.float32))
    read_model(b.model([b.node("Sigmoid", b.node("Add", "x", mask))]))
