"""Where chains start and end in a graph."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnx_exact.graph import locate_chains
from tests.graph.build import Builder, check_model
from tests.versions import needs_new_onnx


def widths(model: onnx.ModelProto) -> list[list[int]]:
    return [[layer.width for layer in c.chain.layers] for c in locate_chains(model)]


def test_chain_ends_at_a_branch_and_both_sides_are_chains() -> None:
    b = Builder()
    shared = b.relu(b.gemm("x", 6, 5))
    left = b.gemm(b.relu(b.gemm(shared, 5, 4)), 4, 2)
    right = b.gemm(b.relu(b.gemm(shared, 5, 3)), 3, 2)
    check_model(b.model([b.node("Add", left, right)]), count=3)


def test_chain_ends_at_a_graph_output_in_its_middle() -> None:
    b = Builder()
    middle = b.relu(b.gemm("x", 6, 5))
    end = b.gemm(b.relu(b.gemm(middle, 5, 4)), 4, 2)
    found = check_model(b.model([middle, end]), count=2)
    assert [c.output for c in found] == [middle, end]


def test_relu_on_a_graph_output_is_the_last_of_its_chain() -> None:
    b = Builder()
    y = b.relu(b.gemm(b.relu(b.gemm("x", 6, 5)), 5, 2))
    (located,) = check_model(b.model([y]))
    assert located.output == y
    assert [layer.relu for layer in located.chain.layers] == [True, True]


def test_chain_ends_where_a_subgraph_reads_a_tensor_of_the_outer_scope() -> None:
    b = Builder()
    first = b.relu(b.gemm("x", 6, 5))
    middle = b.relu(b.gemm(first, 5, 4))
    end = b.gemm(middle, 4, 2)
    branches = {}
    for key in ("then_branch", "else_branch"):
        node = helper.make_node("Neg" if key == "then_branch" else "Abs", [first], [key])
        value = helper.make_tensor_value_info(key, TensorProto.FLOAT, ["n", "m"])
        branches[key] = helper.make_graph([node], key, [], [value])
    y = b.node("If", b.constant(np.array(True)), **branches)
    found = check_model(b.model([end, y]), count=2)
    assert [len(c.chain.layers) for c in found] == [1, 2]
    assert found[0].output == first


def test_names_inside_a_subgraph_that_shadow_nothing_do_not_end_a_chain() -> None:
    b = Builder()
    y = b.gemm(b.relu(b.gemm("x", 6, 5)), 5, 2)
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["own"], value_float=1.0)],
        "inner",
        [],
        [helper.make_tensor_value_info("own", TensorProto.FLOAT, [])],
    )
    z = b.node("If", b.constant(np.array(True)), then_branch=inner, else_branch=inner)
    check_model(b.model([y, z]))


def test_loop_body_is_left_alone_and_what_it_reads_is_kept() -> None:
    b = Builder()
    hidden = b.relu(b.gemm("x", 6, 5))
    y = b.gemm(hidden, 5, 2)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Relu", [hidden], ["positive"]),
            helper.make_node("ReduceSum", ["positive"], ["part"], keepdims=0),
            helper.make_node("Add", ["sum", "part"], ["sum_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_out", TensorProto.FLOAT, []),
        ],
    )
    z = b.node("Loop", b.ints(2), "", b.constant(np.float32(0)), body=body)
    model = b.model([y, b.node("Reshape", z, b.ints(1))])
    (located,) = check_model(model)
    assert located.output == hidden


def test_weight_that_a_subgraph_reads_too_is_kept_under_its_name() -> None:
    from onnx_exact.graph import splice
    from tests.graph.build import halved

    b = Builder()
    hidden = b.relu(b.node("Gemm", "x", b.weight(6, 5), b.weight(5)))
    y = b.gemm(hidden, 5, 2)
    value = helper.make_tensor_value_info("w", TensorProto.FLOAT, [6, 5])
    inner = helper.make_graph([helper.make_node("Identity", ["c0"], ["w"])], "g", [], [value])
    z = b.node("If", b.constant(np.array(True)), then_branch=inner, else_branch=inner)
    model = b.model([y, z])
    (located,) = check_model(model)
    changed = splice(model, [(located, halved(located.chain))])
    kept = next(t for t in changed.graph.initializer if t.name == "c0")
    assert kept == model.graph.initializer[0]


def test_several_chains_in_one_graph_are_found_in_order() -> None:
    b = Builder()
    y = b.gemm(b.relu(b.gemm("x", 6, 5)), 5, 4)
    y = b.node("Softmax", y)
    y = b.gemm(b.relu(b.gemm(y, 4, 3)), 3, 2)
    model = b.model([y])
    check_model(model, count=2)
    assert widths(model) == [[5, 4], [3, 2]]


def test_lone_gemm_is_no_chain_and_two_in_a_row_are() -> None:
    b = Builder()
    assert locate_chains(b.model([b.gemm("x", 6, 5)])) == ()
    b = Builder()
    y = b.gemm(b.gemm("x", 6, 2), 2, 5)
    model = b.model([y])
    check_model(model)
    assert widths(model) == [[2, 5]]


def test_affine_maps_in_a_row_fold_where_the_product_is_no_larger() -> None:
    b = Builder()
    y = b.relu(b.gemm(b.gemm("x", 6, 9), 9, 5))
    model = b.model([b.gemm(y, 5, 2)])
    check_model(model)
    assert widths(model) == [[5, 2]]


def test_affine_maps_in_a_row_stay_apart_where_the_product_is_larger() -> None:
    b = Builder()
    y = b.relu(b.gemm(b.gemm("x", 6, 2), 2, 5))
    model = b.model([b.gemm(y, 5, 2)])
    (located,) = check_model(model)
    assert widths(model) == [[2, 5, 2]]
    assert [layer.relu for layer in located.chain.layers] == [False, True, False]


def test_operations_per_unit_behind_the_last_relu_are_not_taken_in() -> None:
    b = Builder()
    y = b.relu(b.gemm(b.relu(b.gemm("x", 6, 5)), 5, 4))
    y = b.node("Mul", y, b.weight(4))
    (located,) = check_model(b.model([y]))
    assert located.nodes[-1] == "n3_Relu"


def test_operations_per_unit_between_relus_end_the_chain_and_the_next_one_starts_behind() -> None:
    b = Builder()
    y = b.relu(b.node("Mul", b.relu(b.gemm("x", 6, 5)), b.weight(5)))
    y = b.gemm(b.relu(b.gemm(y, 5, 4)), 4, 2)
    model = b.model([y])
    check_model(model, count=2)
    assert widths(model) == [[5], [4, 2]]


def test_regrouping_at_the_end_is_not_taken_in() -> None:
    b = Builder()
    y = b.gemm(b.relu(b.gemm("x", 6, 5)), 5, 4)
    y = b.node("Reshape", y, b.ints(-1, 2, 2))
    (located,) = check_model(b.model([y]))
    assert located.nodes[-1] == "n2_Gemm"


def test_leading_normalisation_is_not_part_of_the_chain() -> None:
    b = Builder()
    y = b.node("Flatten", b.node("Div", b.node("Sub", "x", b.weight(1)), b.positive(1)))
    y = b.gemm(b.relu(b.gemm(y, 6, 5)), 5, 2)
    (located,) = check_model(b.model([y], {"x": ["batch", 1, 2, 3]}))
    assert located.nodes[0] == "n3_Gemm"


def test_features_over_several_axes_between_layers_are_rebuilt() -> None:
    b = Builder()
    y = b.node("Reshape", b.gemm("x", 6, 8), b.ints(0, 2, 4))
    y = b.node("Add", b.relu(y), b.weight(2, 4))
    y = b.gemm(b.node("Flatten", y), 8, 2)
    check_model(b.model([y]))


def test_output_over_several_axes_keeps_its_shape() -> None:
    b = Builder()
    y = b.gemm(b.relu(b.gemm("x", 6, 5)), 5, 8)
    y = b.relu(b.node("Reshape", y, b.ints(-1, 1, 2, 4)))
    check_model(b.model([y]))


def test_leading_axes_may_be_merged_on_the_way() -> None:
    b = Builder()
    y = b.relu(b.dense("x", 6, 5))
    y = b.node("Reshape", y, b.ints(-1, 5))
    y = b.gemm(y, 5, 2)
    check_model(b.model([y], {"x": ["batch", "time", 6]}))


def test_rows_turned_into_columns_by_a_gemm_are_rebuilt() -> None:
    b = Builder()
    y = b.relu(b.gemm("x", 6, 5))
    y = b.relu(b.node("Gemm", b.weight(4, 5), y, transB=1))
    check_model(b.model([b.node("MatMul", b.weight(3, 4), y)]))


def test_custom_operators_and_functions_pass_through() -> None:
    b = Builder()
    y = b.relu(b.gemm("x", 6, 5))
    y = b.node("Gemm", y, b.weight(5, 5), domain="custom.ops")
    y = b.node("Softmax", b.relu(b.dense(y, 5, 4)))
    model = b.model([y], check=False)
    model.opset_import.add(domain="custom.ops", version=1)
    assert [c.nodes[0] for c in locate_chains(model)] == ["n0_Gemm"]
    shaped = onnx.ModelProto()
    shaped.CopyFrom(model)
    shaped.graph.value_info.append(
        helper.make_tensor_value_info("t2", TensorProto.FLOAT, ["batch", 5])
    )
    assert [c.nodes[0] for c in locate_chains(shaped)] == ["n0_Gemm", "n3_MatMul"]


def test_model_local_function_of_a_standard_name_is_a_barrier() -> None:
    b = Builder()
    y = b.relu(b.gemm("x", 6, 5))
    model = b.model([b.gemm(y, 5, 2)])
    negated = helper.make_function(
        "", "Relu", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], model.opset_import
    )
    model.functions.append(negated)
    assert locate_chains(model) == ()


def test_nodes_without_names_are_named_by_their_outputs() -> None:
    b = Builder()
    y = b.gemm(b.relu(b.gemm("x", 6, 5)), 5, 2)
    model = b.model([y])
    for node in model.graph.node:
        node.name = ""
    (located,) = check_model(model)
    assert located.nodes == ("t0", "t1", "t2")
    assert located.name == "t0..t2"


def test_chains_of_equal_node_names_get_different_names() -> None:
    b = Builder()
    y = b.node("Softmax", b.relu(b.gemm("x", 6, 5)))
    b.relu(b.gemm(y, 5, 2))
    model = b.model(["t4"])
    for node in model.graph.node:
        node.name = node.op_type
    names = [c.name for c in locate_chains(model)]
    assert len(set(names)) == 2


@needs_new_onnx
def test_default_domain_may_be_written_out() -> None:
    b = Builder()
    y = b.gemm(b.relu(b.gemm("x", 6, 5)), 5, 2)
    model = b.model([y])
    model.opset_import[0].domain = "ai.onnx"
    onnx.checker.check_model(model, full_check=True)
    check_model(model)


def test_stale_declared_shapes_do_not_mislead() -> None:
    b = Builder()
    y = b.relu(b.dense("x", 6, 5))
    y = b.dense(b.node("Reshape", y, b.ints(-1, 5)), 5, 2)
    model = b.model([y], {"x": ["batch", "time", 6]})
    stale = helper.make_tensor_value_info("t1", TensorProto.FLOAT, [7, 5])
    model.graph.value_info.append(stale)
    (located,) = locate_chains(model)
    assert [str(dim.symbols) for dim in located.sites[0].layout_out.lead] == [
        "('batch',)",
        "('time',)",
    ]


def test_large_shapeless_weights_do_not_hide_shapes() -> None:
    b = Builder()
    y = b.relu(b.dense("x", 60, 50))
    y = b.node("Flatten", b.node("Reshape", y, b.ints(0, 5, 10)))
    model = b.model([b.dense(y, 50, 2)], {"x": ["batch", 60]})
    (located,) = check_model(model)
    assert widths(model) == [[50, 2]]
    assert located.dtype == np.float32
