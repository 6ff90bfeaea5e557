"""Nodes are sorted without moving what need not move."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import GraphProto, ModelProto, helper

from onnx_exact.graph import read_model
from onnx_exact.graph.order import sort_nodes
from onnx_exact.pipeline import optimize
from tests.graph.build import Builder, run


def mlp() -> ModelProto:
    b = Builder()
    return b.model([b.gemm(b.relu(b.gemm("x", 6, 8)), 8, 2)])


@st.composite
def graphs(draw: st.DrawFn) -> GraphProto:
    """Nodes that read what nodes before them made, in any order."""
    count = draw(st.integers(1, 8))
    nodes = []
    for i in range(count):
        read = draw(st.lists(st.integers(0, i - 1), max_size=3)) if i else []
        nodes.append(helper.make_node("Op", [f"t{r}" for r in read], [f"t{i}"], name=str(i)))
    return helper.make_graph(draw(st.permutations(nodes)), "g", [], [])


@given(graphs())
@settings(max_examples=200, deadline=None)
def test_sorted_nodes_are_the_same_and_each_comes_behind_what_it_reads(graph: GraphProto) -> None:
    before = sorted(node.name for node in graph.node)
    assert sort_nodes(graph)
    assert sorted(node.name for node in graph.node) == before
    made: set[str] = set()
    for node in graph.node:
        assert made.issuperset(node.input)
        made.update(node.output)
    order = [node.name for node in graph.node]
    assert sort_nodes(graph)
    assert [node.name for node in graph.node] == order


def test_circle_is_left_as_it_is() -> None:
    nodes = [helper.make_node("Op", [a], [b]) for a, b in (("p", "q"), ("q", "p"))]
    graph = helper.make_graph(nodes, "g", [], [])
    assert not sort_nodes(graph)
    assert list(graph.node) == nodes


def test_what_a_branch_reads_comes_before_it() -> None:
    branch = helper.make_graph([helper.make_node("Neg", ["late"], ["inner"])], "b", [], [])
    nodes = [
        helper.make_node("If", ["c"], ["o"], then_branch=branch, else_branch=branch),
        helper.make_node("Abs", ["x"], ["late"]),
    ]
    graph = helper.make_graph(nodes, "g", [], [])
    assert sort_nodes(graph)
    assert [node.op_type for node in graph.node] == ["Abs", "If"]


def odd() -> dict[str, ModelProto]:
    """Models that onnxruntime runs and the ONNX checker does not let pass."""
    unsorted = mlp()
    nodes = list(unsorted.graph.node)[::-1]
    unsorted.graph.ClearField("node")
    unsorted.graph.node.extend(nodes)
    no_shape = mlp()
    no_shape.graph.output[0].type.tensor_type.ClearField("shape")
    wrong_rank = mlp()
    wrong_rank.graph.output[0].type.tensor_type.shape.dim.add(dim_value=3)
    wrong_size = mlp()
    wrong_size.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    return {
        "unsorted": unsorted,
        "no_shape": no_shape,
        "wrong_rank": wrong_rank,
        "wrong_size": wrong_size,
    }


@pytest.mark.parametrize("name", odd())
def test_model_that_only_the_checker_minds_is_read_with_a_warning(name: str) -> None:
    model = odd()[name]
    source = read_model(model)
    (warning,) = source.warnings
    assert "\n" not in warning
    new, report = optimize(model, domain="-1:0")
    assert warning in report.warnings
    assert list(new.graph.output) == list(model.graph.output)
    feed = {"x": -np.random.default_rng(0).random((3, 6), np.float32)}
    np.testing.assert_allclose(run(new, feed)[0], run(mlp(), feed)[0], atol=1e-5)


def test_model_that_nobody_minds_has_no_warning() -> None:
    assert read_model(mlp()).warnings == ()
