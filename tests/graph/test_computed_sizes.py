"""Targets of a Reshape that a graph computes from shapes, and ranks that nobody declares."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto

from onnx_exact.graph import Ranges
from onnx_exact.graph.index import Index
from onnx_exact.graph.layout import Dim
from onnx_exact.network import Box
from tests.graph.build import Builder, check_model, run

Target = Callable[[Builder, str], str]


def first(b: Builder, x: str) -> str:
    """The size of the batch, as a vector of one entry."""
    return b.node(
        "Unsqueeze", b.node("Gather", b.node("Shape", x), b.constant(np.int64(0))), b.ints(0)
    )


def entry(b: Builder, x: str, place: int) -> str:
    return b.node("Gather", b.node("Shape", x), b.ints(place))


TARGETS: dict[str, Target] = {
    "[n, 6]": lambda b, x: b.node("Concat", first(b, x), b.ints(6), axis=0),
    "[n, -1]": lambda b, x: b.node("Concat", first(b, x), b.ints(-1), axis=0),
    "a slice and -1": lambda b, x: b.node(
        "Concat", b.node("Slice", b.node("Shape", x), b.ints(0), b.ints(1)), b.ints(-1), axis=0
    ),
    "a product of sizes": lambda b, x: b.node(
        "Concat", first(b, x), b.node("Mul", entry(b, x, 1), entry(b, x, 2)), axis=0
    ),
    "a quotient of sizes": lambda b, x: b.node(
        "Concat",
        first(b, x),
        b.node("Div", b.node("Mul", entry(b, x, 1), b.ints(6)), b.ints(2)),
        axis=0,
    ),
    "casts": lambda b, x: b.node(
        "Concat", b.node("Cast", b.node("Cast", first(b, x), to=6), to=7), b.ints(-1), axis=0
    ),
    "Shape with an end": lambda b, x: b.node(
        "Concat", b.node("Shape", x, end=1), b.ints(-1), axis=0
    ),
}


def flattened(name: str) -> tuple[ModelProto, str]:
    b = Builder(opset=15)
    x = b.node("Reshape", "x", TARGETS[name](b, "x"))
    return b.model([b.gemm(b.relu(b.gemm(x, 6, 5)), 5, 2)], {"x": ["n", 2, 3]}), x


@pytest.mark.parametrize("name", TARGETS)
def test_computed_reshape_keeps_the_box_entry_by_entry(name: str) -> None:
    model, tensor = flattened(name)
    low = np.arange(6.0).reshape(1, 2, 3)
    ranges = Ranges(model, {"x": Box(low, low + 1.0)})
    (chain,) = ranges.chains
    where = ranges.chain_domain(chain)
    assert where.box.lower.tolist() == list(range(6))
    assert where.origin is not None
    assert Index(model).shape(tensor) == (Dim(1, ("n",)), Dim(6))
    feed = {"x": np.random.default_rng(0).random((4, 2, 3), np.float32)}
    assert run(model, feed, [tensor])[0].shape == (4, 6)


def test_computed_reshape_that_mixes_rows_is_none_of_a_chain() -> None:
    b = Builder(opset=15)
    turned = b.node("Concat", b.ints(-1), entry(b, "x", 0), axis=0)
    x = b.node("Reshape", "x", turned)
    model = b.model([b.node("MatMul", b.weight(2, 6), x)], {"x": ["n", 6]}, check=False)
    assert Index(model).shape(x) == (Dim(6), Dim(1, ("n",)))


def test_fixed_sizes_that_are_computed_tell_inference_what_follows() -> None:
    b = Builder(opset=9)
    shape = b.node("Shape", b.relu("x"))
    count = b.node("Unsqueeze", b.node("Gather", shape, b.constant(np.int64(0))), axes=[0])
    target = b.node(
        "Concat", count, b.node("Unsqueeze", b.constant(np.int64(-1)), axes=[0]), axis=0
    )
    x = b.node("Reshape", "x", target)
    model = b.model([b.gemm(x, 6, 2)], {"x": [1, 2, 3]}, check=False)
    assert Index(model).shape(x) == (Dim(1), Dim(6))


@pytest.mark.parametrize("declared", [None, ["n", None], ["n", 6]])
def test_rank_of_an_input_follows_from_that_of_the_output(declared: list[int | str] | None) -> None:
    b = Builder()
    y = b.node("Add", b.dense("x", 6, 5), b.weight(5))
    y = b.node("Add", b.dense(b.relu(y), 5, 3), b.weight(3))
    model = b.model([y])
    kind = model.graph.input[0].type.tensor_type
    if declared is None:
        kind.ClearField("shape")
    elif declared[1] is None:
        kind.shape.dim[1].Clear()
    index = Index(model)
    shape = index.shape("x")
    assert shape is not None
    assert [dim.size for dim in shape if dim.static] == [6]
    (chain,) = check_model(model) if declared else Ranges(model, {}).chains
    assert chain.chain.relu_units == 5


def test_rank_that_nothing_tells_is_not_guessed() -> None:
    b = Builder()
    model = b.model([b.dense(b.relu(b.dense("x", 6, 5)), 5, 3)])
    model.graph.input[0].type.tensor_type.ClearField("shape")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert Index(model).shape("x") is None
    assert Ranges(model, {}).chains == ()
