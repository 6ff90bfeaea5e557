"""What nodes make of constants, held to onnxruntime and to the reals; what is not folded."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from onnx_exact.graph import Ranges
from onnx_exact.graph.constants import FOLDED
from onnx_exact.graph.index import Index
from tests.graph.build import Builder, run

Maker = Callable[[Builder], str]


def floats(b: Builder, *shape: int) -> str:
    return b.weight(*shape)


def dequantized(b: Builder, kind: Any = np.int8, scale: Any = 0.0123, **attributes: int) -> str:
    codes = b.constant(np.array([[-128, 5, 127], [0, 1, -3]]).astype(kind))
    return b.node("DequantizeLinear", codes, b.constant(np.float32(scale)), **attributes)


MAKERS: dict[str, Maker] = {
    "Abs": lambda b: b.node("Abs", floats(b, 3)),
    "Add": lambda b: b.node("Add", floats(b, 2, 3), floats(b, 3)),
    "Cast": lambda b: b.node("Cast", b.constant(b.rng.normal(size=5)), to=1),
    "Cast to half": lambda b: b.node("Cast", b.node("Cast", floats(b, 5), to=10), to=1),
    "Clip": lambda b: b.node("Clip", floats(b, 5), b.constant(np.float32(-0.1))),
    "Concat": lambda b: b.node("Concat", floats(b, 2), floats(b, 3), axis=0),
    "ConstantOfShape": lambda b: b.node("ConstantOfShape", b.ints(2, 3)),
    "DequantizeLinear": dequantized,
    "DequantizeLinear by axis": lambda b: dequantized(b, scale=[0.1, 3.0, 1e-3], axis=1),
    "Div": lambda b: b.node("Div", floats(b, 4), floats(b, 4)),
    "Expand": lambda b: b.node("Expand", floats(b, 1, 3), b.ints(4, 3)),
    "Flatten": lambda b: b.node("Flatten", floats(b, 2, 3, 2)),
    "Gather": lambda b: b.node("Gather", floats(b, 4, 2), b.ints(3, -1, 0)),
    "Gemm": lambda b: b.node("Gemm", floats(b, 2, 3), floats(b, 3, 2), floats(b, 2)),
    "MatMul": lambda b: b.node("MatMul", floats(b, 2, 3), floats(b, 3, 2)),
    "Max": lambda b: b.node("Max", floats(b, 4), floats(b, 4)),
    "Mul": lambda b: b.node("Mul", floats(b, 2, 3), floats(b, 3)),
    "Neg": lambda b: b.node("Neg", floats(b, 3)),
    "Pad": lambda b: b.node("Pad", floats(b, 3), b.ints(1, 2)),
    "ReduceSum": lambda b: b.node("ReduceSum", floats(b, 2, 3), b.ints(1)),
    "Reshape": lambda b: b.node("Reshape", floats(b, 2, 3), b.ints(-1)),
    "Slice": lambda b: b.node("Slice", floats(b, 5), b.ints(4), b.ints(-9), b.ints(0), b.ints(-2)),
    "Split": lambda b: b.node("Split", floats(b, 4), outputs=["first", "second"]),
    "Sqrt": lambda b: b.node("Sqrt", b.positive(4)),
    "Sub": lambda b: b.node("Sub", floats(b, 2, 3), floats(b, 3)),
    "Sum": lambda b: b.node("Sum", floats(b, 3), floats(b, 3), floats(b, 3)),
    "Transpose of rounded": lambda b: b.node("Transpose", dequantized(b)),
    "Unsqueeze": lambda b: b.node(
        "Squeeze", b.node("Unsqueeze", floats(b, 3), b.ints(0)), b.ints(0)
    ),
    "Where": lambda b: b.node(
        "Where", b.constant(np.array([1, 0, 1], bool)), floats(b, 3), floats(b, 3)
    ),
}
EXACT = {"Abs", "Concat", "Expand", "Flatten", "Gather", "Max", "Neg", "Reshape", "Slice", "Where"}


def made(name: str) -> tuple[ModelProto, str]:
    b = Builder(opset=13)
    tensor = MAKERS[name](b)
    return b.model([b.node("Identity", tensor)], {}), tensor


@pytest.mark.parametrize("name", MAKERS)
def test_folded_value_is_what_a_runtime_computes_within_its_error(name: str) -> None:
    model, tensor = made(name)
    value = Index(model).value(tensor)
    assert value is not None
    (found,) = run(model, {})
    assert value.values.dtype == found.dtype
    assert value.values.shape == found.shape
    off = np.zeros(found.shape) if value.error is None else value.error
    assert (np.abs(found.astype(np.float64) - value.values) <= off).all()
    few = 1e-3 if name == "Cast to half" else 1e-5
    assert (off <= few * (1.0 + np.abs(found))).all()
    if name in EXACT:
        assert value.error is None


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_error_holds_the_real_result(op: str) -> None:
    b = Builder()
    first, second = (b.rng.normal(size=50).astype(np.float32) for _ in range(2))
    tensor = b.node(op, b.constant(first), b.constant(second))
    value = Index(b.model([b.node("Identity", tensor)], {})).value(tensor)
    assert value is not None
    operations = {
        "Add": Fraction.__add__,
        "Sub": Fraction.__sub__,
        "Mul": Fraction.__mul__,
        "Div": Fraction.__truediv__,
    }
    off = np.zeros(50) if value.error is None else value.error
    for x, y, found, room in zip(first, second, value.values, off, strict=True):
        real = operations[op](Fraction(float(x)), Fraction(float(y)))
        assert abs(real - Fraction(float(found))) <= Fraction(float(room))


def test_dequantized_weights_are_off_by_the_rounding_of_the_product() -> None:
    b = Builder()
    tensor = dequantized(b)
    value = Index(b.model([b.node("Identity", tensor)], {})).value(tensor)
    assert value is not None
    assert value.error is not None
    real = np.array([[-128, 5, 127], [0, 1, -3]]) * float(np.float32(0.0123))
    assert (np.abs(value.values - real) <= value.error).all()
    assert (value.error <= 2.0**-22 * np.abs(real)).all()


def test_ranges_of_a_rounded_constant_hold_it_and_the_real_number() -> None:
    b = Builder()
    tensor = dequantized(b)
    model = b.model([b.node("Identity", tensor)], {})
    box = Ranges(model, {}).of(tensor)
    real = np.array([[-128, 5, 127], [0, 1, -3]]) * float(np.float32(0.0123))
    for values in (real, run(model, {})[0].astype(np.float64)):
        assert (box.lower <= values).all()
        assert (values <= box.upper).all()


NOT_FOLDED: dict[str, Maker] = {
    "a Cast of a half to an integer": lambda b: b.node("Cast", b.constant(np.float32([0.5])), to=7),
    "a Cast beyond float64": lambda b: b.node("Cast", b.constant(np.float32([1e20])), to=7),
    "a quotient of negative integers": lambda b: b.node("Div", b.ints(-7), b.ints(2)),
    "a remainder of negative integers": lambda b: b.node("Mod", b.ints(-7), b.ints(2)),
    "a code on a tie": lambda b: b.node(
        "QuantizeLinear", b.constant(np.float32([0.5])), b.constant(np.float32(1.0))
    ),
    "what is random": lambda b: b.node("RandomNormalLike", floats(b, 3)),
    "what has no bounds": lambda b: b.node("Div", floats(b, 1), b.constant(np.float32([0.0]))),
    "what is huge": lambda b: b.node("ConstantOfShape", b.ints(100_000, 100_000)),
    "what expands to something huge": lambda b: b.node("Expand", floats(b, 1), b.ints(2**30)),
}


@pytest.mark.parametrize("name", NOT_FOLDED)
def test_what_is_not_certain_is_no_constant(name: str) -> None:
    b = Builder(opset=13)
    tensor = NOT_FOLDED[name](b)
    model = b.model([b.node("Identity", tensor)], {}, check=False)
    assert Index(model).value(tensor) is None


def test_what_a_user_may_override_is_no_constant_and_nothing_that_is_made_of_it() -> None:
    b = Builder(opset=13, ir=8)
    weight = b.constant(np.ones((2, 2), np.float32), "weight")
    tensor = b.node("Transpose", weight)
    model = b.model([b.node("Identity", tensor)], {})
    assert Index(model).is_constant(tensor)
    value = helper.make_tensor_value_info("weight", TensorProto.FLOAT, [2, 2])
    model.graph.input.append(value)
    index = Index(model)
    assert index.is_overridable("weight")
    assert not index.is_constant(tensor)


def test_function_of_the_models_own_is_not_folded_as_the_operator_of_that_name() -> None:
    b = Builder(opset=13)
    tensor = b.node("Transpose", b.weight(2, 2))
    model = b.model([b.node("Identity", tensor)], {})
    inner = helper.make_node("Neg", ["a"], ["y"])
    opsets = [helper.make_opsetid("", 13)]
    model.functions.append(helper.make_function("", "Transpose", ["a"], ["y"], [inner], opsets))
    assert not Index(model).is_constant(tensor)


def test_long_line_of_constants_is_folded() -> None:
    b = Builder(opset=13)
    tensor = b.weight(2)
    for _ in range(3000):
        tensor = b.node("Identity", tensor)
    assert Index(b.model([b.node("Neg", tensor)], {}, check=False)).is_constant(tensor)


def test_sizes_that_are_known_are_constants() -> None:
    b = Builder(opset=15)
    shape = b.node("Shape", "x", start=1)
    size = b.node("Size", "y")
    model = b.model(
        [b.node("Identity", shape), b.node("Identity", size)],
        {"x": ["n", 6], "y": [2, 3]},
        check=False,
    )
    index = Index(model)
    assert index.integers(shape) == [6]
    assert index.integers(size) == [6]


def test_every_operator_that_is_folded_is_one_of_onnx() -> None:
    from onnx.defs import has

    assert all(has(op) for op in FOLDED)
