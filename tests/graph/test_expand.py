"""Functions of a model's own and branches: what is in them is known, and none of it is written."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_exact import optimize
from onnx_exact.graph import Ranges
from onnx_exact.graph.expand import JOIN, expanded
from onnx_exact.graph.index import Index
from onnx_exact.network import Box
from tests.graph.build import Builder, run

OPSETS = [helper.make_opsetid("", 13)]
UNIT = {"x": Box(np.zeros((1, 6)), np.ones((1, 6)))}


def branch(name: str, nodes: list[NodeProto], *stored: TensorProto) -> object:
    output = nodes[-1].output[0]
    value = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    value.type.tensor_type.ClearField("shape")
    return helper.make_graph(nodes, name, [], [value], list(stored))


def chosen(
    b: Builder, condition: str, x: str, then: list[NodeProto], other: list[NodeProto]
) -> str:
    stored = numpy_helper.from_array(np.float32(2.0), "factor")
    return b.node(
        "If",
        condition,
        then_branch=branch("then", then, stored),
        else_branch=branch("else", other),
    )


def two_ways(b: Builder, condition: str, x: str = "x") -> str:
    """2 x or -x, by a condition."""
    then = [helper.make_node("Mul", [x, "factor"], ["inner"])]
    return chosen(b, condition, x, then, [helper.make_node("Neg", [x], ["inner"])])


def flag(b: Builder) -> str:
    """A condition that depends on x."""
    total = b.node("ReduceSum", "x", keepdims=0)
    return b.node("Greater", total, b.constant(np.float32(3.0)))


def test_interval_of_a_branch_holds_both_ways() -> None:
    b = Builder()
    y = two_ways(b, flag(b))
    model = b.model([y], check=False)
    box = Ranges(model, UNIT).of(y)
    assert box.lower.min() == -1.0
    assert box.upper.max() == 2.0
    for seed in range(20):
        x = np.random.default_rng(seed).random((3, 6), np.float32)
        (found,) = run(model, {"x": x})
        assert (found >= box.lower).all()
        assert (found <= box.upper).all()


@pytest.mark.parametrize(("way", "ends"), [(True, (0.0, 2.0)), (False, (-1.0, 0.0))])
def test_condition_that_is_known_leaves_one_way(way: bool, ends: tuple[float, float]) -> None:
    b = Builder()
    y = two_ways(b, b.constant(np.asarray(way)))
    box = Ranges(b.model([y], check=False), UNIT).of(y)
    assert (box.lower.min(), box.upper.max()) == ends


def test_branches_in_branches_are_looked_into() -> None:
    b = Builder()
    condition = flag(b)
    inner = helper.make_node(
        "If",
        [condition],
        ["deep"],
        then_branch=branch("t", [helper.make_node("Sigmoid", ["x"], ["way"])]),
        else_branch=branch("e", [helper.make_node("Tanh", ["x"], ["way"])]),
    )
    y = chosen(b, condition, "x", [inner], [helper.make_node("Neg", ["x"], ["deep"])])
    box = Ranges(b.model([y], check=False), UNIT).of(y)
    assert -1.00001 < box.lower.min() <= -1.0
    assert 0.7 < box.upper.max() < 1.00001


def test_chain_behind_a_branch_has_the_domain_of_both_ways() -> None:
    b = Builder()
    y = b.gemm(b.relu(b.gemm(two_ways(b, flag(b)), 6, 5)), 5, 2)
    ranges = Ranges(b.model([y], check=False), UNIT)
    (chain,) = ranges.chains
    box = ranges.chain_domain(chain).box
    assert box.lower.tolist() == [-1.0] * 6
    assert box.upper.tolist() == [2.0] * 6


def test_branches_of_other_sizes_have_the_bounds_of_all_entries() -> None:
    b = Builder()
    axis = numpy_helper.from_array(np.array([0]), "axis")
    then = branch("then", [helper.make_node("ReduceSum", ["x", "axis"], ["inner"])], axis)
    other = branch("else", [helper.make_node("Identity", ["x"], ["inner"])])
    y = b.node("If", flag(b), then_branch=then, else_branch=other)
    total = b.node("ReduceSum", y, b.ints(0), keepdims=0)
    model = b.model([total], {"x": [3, 6]}, check=False)
    domain = {"x": Box(np.zeros((3, 6)), np.ones((3, 6)))}
    ranges = Ranges(model, domain)
    assert ranges.of(y).upper.max() >= 3.0
    # How many rows are added is not known.
    assert not ranges.of(total).finite


def with_function(model: ModelProto, name: str, nodes: list[NodeProto]) -> ModelProto:
    model.opset_import.append(helper.make_opsetid("my", 1))
    function = helper.make_function("my", name, ["a"], [nodes[-1].output[0]], nodes, OPSETS)
    model.functions.append(function)
    return model


def test_function_of_the_models_own_is_looked_into() -> None:
    b = Builder()
    x = b.node("Squash", b.node("Neg", "x"), domain="my")
    y = b.gemm(b.relu(b.gemm(x, 6, 5)), 5, 2)
    nodes = [helper.make_node("Abs", ["a"], ["t"]), helper.make_node("Sqrt", ["t"], ["z"])]
    model = with_function(b.model([y], check=False), "Squash", nodes)
    ranges = Ranges(model, UNIT)
    (chain,) = ranges.chains
    box = ranges.chain_domain(chain).box
    assert box.lower.tolist() == [0.0] * 6
    assert box.upper.tolist() == [1.0] * 6


def test_names_in_branches_do_not_meet_those_of_the_graph() -> None:
    b = Builder()
    b.node("Sigmoid", "x", outputs=["inner"])
    y = two_ways(b, flag(b))
    model = b.model([y, "inner"], check=False)
    box = Ranges(model, UNIT).of("inner")
    assert box.lower.min() > 0.4
    index = expanded(Index(model))
    made = [output for node in index.nodes for output in node.output]
    assert len(made) == len(set(made))
    assert JOIN in {index.operator(node) for node in index.nodes}


def test_what_is_written_keeps_functions_and_branches() -> None:
    b = Builder()
    x = b.node("Same", two_ways(b, flag(b)), domain="my")
    dead = b.constant(np.float32([-99, -99, 0, 0, 0]))
    y = b.gemm(b.relu(b.node("Gemm", x, b.weight(5, 6), dead, transB=1)), 5, 2)
    nodes = [helper.make_node("Identity", ["a"], ["z"])]
    model = with_function(b.model([y], check=False), "Same", nodes)
    for value in model.graph.output:
        value.type.tensor_type.shape.dim.add()
        value.type.tensor_type.shape.dim.add()
    new, report = optimize(model, domain="0:1")
    assert report.changed
    assert list(new.functions) == list(model.functions)
    assert [n for n in new.graph.node if n.op_type == "If"] == [
        n for n in model.graph.node if n.op_type == "If"
    ]
    feed = {"x": np.random.default_rng(0).random((4, 6), np.float32)}
    np.testing.assert_allclose(run(new, feed)[0], run(model, feed)[0], atol=1e-5)
