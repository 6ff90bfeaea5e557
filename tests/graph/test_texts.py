"""Texts that are no UTF-8 are found wherever they stand."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import ModelProto, helper

from onnx_exact.errors import ModelError
from onnx_exact.graph import read_model
from onnx_exact.graph.texts import unreadable_text
from tests.graph.build import Builder


def named() -> ModelProto:
    """A model with a text of five letters nobody else has in every place."""
    b = Builder()
    model = b.model([b.relu(b.gemm("x", 6, 2))])
    model.doc_string = "aaaaa"
    model.metadata_props.add(key="bbbbb", value="ccccc")
    model.graph.name = "ddddd"
    model.graph.node[1].name = "eeeee"
    model.graph.node[0].attribute[0].doc_string = "fffff"
    model.graph.initializer[1].doc_string = "ggggg"
    model.graph.value_info.append(helper.make_tensor_value_info("hhhhh", 1, ["iiiii"]))
    inner = helper.make_graph([helper.make_node("Neg", ["jjjjj"], ["k"])], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["o"], then_branch=inner))
    return model


PLACES = {
    "aaaaa": "doc_string",
    "bbbbb": "metadata_props[0].key",
    "ccccc": "metadata_props[0].value",
    "ddddd": "graph.name",
    "eeeee": "graph.node[1].name",
    "fffff": "graph.node[0].attribute[0].doc_string",
    "ggggg": "graph.initializer[1].doc_string",
    "hhhhh": "graph.value_info[0].name",
    "iiiii": "graph.value_info[0].type.tensor_type.shape.dim[1].dim_param",
    "jjjjj": "graph.node[2].attribute[0].g.node[0].input[0]",
}


def test_texts_that_are_texts_are_let_pass() -> None:
    model = named()
    model.doc_string = "größer \N{GREEK SMALL LETTER ALPHA}"
    assert unreadable_text(model) is None


@pytest.mark.parametrize("text", PLACES)
def test_text_that_is_none_is_named_by_its_place(tmp_path: Path, text: str) -> None:
    model = named()
    if text == "iiiii":
        model.graph.value_info[0].type.tensor_type.shape.dim.insert(
            0, type(model.graph.value_info[0].type.tensor_type.shape.dim[0])(dim_value=2)
        )
    data = model.SerializeToString().replace(text.encode(), b"aa\xffaa")
    changed = ModelProto.FromString(data)
    assert unreadable_text(changed) == PLACES[text]
    path = tmp_path / "in.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="no text in UTF-8") as caught:
        read_model(path)
    assert PLACES[text] in str(caught.value)
    assert "\n" not in str(caught.value)
