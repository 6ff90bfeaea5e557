"""The functions of the package: typed, and one line for what is no model."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import onnx
import pytest

import onnx_exact
from onnx_exact import api
from onnx_exact.errors import ModelError, UsageError
from onnx_exact.integrations.onnx_proto import compress
from onnx_exact.settings import Settings
from tests.small_network import network

FUNCTIONS = (onnx_exact.optimize, onnx_exact.optimize_file, onnx_exact.analyze, onnx_exact.verify)


def test_keywords_are_the_settings_and_of_the_same_types() -> None:
    fields = {field.name: field.type for field in dataclasses.fields(Settings)}
    assert api.SettingKeywords.__annotations__.keys() == fields.keys()
    for name, reference in api.SettingKeywords.__annotations__.items():
        assert reference.__forward_arg__ == fields[name]
    assert not api.SettingKeywords.__required_keys__


@pytest.mark.parametrize("function", [*FUNCTIONS, compress])
def test_every_parameter_of_a_public_function_has_a_type_that_says_something(
    function: object,
) -> None:
    signature = inspect.signature(function)  # type: ignore[arg-type]
    for parameter in signature.parameters.values():
        assert parameter.annotation not in (inspect.Parameter.empty, "Any", "object"), parameter
    assert signature.return_annotation is not inspect.Signature.empty


@pytest.mark.parametrize("model", [3, None, b"model", [1]])
def test_what_is_no_model_is_refused_in_one_line(model: object) -> None:
    for call in (onnx_exact.optimize, onnx_exact.analyze, lambda m: onnx_exact.verify(m, m)):
        with pytest.raises(UsageError, match=f"not {type(model).__name__}$"):
            call(model)  # type: ignore[operator]


def test_function_from_model_to_model_gives_what_optimize_gives(tmp_path: Path) -> None:
    model = onnx.load(network(tmp_path / "in.onnx"))
    before = model.SerializeToString()
    assert compress(model, domain="0:1") == onnx_exact.optimize(model, domain="0:1")[0]
    assert model.SerializeToString() == before
    with pytest.raises(ModelError):
        compress(onnx.ModelProto())


def test_a_file_name_and_its_model_give_the_same(tmp_path: Path) -> None:
    path = network(tmp_path / "in.onnx")
    by_name, _ = onnx_exact.optimize(str(path), domain="0:1")
    by_path, _ = onnx_exact.optimize(path, domain="0:1")
    by_model, _ = onnx_exact.optimize(onnx.load(path), domain="0:1")
    assert by_name == by_path
    assert by_model.graph == by_name.graph
