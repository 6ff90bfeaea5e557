"""Intervals hold at points, are exact where they can be, and infinite where nothing is known."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import ModelProto, TensorProto, helper

from onnx_exact.graph import Ranges
from onnx_exact.graph.bounds import dense, interval, sums
from onnx_exact.graph.bounds.errors import UNITS
from onnx_exact.graph.bounds.interval import Interval
from onnx_exact.graph.bounds.types import FLOAT_TYPES
from onnx_exact.network import Box
from tests.graph.build import SLACK, Builder, Op, box_of, run

SPATIAL = ["batch", 4, 6, 6]


def pads(b: Builder) -> dict[str, Any]:
    return {"pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}


BN = "BatchNormalization"
OPS: dict[str, Op] = {
    "Abs": lambda b, x: b.node("Abs", x),
    "Add": lambda b, x: b.node("Add", x, b.weight(4, 1, 1)),
    "Add_itself": lambda b, x: b.node("Add", x, b.node("Neg", x)),
    "AveragePool": lambda b, x: b.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]),
    "AveragePool_counting_pads": lambda b, x: b.node(
        "AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1
    ),
    "BatchNormalization": lambda b, x: b.node(BN, x, *[b.weight(4) for _ in "gbm"], b.positive(4)),
    "Cast": lambda b, x: b.node("Cast", b.node("Cast", x, to=11), to=1),
    "Clip": lambda b, x: b.node("Clip", x, b.constant(np.float32(-0.5)), b.constant(np.float32(1))),
    "Clip_below": lambda b, x: b.node("Clip", x, b.constant(np.float32(0.25))),
    "Clip_above": lambda b, x: b.node("Clip", x, "", b.constant(np.float32(0.25))),
    "Concat": lambda b, x: b.node("Concat", x, b.node("Neg", x), axis=-1),
    "Concat_channels": lambda b, x: b.node("Concat", x, b.node("Neg", x), axis=1),
    "Conv": lambda b, x: b.node("Conv", x, b.weight(5, 4, 3, 2), b.weight(5), **pads(b)),
    "Conv_grouped": lambda b, x: b.node("Conv", x, b.weight(6, 2, 3, 3), group=2),
    "Conv_depthwise": lambda b, x: b.node("Conv", x, b.weight(4, 1, 3, 3), group=4),
    "Conv_same_upper": lambda b, x: b.node(
        "Conv", x, b.weight(2, 4, 3, 2), auto_pad="SAME_UPPER", strides=[2, 1]
    ),
    "Conv_same_lower": lambda b, x: b.node(
        "Conv", x, b.weight(2, 4, 4, 2), auto_pad="SAME_LOWER", strides=[1, 2]
    ),
    "Conv_valid": lambda b, x: b.node("Conv", x, b.weight(2, 4, 3, 2), auto_pad="VALID"),
    "Div": lambda b, x: b.node("Div", x, b.positive(6)),
    "Div_negative": lambda b, x: b.node("Div", x, b.node("Neg", b.positive(6, 1))),
    "Dropout": lambda b, x: b.node("Dropout", x),
    "Flatten": lambda b, x: b.node("Flatten", x),
    "Flatten_late": lambda b, x: b.node("Flatten", x, axis=3),
    "Gather": lambda b, x: b.node("Gather", x, b.ints(1, 0), axis=1),
    "Gemm": lambda b, x: b.node(
        "Gemm", b.node("Flatten", x), b.weight(5, 144), b.weight(5), transB=1, alpha=0.5, beta=2.0
    ),
    "Gemm_constant_first": lambda b, x: b.node(
        "Gemm", b.weight(144, 5), b.node("Flatten", x), b.weight(1), transA=1, transB=1
    ),
    "Gemm_transposed": lambda b, x: b.node(
        "Gemm", b.node("Transpose", b.node("Flatten", x)), b.weight(144, 5), transA=1
    ),
    "GlobalAveragePool": lambda b, x: b.node("GlobalAveragePool", x),
    "GlobalMaxPool": lambda b, x: b.node("GlobalMaxPool", x),
    "Identity": lambda b, x: b.node("Identity", x),
    "LeakyRelu": lambda b, x: b.node("LeakyRelu", x, alpha=0.2),
    "LeakyRelu_default": lambda b, x: b.node("LeakyRelu", x),
    "MatMul": lambda b, x: b.node("MatMul", x, b.weight(6, 3)),
    "MatMul_left": lambda b, x: b.node("MatMul", b.weight(3, 6), x),
    "MatMul_vector": lambda b, x: b.node("MatMul", x, b.weight(6)),
    "MatMul_batched": lambda b, x: b.node("MatMul", x, b.weight(4, 6, 2)),
    "Max": lambda b, x: b.node("Max", x, b.weight(4, 1, 1), b.weight(6)),
    "MaxPool": lambda b, x: b.node("MaxPool", x, kernel_shape=[2, 2], pads=[1, 1, 1, 1]),
    "Min": lambda b, x: b.node("Min", x, b.weight(4, 1, 1)),
    "Mul": lambda b, x: b.node("Mul", x, b.weight(4, 1, 6)),
    "Mul_itself": lambda b, x: b.node("Mul", x, x),
    "Neg": lambda b, x: b.node("Neg", x),
    "Relu": lambda b, x: b.node("Relu", x),
    "Reshape": lambda b, x: b.node("Reshape", x, b.ints(0, 2, -1, 3)),
    "Reshape_mixing": lambda b, x: b.node("Reshape", x, b.ints(-1, 9)),
    "Sigmoid": lambda b, x: b.node("Sigmoid", x),
    "Slice": lambda b, x: b.node("Slice", x, b.ints(1), b.ints(3), b.ints(2)),
    "Softmax": lambda b, x: b.node("Softmax", x),
    "Split": lambda b, x: b.node("Split", x, b.ints(1, 3), axis=1, outputs=["s1", "s2"]),
    "Squeeze": lambda b, x: b.node("Squeeze", b.node("Unsqueeze", x, b.ints(1)), b.ints(1)),
    "Sub": lambda b, x: b.node("Sub", b.weight(6), x),
    "Sum": lambda b, x: b.node("Sum", x, b.weight(6), x),
    "Tanh": lambda b, x: b.node("Tanh", x),
    "Transpose": lambda b, x: b.node("Transpose", x, perm=[2, 0, 3, 1]),
    "Transpose_default": lambda b, x: b.node("Transpose", x),
    "Unsqueeze": lambda b, x: b.node("Unsqueeze", x, b.ints(-1)),
}


def assert_inside(value: Any, box: Box, name: str) -> None:
    assert box.lower.ndim == np.ndim(value), name
    assert (box.lower <= value).all(), name
    assert (value <= box.upper).all(), name


def assert_sound(model: ModelProto, box: Box, count: int = 20) -> Ranges:
    ranges = Ranges(model, {"x": box})
    tensors = [o for node in model.graph.node for o in node.output if o]
    rng = np.random.default_rng(1)
    points = [*box.sample(rng, count), *box.corners(rng, count)]
    for x in points:
        for name, value in zip(
            tensors, run(model, {"x": x.astype(np.float32)}, tensors), strict=True
        ):
            assert_inside(value, ranges.of(name), name)
    return ranges


@pytest.mark.parametrize("op", OPS)
def test_interval_holds_at_points_of_the_domain(op: str) -> None:
    b = Builder()
    y = OPS[op](b, "x")
    ranges = assert_sound(b.model([y], {"x": SPATIAL}), box_of(SPATIAL))
    assert ranges.of(y).finite


@pytest.mark.parametrize("op", [op for op in OPS if "Reshape_mixing" not in op])
def test_interval_of_an_unbounded_input_is_not_finite_or_is_the_function_s_range(op: str) -> None:
    b = Builder()
    y = OPS[op](b, "x")
    model = b.model([y], {"x": SPATIAL})
    box = Ranges(model, {}).of(y)
    bounded = {"Sigmoid": (0, 1), "Tanh": (-1, 1), "Softmax": (0, 1), "Clip": (-0.5, 1)}
    if op in bounded:
        least, greatest = bounded[op]
        beyond = UNITS.get(op, 0) * 2.0**-23
        assert box.lower.min() == least * (1.0 + beyond)
        assert box.upper.max() == greatest * (1.0 + beyond)
    else:
        assert not box.finite


def test_relu_of_an_unknown_tensor_is_not_negative() -> None:
    b = Builder()
    y = b.relu(b.node("Tan", "x"))
    box = Ranges(b.model([y]), {}).of(y)
    assert (box.lower == 0.0).all()
    assert (box.upper == np.inf).all()


@pytest.mark.parametrize("op", ["Conv", "Conv_grouped", "Conv_same_upper", "Conv_valid"])
def test_convolution_of_unknown_size_is_bounded_by_channel(op: str) -> None:
    b = Builder()
    y = OPS[op](b, "x")
    shape = ["batch", 4, "height", "width"]
    model = b.model([y], {"x": shape})
    box = Ranges(model, {"x": box_of(shape)}).of(y)
    assert box.finite
    x_box = box_of(shape)
    rng = np.random.default_rng(2)
    for _ in range(20):
        x = x_box.lower + rng.random((2, 4, 7, 8)) * (x_box.upper - x_box.lower)
        (value,) = run(model, {"x": x.astype(np.float32)})
        assert_inside(value, box, op)


def test_large_convolution_is_bounded_by_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "LARGEST_CONVOLUTION", 0)
    b = Builder()
    y = OPS["Conv"](b, "x")
    ranges = assert_sound(b.model([y], {"x": SPATIAL}), box_of(SPATIAL))
    assert ranges.of(y).lower.shape[2:] == (1, 1)


def test_convolution_is_exact_at_its_extreme_points() -> None:
    b = Builder()
    y = OPS["Conv"](b, "x")
    model = b.model([y], {"x": [1, 4, 6, 6]})
    box = box_of(SPATIAL)
    upper = Ranges(model, {"x": box}).of(y).upper
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0])
    # The first output without padding around it: kernel at rows 1.., columns 0, 2.
    corner = np.array(box.lower, dtype=np.float32)
    corner[0, :, 1:4, 0:3:2] = np.where(
        weight[1] > 0, box.upper[0, :, 1:4, 0:3:2], box.lower[0, :, 1:4, 0:3:2]
    )
    (value,) = run(model, {"x": corner})
    np.testing.assert_allclose(value[0, 1, 1, 0], upper[0, 1, 1, 0], rtol=SLACK)


def test_relu_and_regrouping_add_nothing() -> None:
    b = Builder()
    y = b.node("Transpose", b.node("Flatten", b.relu("x")))
    box = box_of(SPATIAL)
    found = Ranges(b.model([y], {"x": SPATIAL}), {"x": box}).of(y)
    assert np.array_equal(found.lower, np.maximum(box.lower, 0).reshape(1, -1).T)
    assert np.array_equal(found.upper, np.maximum(box.upper, 0).reshape(1, -1).T)


def test_terms_that_are_zero_add_nothing() -> None:
    b = Builder()
    zero = b.constant(np.zeros((6, 3), np.float32))
    y = b.node("Add", b.node("MatMul", "x", zero), b.constant(np.zeros(3, np.float32)))
    y = b.node("Mul", y, b.weight(3))
    found = Ranges(b.model([y]), {"x": Box(np.zeros((1, 6)), np.ones((1, 6)))}).of(y)
    assert (found.lower == 0.0).all()
    assert (found.upper == 0.0).all()


def test_scale_of_one_and_shift_of_zero_keep_the_box() -> None:
    b = Builder()
    zero, one = (b.constant(np.array([v], np.float32)) for v in (0, 1))
    y = b.node("Div", b.node("Sub", "x", zero), one)
    box = box_of(["batch", 6])
    found = Ranges(b.model([y]), {"x": box}).of(y)
    assert np.array_equal(found.lower, box.lower)
    assert np.array_equal(found.upper, box.upper)


numbers = st.floats(-1e6, 1e6) | st.floats(-1e-300, 1e-300)


@given(arrays(np.float64, (3, 4), elements=numbers), arrays(np.float64, (2, 4), elements=numbers))
def test_sums_of_products_are_sound_in_rational_arithmetic(
    weight: np.ndarray[Any, Any], ends: np.ndarray[Any, Any]
) -> None:
    lower, upper = ends.min(axis=0), ends.max(axis=0)
    how = sums.Sum(FLOAT_TYPES[TensorProto.DOUBLE], 4)
    found = sums.linear(lambda w, v: w @ v, weight, Interval(lower, upper), how)
    for row, low, high in zip(weight, found.lower, found.upper, strict=True):
        exact_low = exact_high = Fraction(0)
        for w, a, z in zip(row, lower, upper, strict=True):
            products = (
                Fraction(float(w)) * Fraction(float(a)),
                Fraction(float(w)) * Fraction(float(z)),
            )
            exact_low += min(products)
            exact_high += max(products)
        assert Fraction(float(low)) <= exact_low
        assert Fraction(float(high)) >= exact_high


@given(numbers, numbers, numbers, numbers)
def test_single_operations_are_sound_in_rational_arithmetic(
    a: float, b: float, c: float, d: float
) -> None:
    x = Interval(np.array([min(a, b)]), np.array([max(a, b)]))
    y = Interval(np.array([min(c, d)]), np.array([max(c, d)]))
    pairs = [(Fraction(p), Fraction(q)) for p in (a, b) for q in (c, d)]
    with np.errstate(all="ignore"):
        cases = [
            (interval.add(x, y), [p + q for p, q in pairs]),
            (interval.multiply(x, y), [p * q for p, q in pairs]),
        ]
        if c * d > 0:
            cases.append((interval.divide(x, y), [p / q for p, q in pairs]))
    for found, values in cases:
        low, high = float(found.lower[0]), float(found.upper[0])
        assert low == -np.inf or Fraction(low) <= min(values)
        assert high == np.inf or Fraction(high) >= max(values)


def test_infinite_sides_reach_only_what_reads_them() -> None:
    b = Builder()
    weight = b.constant(np.array([[1, 0, -1], [0, 1, 1]], np.float32))
    y = b.node("MatMul", "x", weight)
    box = Box(np.array([[-np.inf, 0.0]]), np.array([[1.0, 2.0]]))
    found = Ranges(b.model([y], {"x": ["batch", 2]}), {"x": box}).of(y)
    assert found.lower[0, 0] == -np.inf
    assert 1.0 <= found.upper[0, 0] < 1.001
    assert np.isfinite(found.lower[0, 1])
    assert np.isfinite(found.upper[0, 1])
    assert found.upper[0, 2] == np.inf
    assert -1.001 < found.lower[0, 2] <= -1.0


def test_one_sided_bounds_stay_one_sided() -> None:
    b = Builder()
    y = b.relu("x")
    half = b.node("Mul", y, b.constant(np.array([0.5], np.float32)))
    third = b.node("Div", y, b.constant(np.array([-3.0], np.float32)))
    moved = b.node("Add", y, b.constant(np.array([0.1], np.float32)))
    ratio = b.node("Div", y, b.node("Add", y, b.constant(np.array([2.0], np.float32))))
    model = b.model([half, third, moved, ratio])
    ranges = Ranges(model, {})
    assert (ranges.of(half).lower == 0.0).all()
    assert (ranges.of(half).upper == np.inf).all()
    assert (ranges.of(third).upper == 0.0).all()
    assert (ranges.of(third).lower == -np.inf).all()
    assert (ranges.of(moved).lower == np.float32(0.1)).all()
    assert (ranges.of(ratio).lower == 0.0).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("end", [np.inf, 2e30])
def test_a_runtime_may_take_a_subnormal_weight_for_zero_wherever_a_side_ends(
    end: float, sign: float
) -> None:
    """Over all inputs beyond 1e30 a weight of 1e-40 gives more than 0, and a runtime gives 0."""
    b = Builder()
    product = b.node("MatMul", "x", b.constant(np.array([[1e-40]], np.float32)))
    low, high = sorted((sign * 1e30, sign * end))
    found = Ranges(b.model([product], {"x": [1, 1]}), {"x": Box(np.array([low]), np.array([high]))})
    box = found.of(product)
    assert box.lower.item() <= 0.0 <= box.upper.item()


def test_training_and_custom_operators_give_no_bounds() -> None:
    b = Builder(opset=14)
    dropped = b.node("Dropout", "x", "", b.constant(np.array(True)))
    normal = b.node(BN, "x", *[b.positive(6) for _ in range(4)])
    model = b.model([dropped, normal])
    custom = helper.make_node("Relu", ["x"], ["custom"], domain="custom.ops")
    model.graph.node.append(custom)
    model.opset_import.add(domain="custom.ops", version=1)
    ranges = Ranges(model, {"x": box_of(["batch", 6])})
    for name in (dropped, "custom"):
        assert (ranges.of(name).lower == -np.inf).all()
    assert ranges.of(normal).finite


@pytest.mark.parametrize(
    ("kind", "least", "greatest"),
    [
        (TensorProto.UINT8, 0.0, 255.0),
        (TensorProto.INT8, -128.0, 127.0),
        (TensorProto.BOOL, 0.0, 1.0),
        (TensorProto.INT64, -(2.0**63), 2.0**63),
        (TensorProto.STRING, -np.inf, np.inf),
    ],
)
def test_integer_inputs_have_the_range_of_their_type(
    kind: int, least: float, greatest: float
) -> None:
    b = Builder()
    y = b.node("Cast", "i", to=1)
    model = b.model([y], {"i": [2]}, check=False)
    model.graph.input[0].type.tensor_type.elem_type = kind
    box = Ranges(model, {"i": Box(np.zeros(2), np.ones(2))}).of(y)
    assert (box.lower == least).all()
    assert (box.upper == greatest).all()


def test_assumed_bounds_tighten_what_comes_behind() -> None:
    b = Builder()
    first = b.relu(b.gemm("x", 6, 5))
    behind = b.node("Softmax", first)
    other = b.node("Neg", first)
    model = b.model([behind, other])
    ranges = Ranges(model, {"x": box_of(["batch", 6])})
    before = ranges.of(other)
    upper = ranges.of(first).upper[0] / 2
    ranges.assume(first, np.zeros(5), upper)
    assert np.array_equal(ranges.of(first).upper, upper[None])
    assert np.array_equal(ranges.of(other).lower, -upper[None])
    assert (ranges.of(other).lower > before.lower).any()
    ranges.assume(first, np.zeros(5), 10 * upper + 1)
    assert np.array_equal(ranges.of(first).upper, upper[None])


def test_assumed_bounds_of_a_column_chain_go_along_its_features() -> None:
    b = Builder()
    y = b.relu(b.node("MatMul", b.positive(3, 6), "x"))
    model = b.model([b.node("Neg", y)], {"x": [6, 3]})
    ranges = Ranges(model, {"x": Box(np.zeros((1, 1)), np.ones((1, 1)))})
    ranges.assume(y, np.zeros(3), np.array([0.0, 1e-3, 2e-3]))
    assert np.array_equal(ranges.of(y).upper[:, 0], [0.0, 1e-3, 2e-3])


def test_assumed_bounds_that_do_not_fit_are_refused() -> None:
    b = Builder()
    y = b.relu(b.gemm("x", 6, 5))
    ranges = Ranges(b.model([y]), {})
    with pytest.raises(ValueError, match="bounds of shape"):
        ranges.assume(y, np.zeros((4, 7)), np.ones((4, 7)))
    with pytest.raises(ValueError, match="bounds of shape"):
        Ranges(b.model([y]), {"x": Box(np.zeros(5), np.ones(5))})
