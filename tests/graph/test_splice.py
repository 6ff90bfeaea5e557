"""What a spliced model keeps, and what it changes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnx_exact.graph import locate_chains, splice
from onnx_exact.network import Affine, Chain, Layer
from onnx_exact.pipeline import optimize
from tests.graph.build import (
    Builder,
    assert_close,
    check_chain,
    check_model,
    feed_for,
    halved,
    rescaled,
    run,
)


def decorated() -> ModelProto:
    """A chain between two other parts, with everything a model can carry around it."""
    b = Builder()
    unused = b.constant(np.arange(3, dtype=np.float32), "unused")
    y = b.node("Sigmoid", "x", name="before")
    y = b.relu(b.gemm(y, 6, 5))
    y = b.relu(b.node("Add", b.dense(y, 5, 4), b.weight(4)))
    y = b.gemm(y, 4, 2)
    z = b.node("Softmax", y, name="after", axis=1)
    other = b.node("Neg", "second", name="other")
    inputs = {"x": ["batch", 6], "second": ["rows", 2]}
    model = b.model([z, other], inputs)
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.5]),
        helper.make_tensor("", TensorProto.INT64, [1], [2]),
        [4],
    )
    model.graph.sparse_initializer.append(sparse)
    model.doc_string, model.domain, model.model_version = "about the model", "org.example", 7
    model.producer_name, model.producer_version = "a trainer", "1.2"
    model.metadata_props.add(key="author", value="someone")
    graph = model.graph
    graph.doc_string = "about the graph"
    graph.metadata_props.add(key="graph", value="kept")
    graph.input[0].doc_string = "pixels"
    graph.input[0].metadata_props.add(key="scale", value="255")
    for node in graph.node:
        node.doc_string = f"about {node.name}"
        node.metadata_props.add(key="made", value=node.name)
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    graph.value_info.extend(inferred)
    graph.value_info[0].doc_string = "a value"
    note = graph.quantization_annotation.add(tensor_name="x")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value=unused)
    function = helper.make_function(
        "org.example",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 13)],
    )
    model.functions.append(function)
    model.opset_import.add(domain="org.example", version=1)
    onnx.checker.check_model(model, full_check=True)
    return model


def changed(model: ModelProto) -> ModelProto:
    return splice(model, [(c, halved(c.chain)) for c in locate_chains(model)])


def test_decorated_model_computes_what_its_chains_say() -> None:
    check_model(decorated())


KEPT = [
    "ir_version",
    "opset_import",
    "producer_name",
    "producer_version",
    "domain",
    "model_version",
    "doc_string",
    "metadata_props",
    "functions",
    "training_info",
]
KEPT_OF_GRAPH = [
    "name",
    "doc_string",
    "metadata_props",
    "input",
    "output",
    "sparse_initializer",
    "quantization_annotation",
]


@pytest.mark.parametrize("field", KEPT)
def test_field_of_the_model_is_kept(field: str) -> None:
    model = decorated()
    assert getattr(changed(model), field) == getattr(model, field)


@pytest.mark.parametrize("field", KEPT_OF_GRAPH)
def test_field_of_the_graph_is_kept(field: str) -> None:
    model = decorated()
    assert getattr(changed(model).graph, field) == getattr(model.graph, field)


def test_nodes_outside_the_chain_are_kept_in_order() -> None:
    model = decorated()
    found = {node.name: node for node in changed(model).graph.node}
    outside = [node for node in model.graph.node if node.name in ("before", "after", "other")]
    assert [found[node.name] for node in outside] == outside
    order = [node.name for node in changed(model).graph.node]
    assert [n for n in order if n in ("before", "after", "other")] == ["before", "after", "other"]


def test_layers_that_persist_keep_their_names_doc_strings_and_metadata() -> None:
    model = decorated()
    after = changed(model)
    assert [n.name for n in after.graph.node] == [n.name for n in model.graph.node]
    assert [list(n.output) for n in after.graph.node] == [list(n.output) for n in model.graph.node]
    assert [n.op_type for n in after.graph.node] == [n.op_type for n in model.graph.node]
    for before, now in zip(model.graph.node, after.graph.node, strict=True):
        assert before.doc_string == now.doc_string
        assert before.metadata_props == now.metadata_props
    names = [t.name for t in model.graph.initializer]
    assert [t.name for t in after.graph.initializer] == names


def test_unused_initializers_are_kept() -> None:
    model = decorated()
    assert changed(model).graph.initializer[0] == model.graph.initializer[0]


def test_declared_shapes_of_changed_tensors_are_corrected() -> None:
    after = changed(decorated())
    declared = {v.name: v for v in after.graph.value_info}
    bare = ModelProto()
    bare.CopyFrom(after)
    del bare.graph.value_info[:]
    inferred = {v.name: v for v in onnx.shape_inference.infer_shapes(bare).graph.value_info}
    assert declared.keys() == inferred.keys()
    for name, value in declared.items():
        assert value.type == inferred[name].type, name
    assert any(value.doc_string == "a value" for value in declared.values())


def test_declared_shapes_of_tensors_that_went_are_dropped() -> None:
    model = decorated()
    (located,) = locate_chains(model)
    layers = located.chain.layers
    first = layers[0].affine.rows(np.array([0]))
    short = Chain((Layer(first, True), Layer(Affine(np.ones((2, 1)), np.zeros(2)), False)))
    after = splice(model, [(located, short)])
    onnx.checker.check_model(after, full_check=True)
    made = {name for node in after.graph.node for name in node.output}
    assert {v.name for v in after.graph.value_info} <= made
    stored = {t.name for t in after.graph.initializer}
    read = {name for node in after.graph.node for name in node.input}
    assert stored - read == {"unused"}
    check_chain(after, located, short)


def test_layers_that_stay_the_same_keep_nodes_and_initializers_to_the_byte() -> None:
    model = decorated()
    (located,) = locate_chains(model)
    layers = list(located.chain.layers)
    bias = layers[1].affine.bias + 1.0
    layers[1] = Layer(Affine(layers[1].affine.weight, bias), True)
    after = splice(model, [(located, Chain(tuple(layers)))])
    for name in (*located.nodes[:2], located.nodes[-1]):
        before = next(n for n in model.graph.node if n.name == name)
        assert next(n for n in after.graph.node if n.name == name) == before
    same = [a == b for a, b in zip(model.graph.initializer, after.graph.initializer, strict=True)]
    assert same.count(False) == 1


def test_new_gemms_have_three_inputs_default_factors_and_transposed_weights() -> None:
    b = Builder()
    y = b.relu(b.node("Gemm", "x", b.weight(6, 5), alpha=2.0))
    y = b.relu(b.node("Gemm", y, b.weight(4, 5), b.weight(1), beta=0.5, transB=1))
    model = b.model([b.node("Gemm", y, b.weight(4, 2), b.weight(2))])
    after = changed(model)
    gemms = [node for node in after.graph.node if node.op_type == "Gemm"]
    assert len(gemms) == 3
    for node in gemms:
        values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        assert values == {"alpha": 1.0, "beta": 1.0, "transB": 1}
        assert len(node.input) == 3
    assert all(t.raw_data for t in after.graph.initializer)


def test_removed_units_leave_plain_weights_exact_to_the_bit() -> None:
    b = Builder()
    y = b.relu(b.gemm("x", 6, 5))
    model = b.model([b.gemm(y, 5, 2)])
    (located,) = locate_chains(model)
    keep = np.array([0, 2, 3])
    first, second = (layer.affine for layer in located.chain.layers)
    new = Chain(
        (
            Layer(Affine(first.weight[keep], first.bias[keep]), True),
            Layer(Affine(second.weight[:, keep], second.bias), False),
        )
    )
    after = splice(model, [(located, new)])
    before = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    now = {t.name: onnx.numpy_helper.to_array(t) for t in after.graph.initializer}
    assert np.array_equal(now["c0"], before["c0"][keep])
    assert np.array_equal(now["c1"], before["c1"][keep])
    assert np.array_equal(now["c2"], before["c2"][:, keep])
    # A bias that did not change may be stored again, but not as other numbers.
    assert np.array_equal(now["c3"], before["c3"])


def test_tied_weights_are_kept_for_the_others() -> None:
    b = Builder()
    shared = b.weight(6, 6)
    y = b.relu(b.node("MatMul", "x", shared))
    y = b.node("Softmax", b.relu(b.node("MatMul", y, shared)))
    z = b.node("MatMul", b.node("Transpose", shared), "z")
    model = b.model([y, z], {"x": ["batch", 6], "z": [6, 2]})
    check_model(model)
    after = changed(model)
    assert after.graph.initializer[0] == model.graph.initializer[0]
    names = [t.name for t in after.graph.initializer]
    assert len(names) == len(set(names)) == 3


def test_weights_tied_inside_a_chain_become_two() -> None:
    b = Builder()
    shared = b.weight(6, 6)
    y = b.relu(b.node("MatMul", "x", shared))
    y = b.relu(b.node("MatMul", y, shared))
    model = b.model([b.dense(y, 6, 2)])
    check_model(model)
    assert len(changed(model).graph.initializer) == 3


def test_ir_3_inputs_follow_the_initializers() -> None:
    b = Builder(ir=3, opset=8)
    y = b.relu(b.node("Add", b.dense("x", 6, 5), b.weight(5)))
    y = b.node("Add", b.dense(y, 5, 2), b.weight(2))
    model = b.model([y])
    after = changed(model)
    onnx.checker.check_model(after, full_check=True)
    declared = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in after.graph.input
        if v.name != "x"
    }
    assert declared == {t.name: list(t.dims) for t in after.graph.initializer}
    assert [v.name for v in after.graph.input] == [v.name for v in model.graph.input]
    (located,) = locate_chains(model)
    zero = Chain((Layer(Affine(np.zeros((2, 6)), np.ones(2)), False),))
    constant = splice(model, [(located, zero)])
    onnx.checker.check_model(constant, full_check=True)
    assert len(constant.graph.input) == 1 + len(constant.graph.initializer)


def test_constant_nodes_that_only_the_chain_read_go() -> None:
    b = Builder()
    value = onnx.numpy_helper.from_array(b.rng.normal(size=(6, 5)).astype(np.float32))
    shape = b.node("Constant", value_ints=[-1, 5])
    y = b.relu(b.node("MatMul", "x", b.node("Constant", value=value)))
    y = b.node("Reshape", y, shape)
    other = b.node("Reshape", "z", shape)
    model = b.model([b.gemm(y, 5, 2), other], {"x": ["batch", 6], "z": [5, 5]})
    check_model(model)
    ops = [node.op_type for node in changed(model).graph.node]
    assert ops.count("Constant") == 1


def test_folded_layer_takes_the_place_of_the_later_one() -> None:
    b = Builder()
    y = b.relu(b.gemm("x", 6, 5))
    y = b.relu(b.gemm(y, 5, 4))
    model = b.model([b.gemm(y, 4, 2)])
    (located,) = locate_chains(model)
    first, second, third = located.chain.layers
    product = Affine(
        second.affine.weight @ first.affine.weight,
        second.affine.weight @ first.affine.bias + second.affine.bias,
    )
    new = Chain((Layer(product, True), third))
    after = splice(model, [(located, new)])
    onnx.checker.check_model(after, full_check=True)
    assert [n.name for n in after.graph.node] == ["n2_Gemm", "n3_Relu", "n4_Gemm"]
    assert after.graph.node[2] == model.graph.node[4]
    check_chain(after, located, new)


def test_several_chains_are_replaced_at_once() -> None:
    b = Builder()
    shared = b.weight(5, 6)
    y = b.relu(b.node("Gemm", "x", shared, transB=1))
    y = b.node("Softmax", b.gemm(y, 5, 6))
    y = b.relu(b.node("Gemm", y, shared, transB=1))
    model = b.model([b.gemm(y, 5, 2)])
    check_model(model, count=2)
    found = locate_chains(model)
    after = splice(model, [(found[1], halved(found[1].chain))])
    assert after.graph.node[0] == model.graph.node[0]
    check_chain(after, found[0], found[0].chain)
    check_chain(after, found[1], halved(found[1].chain))


def test_new_nodes_stand_where_all_they_read_is_known() -> None:
    b = Builder()
    first = b.gemm("x", 6, 5)
    aside = b.node("Sigmoid", "x")
    y = b.relu(first)
    aside = b.node("Neg", aside)
    y = b.gemm(y, 5, 6)
    model = b.model([b.node("Add", y, aside)])
    check_model(model)


def test_fresh_names_avoid_those_in_use() -> None:
    b = Builder()
    y = b.relu(b.dense("x", 6, 5))
    model = b.model([b.dense(y, 5, 2)])
    taken = f"{model.graph.node[0].output[0]}_bias"
    model.graph.node.append(helper.make_node("Neg", ["x"], [taken], name="extra"))
    model.graph.output.append(helper.make_tensor_value_info(taken, TensorProto.FLOAT, ["batch", 6]))
    check_model(model)
    (located,) = locate_chains(model)
    shifted = Chain(
        tuple(
            Layer(Affine(layer.affine.weight, layer.affine.bias + 1.0), layer.relu)
            for layer in located.chain.layers
        )
    )
    after = splice(model, [(located, shifted)])
    onnx.checker.check_model(after, full_check=True)
    check_chain(after, located, shifted)


def test_chain_of_another_signature_is_refused() -> None:
    model = decorated()
    (located,) = locate_chains(model)
    wrong = Chain((Layer(Affine(np.ones((3, 6)), np.zeros(3)), False),))
    with pytest.raises(ValueError, match="in place of"):
        splice(model, [(located, wrong)])


def test_weight_that_overflows_the_storage_type_is_refused() -> None:
    b = Builder(dtype=np.float16)
    model = b.model([b.gemm(b.relu(b.gemm("x", 6, 5)), 5, 2)])
    (located,) = locate_chains(model)
    first, second = located.chain.layers
    large = Layer(Affine(first.affine.weight * 1e6, first.affine.bias), True)
    with pytest.raises(ValueError, match="overflows float16"):
        splice(model, [(located, Chain((large, second)))])


def test_same_input_gives_the_same_bytes() -> None:
    first, second = (changed(decorated()).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_rebuilt_float64_model_agrees_with_the_original() -> None:
    b = Builder(dtype=np.float64)
    model = b.model([b.gemm(b.relu(b.gemm("x", 6, 5)), 5, 2)])
    (located,) = locate_chains(model)
    after = splice(model, [(located, rescaled(located.chain))])
    feed = feed_for(model)
    assert_close(run(after, feed)[0], run(model, feed)[0], np.float64)


def siamese(factor: float) -> ModelProto:
    """One dense network for two inputs, the second of them a multiple of the first.

    Its second unit is never on where inputs are not negative.
    """
    rng = np.random.default_rng(3)
    constants = {
        "w": rng.normal(size=(5, 12)),
        "b": np.where(np.arange(12) == 1, -0.1, 0.0),
        "v": rng.normal(size=(12, 2)),
        "s": np.array(factor),
    }
    constants["w"][:, 1] = -1.0
    nodes = [helper.make_node("Mul", ["x", "s"], ["z"])]
    for source, made in (("x", "p"), ("z", "q")):
        nodes += [
            helper.make_node("Gemm", [source, "w", "b"], [f"g{made}"]),
            helper.make_node("Relu", [f"g{made}"], [f"h{made}"]),
            helper.make_node("MatMul", [f"h{made}", "v"], [made]),
        ]
    nodes.append(helper.make_node("Sub", ["p", "q"], ["y"]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size])
        for name, size in (("x", 5), ("y", 2))
    ]
    stored = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "siamese", ends[:1], ends[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("factor", [1.0, -1.0])
def test_chains_that_share_their_weights_do_not_make_a_model_grow(factor: float) -> None:
    model = siamese(factor)
    new, report = optimize(model, domain="0:1")
    before, after = (sum(int(np.prod(t.dims)) for t in m.graph.initializer) for m in (model, new))
    if report.changed:
        assert after < before
    else:
        assert any("shared with others" in refusal.reason for refusal in report.refused)
    assert report.changed is (factor == 1.0)
