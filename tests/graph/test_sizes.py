"""Sizes that the first weight tells, and sizes that a file has wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from onnx import ModelProto, helper

from onnx_exact.errors import DomainError, ModelError
from onnx_exact.graph import inputs_of
from onnx_exact.pipeline import analyze, optimize
from tests.graph.build import Builder, run

Sizes = Sequence[int | str | None]


def with_input(model: ModelProto, sizes: Sizes | None) -> ModelProto:
    """The model with other declared sizes of its input: None is not known, neither is -1."""
    tensor = model.graph.input[0].type.tensor_type
    tensor.ClearField("shape")
    for size in sizes or ():
        dim = tensor.shape.dim.add()
        if isinstance(size, int):
            dim.dim_value = size
        elif size is not None:
            dim.dim_param = size
    return model


def mlp(front: str = "") -> ModelProto:
    b = Builder()
    x = b.node(front, "x") if front else "x"
    y = b.gemm(b.relu(b.gemm(x, 6, 8)), 8, 2)
    for tensor, scale in zip(b.initializers[:2], (1.0, -9.0), strict=True):
        values = np.frombuffer(tensor.raw_data, np.float32)
        tensor.raw_data = (np.abs(values) * scale if scale < 0 else values).tobytes()
    return b.model([y])


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ([None, None], (None, 6)),
        (["n", "features"], (None, 6)),
        ([-1, 6], (None, 6)),
        ([-1, -1], (None, 6)),
        ([3, None], (3, 6)),
        (None, (None, 6)),
        (["n", 6], (None, 6)),
    ],
)
@pytest.mark.parametrize("front", ["", "Tanh", "Identity"])
def test_first_weight_tells_the_sizes(
    sizes: Sizes | None, told: tuple[int | None, ...], front: str
) -> None:
    model = with_input(mlp(front), sizes)
    (spec,) = inputs_of(model)
    assert spec.shape == told
    new, report = optimize(model, domain="0:1")
    assert report.totals.units_after == 0 or report.totals.units_after < report.totals.units_before
    assert new.graph.input == model.graph.input
    feed = {"x": np.random.default_rng(0).random((3, 6), np.float32)}
    np.testing.assert_allclose(run(new, feed)[0], run(model, feed)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("op", "shape", "weight", "told"),
    [
        ("MatMul", [None, None], (6, 3), (None, 6)),
        ("MatMul", [None, None, None], (6, 3), (None, None, 6)),
        ("MatMul", [None, None, None], (1, 6, 3), (None, None, 6)),
        ("Conv", [None, None, None, None], (4, 3, 1, 1), (None, 3, None, None)),
        ("ConvTranspose", [None, None, None], (3, 4, 1), (None, 3, None)),
    ],
)
def test_weights_of_other_operators_tell_sizes_too(
    op: str, shape: Sizes, weight: tuple[int, ...], told: tuple[int | None, ...]
) -> None:
    b = Builder()
    model = b.model([b.node(op, "x", b.weight(*weight))], {"x": [7] * len(shape)}, check=False)
    assert inputs_of(with_input(model, shape))[0].shape == told


def test_constant_on_the_left_tells_the_last_size_but_one() -> None:
    b = Builder()
    model = b.model([b.node("MatMul", b.weight(3, 6), "x")], {"x": [6, 2]})
    assert inputs_of(with_input(model, [None, None]))[0].shape == (6, None)


@pytest.mark.parametrize("front", ["", "Tanh"])
def test_size_that_is_declared_is_never_overruled_and_is_refused_where_it_cannot_be(
    front: str,
) -> None:
    model = with_input(mlp(front), [None, 5])
    assert inputs_of(model)[0].shape == (None, 5)
    with pytest.raises(ModelError, match="has the size 5 where a weight says 6"):
        optimize(model, domain="0:1")


def test_vector_that_is_added_tells_nothing() -> None:
    """One entry would do as well: it is repeated."""
    b = Builder()
    model = b.model([b.gemm(b.node("Add", "x", b.weight(6)), 6, 2)])
    assert inputs_of(with_input(model, [None, None]))[0].shape == (None, None)


@pytest.mark.parametrize("size", [4, 9, 28])
def test_height_and_width_may_be_of_any_size(size: int) -> None:
    """The dense layers behind say which sizes there are; they are found by trying."""
    b = Builder()
    y = b.node("Flatten", b.node("Conv", "x", b.weight(2, 1, 1, 1)))
    y = b.gemm(b.relu(b.gemm(y, 2 * size * size, 4)), 4, 2)
    model = b.model([y], {"x": [1, 1, size, size]})
    _, report = optimize(with_input(model, ["n", 1, "height", "width"]), domain="0:1")
    assert report.totals.units_before == 4


@pytest.mark.parametrize("rows", [300, 2**31, 2**40])
def test_one_row_stands_for_a_batch_of_any_size(rows: int) -> None:
    model = with_input(mlp(), [rows, 6])
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = rows
    new, report = optimize(model, domain="0:1")
    assert report.changed
    assert report.domain == {"x": {"lower": 0.0, "upper": 1.0}}
    assert report.deviation is not None
    assert new.graph.output == model.graph.output


def test_box_with_a_bound_for_every_row_is_still_one() -> None:
    model = with_input(mlp(), [2, 6])
    upper = np.arange(1.0, 13.0).reshape(2, 6)
    report = analyze(model, domain={"x": (np.zeros((2, 6)), upper)})
    assert report.domain["x"]["upper"] == upper.tolist()


def test_unknown_size_in_front_of_a_slice_does_not_end_the_process() -> None:
    """Shape inference aborts at it: std::clamp between 0 and the size less one."""
    b = Builder()
    ends = [b.ints(v) for v in (-1, -7, 1, -1)]
    model = b.model([b.gemm(b.relu(b.gemm(b.node("Slice", "x", *ends), 6, 4)), 4, 2)])
    _, report = optimize(with_input(model, ["n", -1]), domain="0:1")
    assert report.totals.units_before == 4


def test_input_with_more_entries_than_can_be_held_is_refused() -> None:
    b = Builder()
    model = b.model([b.node("Relu", "x")], {"x": [1, 2**20, 2**20]}, check=False)
    for domain in ("0:1", None):
        with pytest.raises(DomainError, match="cannot be held"):
            optimize(model, domain=domain)


def test_size_behind_a_flatten_follows_from_the_weight_and_the_sizes_beside_it() -> None:
    model = with_input(mlp("Flatten"), [None, 2, None])
    assert inputs_of(model)[0].shape == (None, 2, 3)
    assert inputs_of(with_input(mlp("Flatten"), [None, 4, None]))[0].shape == (None, 4, None)
    assert inputs_of(with_input(mlp("Flatten"), [None, None, None]))[0].shape == (None,) * 3


def test_weight_of_a_constant_node_tells_the_sizes() -> None:
    model = with_input(mlp(), [None, None])
    tensor = next(t for t in model.graph.initializer if len(t.dims) == 2)
    made = helper.make_node("Constant", [], [tensor.name], value=tensor)
    model.graph.initializer.remove(tensor)
    nodes = [made, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert inputs_of(model)[0].shape == (None, 6)
