"""Intervals where types end: rounding, overflow, casts, unknown types, tensors without entries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnx_exact.graph import Ranges
from onnx_exact.network import Box
from tests.graph.build import Builder, box_of, run


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_bounds_that_are_no_numbers_of_the_type_stay_where_nothing_rounds(dtype: Any) -> None:
    b = Builder(dtype=dtype)
    zero, half, minus = (b.constant(np.array([v], dtype)) for v in (0, 0.5, -1))
    y = b.node("Div", b.node("Mul", b.node("Sub", b.node("Add", "x", zero), zero), half), minus)
    third = Box(np.full((1, 6), -0.1), np.full((1, 6), 1.0 / 3.0))
    found = Ranges(b.model([b.node("Relu", y)]), {"x": third}).of(y)
    assert (found.lower == -1.0 / 6.0).all()
    assert (found.upper == 0.05).all()


def test_arithmetic_with_axes_of_its_own_has_no_interval() -> None:
    b = Builder(opset=6)
    y = b.node("Add", "x", b.weight(3), broadcast=1, axis=1)
    model = b.model([y], {"x": [2, 3, 4]}, check=False)
    assert not Ranges(model, {"x": Box(np.zeros((1, 1, 1)), np.ones((1, 1, 1)))}).of(y).finite


def test_zero_times_what_may_overflow_is_unknown() -> None:
    b = Builder()
    large = b.node("Mul", "x", b.constant(np.array([3e38], np.float32)))
    larger = b.node("Mul", large, b.constant(np.array([10.0], np.float32)))
    product = b.node("Mul", larger, b.constant(np.array([0.0], np.float32)))
    sums_of_products = b.node("MatMul", larger, b.constant(np.zeros((6, 2), np.float32)))
    difference = b.node("Sub", larger, larger)
    made = [larger, product, sums_of_products, difference]
    model = b.model(made)
    ranges = Ranges(model, {"x": Box(np.zeros((1, 6)), np.ones((1, 6)))})
    assert (ranges.of(larger).lower == 0.0).all()
    assert (ranges.of(larger).upper == np.inf).all()
    (overflowing, *undefined) = run(model, {"x": np.ones((1, 6), np.float32)}, made)
    assert np.isinf(overflowing).all()
    for name, value in zip(made[1:], undefined, strict=True):
        assert np.isnan(value).all()
        assert (ranges.of(name).lower == -np.inf).all()
        assert (ranges.of(name).upper == np.inf).all()


def test_nothing_times_an_unbounded_input_is_zero() -> None:
    b = Builder()
    y = b.node("MatMul", "x", b.constant(np.zeros((6, 2), np.float32)))
    box = Ranges(b.model([y]), {}).of(y)
    assert (box.lower == 0.0).all()
    assert (box.upper == 0.0).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_a_tensor_without_entries_leaves_the_bounds_of_what_it_is_joined_to(axis: int) -> None:
    b = Builder()
    empty = b.constant(np.zeros((0, 6) if axis == 0 else (1, 0), np.float32))
    if axis == 0:
        empty = b.node("Relu", b.node("Gather", empty, b.ints(), axis=0))
    y = b.node("Concat", "x", empty, axis=axis)
    box = box_of([1, 6])
    found = Ranges(b.model([y], {"x": [1, 6]}), {"x": box}).of(y)
    assert np.array_equal(found.lower, box.lower)
    assert np.array_equal(found.upper, box.upper)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Relu", {}),
        ("Softmax", {}),
        ("Flatten", {}),
        ("Transpose", {}),
        ("GlobalMaxPool", {}),
        ("GlobalAveragePool", {}),
        ("MaxPool", {"kernel_shape": [1]}),
        ("ReduceMax", {"axes": [0]}),
        ("ReduceMean", {"axes": [0]}),
        ("ReduceSum", {}),
    ],
)
def test_operators_on_tensors_without_entries_say_nothing(
    op: str, attributes: dict[str, Any]
) -> None:
    b = Builder()
    y = b.node(op, b.constant(np.zeros((0, 3, 2), np.float32)), **attributes)
    found = Ranges(b.model([y], {"x": [1]}), {}).of(y)
    assert not found.lower.size or not found.finite


def test_sigmoid_is_not_zero_where_exp_overflows() -> None:
    b = Builder(dtype=np.float64)
    y = b.node("Sigmoid", "x")
    found = Ranges(b.model([y]), {"x": Box(np.full((1, 6), -725.0), np.full((1, 6), -710.0))}).of(y)
    assert (found.lower == 0.0).all()
    assert (found.upper > 0.0).all()


@pytest.mark.parametrize(
    ("to", "least", "greatest"),
    [
        (TensorProto.FLOAT16, 2050.0, 2052.0),
        (TensorProto.BFLOAT16, 2048.0, 2064.0),
        (TensorProto.FLOAT, 2051.5, 2051.5),
        (TensorProto.DOUBLE, 2051.5, 2051.5),
        (TensorProto.INT32, 2051.0, 2052.0),
        (TensorProto.UINT8, 0.0, 255.0),
        (TensorProto.BOOL, 0.0, 1.0),
    ],
)
def test_cast_rounds_saturates_or_is_anything(to: int, least: float, greatest: float) -> None:
    b = Builder()
    y = b.node("Cast", "x", to=to)
    model = b.model([y], check=False)
    model.graph.output[0].type.tensor_type.elem_type = to
    found = Ranges(model, {"x": Box(np.full((1, 6), 2051.5), np.full((1, 6), 2051.5))}).of(y)
    assert (found.lower == least).all()
    assert (found.upper == greatest).all()


def test_what_follows_an_operator_of_unknown_type_is_picked_but_not_computed() -> None:
    b = Builder()
    custom = helper.make_node("Anything", ["x"], ["custom"], domain="custom.ops")
    b.nodes.append(custom)
    picked = b.node("Relu", "custom")
    computed = b.node("Sigmoid", "custom")
    model = b.model([picked, computed], check=False)
    model.opset_import.add(domain="custom.ops", version=1)
    for value in model.graph.output:
        value.type.Clear()
    ranges = Ranges(model, {})
    assert (ranges.of(picked).lower == 0.0).all()
    assert (ranges.of(computed).lower == -np.inf).all()
