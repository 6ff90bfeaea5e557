"""What a file says beside what it computes is kept, or is left out with a word."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnx_exact.graph import locate_chains, splice
from onnx_exact.graph.kept import not_kept
from onnx_exact.pipeline import optimize
from tests.graph.build import Builder, check_model, halved


def spliced(model: ModelProto) -> ModelProto:
    """The model with its chain halved: every weight and every inner shape changes."""
    (located,) = locate_chains(model)
    new = splice(model, [(located, halved(located.chain))])
    check_model(new)
    assert {t.name for t in new.graph.initializer} & {t.name for t in model.graph.initializer}
    return new


def mlp(builder: Builder, bias_rank: int = 1, gemm: bool = True) -> ModelProto:
    b, x, sizes = builder, "x", (6, 8, 6, 2)
    for n, (n_in, n_out) in enumerate(pairwise(sizes)):
        bias = b.weight(*[1] * (bias_rank - 1), n_out)
        if gemm:
            x = b.node("Gemm", x, b.weight(n_out, n_in), bias, transB=1)
        else:
            x = b.node("Add", b.dense(x, n_in, n_out), bias)
        if n < 2:
            x = b.relu(x)
    return b.model([x])


def test_words_of_changed_weights_are_kept() -> None:
    model = mlp(Builder(ir=10))
    for tensor in model.graph.initializer:
        tensor.doc_string = f"about {tensor.name}"
        tensor.metadata_props.add(key="run", value="17")
    words = {t.name: (t.doc_string, list(t.metadata_props)) for t in model.graph.initializer}
    for tensor in spliced(model).graph.initializer:
        assert (tensor.doc_string, list(tensor.metadata_props)) == words[tensor.name]


@pytest.mark.parametrize("gemm", [False, True])
def test_words_of_nodes_without_a_name_are_kept(gemm: bool) -> None:
    model = mlp(Builder(ir=10), gemm=gemm)
    for node in model.graph.node:
        node.name, node.doc_string = "", f"makes {node.output[0]}"
        node.metadata_props.add(key="made", value=node.output[0])
    new = spliced(model)
    assert len(new.graph.node) == len(model.graph.node)
    for node in new.graph.node:
        assert not node.name
        assert node.doc_string == f"makes {node.output[0]}"
        assert node.metadata_props[0].value == node.output[0]


def test_words_of_a_constant_node_go_to_the_initializer_in_its_place() -> None:
    b = Builder()
    array = np.ones((8, 6), np.float32)
    weight = b.node("Constant", value=numpy_helper.from_array(array))
    b.nodes[-1].doc_string = "by hand"
    y = b.gemm(b.relu(b.node("Gemm", "x", weight, transB=1)), 8, 2)
    new = spliced(b.model([y]))
    (tensor,) = [t for t in new.graph.initializer if t.name == weight]
    assert tensor.doc_string == "by hand"


@pytest.mark.parametrize("gemm", [False, True])
@pytest.mark.parametrize("rank", [1, 2])
def test_biases_keep_their_rank(rank: int, gemm: bool) -> None:
    model = mlp(Builder(), bias_rank=rank, gemm=gemm)
    biases = {node.input[-1] for node in model.graph.node if node.op_type in ("Gemm", "Add")}
    dims = [list(t.dims) for t in spliced(model).graph.initializer if t.name in biases]
    assert {len(d) for d in dims} == {rank}
    assert all(d[:-1] == [1] * (rank - 1) for d in dims)


def test_declared_type_of_a_changed_weight_is_kept_and_corrected() -> None:
    model = mlp(Builder())
    weight = model.graph.initializer[1]
    declared = helper.make_tensor_value_info(weight.name, TensorProto.FLOAT, list(weight.dims))
    declared.doc_string = "the first weight"
    model.graph.value_info.append(declared)
    (located,) = locate_chains(model)
    new = splice(model, [(located, halved(located.chain))])
    onnx.checker.check_model(new, full_check=True)
    (value,) = [v for v in new.graph.value_info if v.name == weight.name]
    (tensor,) = [t for t in new.graph.initializer if t.name == weight.name]
    assert value.doc_string == "the first weight"
    assert [d.dim_value for d in value.type.tensor_type.shape.dim] == list(tensor.dims)


def annotated(sizes: list[int]) -> tuple[ModelProto, str]:
    """A model whose first weight has a scale of that shape."""
    b = Builder()
    model = mlp(b)
    scale = b.constant(np.ones(sizes, np.float32), "scale")
    model.graph.initializer.append(b.initializers[-1])
    name = model.graph.node[0].input[1]
    note = model.graph.quantization_annotation.add(tensor_name=name)
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value=scale)
    return model, name


@pytest.mark.parametrize("sizes", [[], [1]])
def test_annotation_for_the_whole_of_a_changed_weight_is_kept(sizes: list[int]) -> None:
    model, _ = annotated(sizes)
    new = spliced(model)
    assert list(new.graph.quantization_annotation) == list(model.graph.quantization_annotation)
    assert "scale" in {t.name for t in new.graph.initializer}
    assert not_kept(model, new) == ()


def test_annotation_for_each_unit_of_a_changed_weight_is_left_out_with_a_word() -> None:
    model, name = annotated([8])
    (word,) = not_kept(model, spliced(model))
    assert repr(name) in word


def test_training_info_is_left_out_with_a_word_where_weights_change() -> None:
    model = mlp(Builder())
    for tensor in model.graph.initializer:
        array = np.array(numpy_helper.to_array(tensor))
        array[...] = -np.abs(array) if array.ndim == 2 and len(array) == 8 else array
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    info = model.training_info.add()
    info.algorithm.name = "sgd"
    new, report = optimize(model, domain="0:1")
    assert report.changed
    assert not new.training_info
    assert any("training_info" in warning for warning in report.warnings)
    same, untouched = optimize(model, max_deviation=0.0, method="bounds")
    assert bool(same.training_info) == (not untouched.changed)


def test_ir_3_file_whose_initializers_are_no_inputs_stays_one() -> None:
    model = mlp(Builder(ir=3, opset=8))
    del model.graph.input[1:]
    (located,) = locate_chains(model)
    new = splice(model, [(located, halved(located.chain))])
    assert [value.name for value in new.graph.input] == ["x"]
    onnx.load_from_string(new.SerializeToString())
