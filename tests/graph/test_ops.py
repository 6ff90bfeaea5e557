"""Every operator a chain can pass through, alone and in a chain, against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from onnx_exact.graph import locate_chains
from tests.graph.build import Builder, Op, check_model

WIDTH = 6


def alone(op: Op, **settings: object) -> tuple[ModelProto, str]:
    """MatMul, the operator, Relu."""
    b = Builder(**settings)
    y = op(b, b.dense("x", WIDTH, WIDTH))
    name = b.nodes[-1].name
    return b.model([b.relu(y)]), name


def in_chain(op: Op, **settings: object) -> tuple[ModelProto, str]:
    """The operator behind a layer's sum, and once more between its Relu and the next MatMul."""
    b = Builder(**settings)
    y = b.relu(op(b, b.dense("x", WIDTH, WIDTH)))
    y = op(b, y)
    name = b.nodes[-1].name
    y = b.relu(b.dense(y, WIDTH, WIDTH))
    return b.model([b.gemm(y, WIDTH, 2)]), name


def constant_node(b: Builder, **value: object) -> str:
    return b.node("Constant", **value)


def tensor(b: Builder, *shape: int) -> object:
    return numpy_helper.from_array(b.rng.normal(size=shape).astype(b.dtype))


PER_UNIT: dict[str, Op] = {
    "add": lambda b, x: b.node("Add", x, b.weight(WIDTH)),
    "add_constant_first": lambda b, x: b.node("Add", b.weight(1, WIDTH), x),
    "add_scalar": lambda b, x: b.node("Add", x, b.weight()),
    "add_one": lambda b, x: b.node("Add", x, b.weight(1)),
    "sub": lambda b, x: b.node("Sub", x, b.weight(WIDTH)),
    "sub_from_constant": lambda b, x: b.node("Sub", b.weight(WIDTH), x),
    "mul": lambda b, x: b.node("Mul", x, b.weight(1, WIDTH)),
    "mul_constant_first": lambda b, x: b.node("Mul", b.weight(WIDTH), x),
    "mul_scalar": lambda b, x: b.node("Mul", x, b.weight()),
    "div": lambda b, x: b.node("Div", x, b.positive(WIDTH)),
    "div_scalar": lambda b, x: b.node("Div", x, b.positive()),
    "add_constant_node": lambda b, x: b.node("Add", x, constant_node(b, value=tensor(b, WIDTH))),
    "add_value_float": lambda b, x: b.node("Add", x, constant_node(b, value_float=0.25)),
    "add_value_floats": lambda b, x: b.node(
        "Add", x, constant_node(b, value_floats=[0.5, -1.0, 2.0, 0.0, 1.0, -3.0])
    ),
    "batch_normalization": lambda b, x: b.node(
        "BatchNormalization",
        x,
        *[b.weight(WIDTH) for _ in range(3)],
        b.positive(WIDTH),
        epsilon=0.125,
    ),
    "batch_normalization_default_epsilon": lambda b, x: b.node(
        "BatchNormalization", x, *[b.weight(WIDTH) for _ in range(3)], b.positive(WIDTH)
    ),
    "identity": lambda b, x: b.node("Identity", x),
    "dropout": lambda b, x: b.node("Dropout", x),
    "dropout_with_unread_mask": lambda b, x: b.node(
        "Dropout", x, b.constant(np.float32(0.3)), outputs=[f"d{x}", f"mask{x}"]
    ),
    "dropout_training_mode_false": lambda b, x: b.node(
        "Dropout", x, "", b.constant(np.array(False)), seed=3
    ),
    "flatten": lambda b, x: b.node("Flatten", x, axis=1),
    "flatten_negative_axis": lambda b, x: b.node("Flatten", x, axis=-1),
    "flatten_behind_more_axes": lambda b, x: b.node(
        "Flatten", b.node("Reshape", x, b.ints(0, 1, 2, 3))
    ),
    "reshape": lambda b, x: b.node("Reshape", x, b.ints(-1, WIDTH)),
    "reshape_zero_copies": lambda b, x: b.node("Reshape", x, b.ints(0, -1)),
    "reshape_there_and_back": lambda b, x: b.node(
        "Reshape", b.node("Reshape", x, b.ints(-1, 2, 3)), b.ints(0, WIDTH)
    ),
    "reshape_shape_as_constant_node": lambda b, x: b.node(
        "Reshape", x, constant_node(b, value_ints=[-1, WIDTH])
    ),
    "unsqueeze_squeeze": lambda b, x: b.node(
        "Squeeze", b.node("Unsqueeze", x, b.ints(1)), b.ints(1)
    ),
    "unsqueeze_at_the_end": lambda b, x: b.node(
        "Squeeze", b.node("Unsqueeze", x, b.ints(-1)), b.ints(2)
    ),
}


@pytest.mark.parametrize("form", [alone, in_chain])
@pytest.mark.parametrize("op", PER_UNIT)
def test_operator_equals_onnxruntime(op: str, form: Callable[..., tuple[ModelProto, str]]) -> None:
    model, name = form(PER_UNIT[op])
    (located,) = check_model(model)
    assert name in located.nodes


OLD: dict[str, tuple[int, Op]] = {
    "dropout_opset_7": (7, lambda b, x: b.node("Dropout", x, ratio=0.5)),
    "dropout_opset_10": (10, lambda b, x: b.node("Dropout", x, ratio=0.5)),
    "batch_normalization_opset_7": (
        7,
        lambda b, x: b.node(
            "BatchNormalization",
            x,
            *[b.weight(WIDTH) for _ in range(3)],
            b.positive(WIDTH),
            momentum=0.5,
        ),
    ),
    "batch_normalization_training_mode_0": (
        15,
        lambda b, x: b.node(
            "BatchNormalization",
            x,
            *[b.weight(WIDTH) for _ in range(3)],
            b.positive(WIDTH),
            training_mode=0,
        ),
    ),
    "squeeze_axes_as_attribute": (
        11,
        lambda b, x: b.node("Squeeze", b.node("Unsqueeze", x, axes=[1]), axes=[1]),
    ),
    "reshape_allowzero_without_zero": (
        14,
        lambda b, x: b.node("Reshape", x, b.ints(-1, WIDTH), allowzero=1),
    ),
}


@pytest.mark.parametrize("form", [alone, in_chain])
@pytest.mark.parametrize("op", OLD)
def test_operator_of_other_opset_equals_onnxruntime(
    op: str, form: Callable[..., tuple[ModelProto, str]]
) -> None:
    opset, build = OLD[op]
    model, name = form(build, opset=opset)
    (located,) = check_model(model)
    assert name in located.nodes


TRANSPOSITIONS = list(product([0, 1], [0, 1]))
BIASES = [None, (), (1,), (1, 1), (4,), (1, 4)]


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize(("trans_a", "trans_b"), TRANSPOSITIONS)
def test_gemm_with_every_attribute_equals_onnxruntime(
    trans_a: int, trans_b: int, bias: tuple[int, ...] | None
) -> None:
    for opset in (8, 13):
        if bias is None and opset < 11:
            continue
        b = Builder(opset=opset)
        matrix = b.weight(4, WIDTH) if trans_b else b.weight(WIDTH, 4)
        inputs = ["x", matrix] + ([] if bias is None else [b.weight(*bias)])
        y = b.node("Gemm", *inputs, alpha=0.5, beta=-1.5, transA=trans_a, transB=trans_b)
        shape = [WIDTH, "batch"] if trans_a else ["batch", WIDTH]
        (located,) = check_model(b.model([b.relu(y)], {"x": shape}))
        assert located.chain.n_in == WIDTH


def test_gemm_of_transposed_input_in_a_chain_equals_onnxruntime() -> None:
    b = Builder()
    y = b.relu(b.node("Gemm", "x", b.weight(4, WIDTH), b.weight(4), transA=1, transB=1))
    model = b.model([b.gemm(y, 4, 2)], {"x": [WIDTH, "batch"]})
    check_model(model)


@pytest.mark.parametrize(("trans_a", "trans_b"), TRANSPOSITIONS)
def test_gemm_with_constant_first_factor_equals_onnxruntime(trans_a: int, trans_b: int) -> None:
    b = Builder()
    matrix = b.weight(WIDTH, 4) if trans_a else b.weight(4, WIDTH)
    y = b.node("Gemm", matrix, "x", b.weight(4, 1), alpha=2.0, transA=trans_a, transB=trans_b)
    y = b.relu(y)
    y = b.node("Gemm", b.weight(3, 4), y)
    shape = ["batch", WIDTH] if trans_b else [WIDTH, "batch"]
    (located,) = check_model(b.model([y], {"x": shape}))
    assert [layer.width for layer in located.chain.layers] == [4, 3]


def test_gemm_empty_name_for_missing_bias_equals_onnxruntime() -> None:
    b = Builder()
    y = b.relu(b.node("Gemm", "x", b.weight(WIDTH, 4), ""))
    check_model(b.model([y]))


SHAPES: dict[str, list[int | str]] = {
    "vector": [WIDTH],
    "matrix": ["batch", WIDTH],
    "rank_3": ["batch", 2, WIDTH],
    "rank_3_symbolic": ["batch", "time", WIDTH],
    "rank_4": [2, "batch", 3, WIDTH],
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_matmul_with_constant_on_the_right_equals_onnxruntime(shape: list[int | str]) -> None:
    b = Builder()
    y = b.relu(b.node("Add", b.dense("x", WIDTH, 4), b.weight(4)))
    y = b.node("Add", b.dense(y, 4, 3), b.weight(3))
    check_model(b.model([y], {"x": shape}))


COLUMNS: dict[str, list[int | str]] = {
    "vector": [WIDTH],
    "matrix": [WIDTH, "batch"],
    "one_column": [WIDTH, 1],
    "static": [WIDTH, 5],
    "rank_3": ["time", WIDTH, "batch"],
}


@pytest.mark.parametrize("shape", COLUMNS.values(), ids=COLUMNS)
def test_matmul_with_constant_on_the_left_equals_onnxruntime(shape: list[int | str]) -> None:
    b = Builder()
    bias = (4,) if len(shape) == 1 else (4, 1)
    y = b.relu(b.node("Add", b.node("MatMul", b.weight(4, WIDTH), "x"), b.weight(*bias)))
    y = b.node("MatMul", b.weight(3, 4), y)
    check_model(b.model([y], {"x": shape}))


def test_matmul_with_a_constant_vector_equals_onnxruntime() -> None:
    b = Builder()
    y = b.relu(b.dense("x", WIDTH, 4))
    check_model(b.model([b.node("MatMul", y, b.weight(4))]))
    b = Builder()
    y = b.relu(b.node("MatMul", b.weight(4, WIDTH), "x"))
    check_model(b.model([b.node("MatMul", b.weight(4), y)], {"x": [WIDTH, "batch"]}))


def test_matmul_with_leading_axes_of_size_one_equals_onnxruntime() -> None:
    b = Builder()
    y = b.relu(b.node("MatMul", "x", b.weight(1, WIDTH, 4)))
    y = b.node("MatMul", y, b.weight(1, 4, 2))
    check_model(b.model([y], {"x": ["batch", 2, WIDTH]}))


def test_batch_normalization_in_column_layout_equals_onnxruntime() -> None:
    b = Builder()
    y = b.node("MatMul", b.weight(4, WIDTH), "x")
    y = b.node("BatchNormalization", y, *[b.weight(4) for _ in range(3)], b.positive(4))
    y = b.node("MatMul", b.weight(2, 4), b.relu(y))
    check_model(b.model([y], {"x": ["batch", WIDTH, "time"]}))


def test_batch_normalization_behind_a_reshape_to_channels_equals_onnxruntime() -> None:
    b = Builder()
    y = b.node("Reshape", b.dense("x", WIDTH, 8), b.ints(-1, 4, 2))
    y = b.node("BatchNormalization", y, *[b.weight(4) for _ in range(3)], b.positive(4))
    y = b.node("Flatten", b.relu(y))
    (located,) = check_model(b.model([b.dense(y, 8, 2)]))
    assert "BatchNormalization" in " ".join(located.nodes)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_supported_type_equals_onnxruntime(dtype: type) -> None:
    b = Builder(dtype=dtype)
    y = b.relu(b.gemm("x", WIDTH, 5))
    y = b.node("Mul", y, b.positive(5))
    y = b.relu(b.node("Add", b.dense(y, 5, 4), b.weight(4)))
    (located,) = check_model(b.model([b.gemm(y, 4, 2)]))
    assert located.dtype == dtype


def test_initializers_that_are_graph_inputs_are_constants_in_ir_3() -> None:
    b = Builder(ir=3, opset=8)
    y = b.gemm(b.relu(b.gemm("x", WIDTH, 5)), 5, 2)
    check_model(b.model([y]))


def test_plain_gemm_holds_the_stored_numbers_exactly() -> None:
    b = Builder()
    weight, bias = (b.rng.normal(size=s).astype(np.float32) for s in ((5, WIDTH), (5,)))
    y = b.node("Gemm", "x", b.constant(weight), b.constant(bias), transB=1)
    y = b.node("MatMul", b.relu(y), b.constant(weight))
    y = b.node("Add", y, b.constant(weight[0]))
    (located,) = locate_chains(b.model([y]))
    first, second = (layer.affine for layer in located.chain.layers)
    assert np.array_equal(first.weight.astype(np.float32), weight)
    assert np.array_equal(first.bias.astype(np.float32), bias)
    assert np.array_equal(second.weight, weight.T.astype(np.float64))
    assert np.array_equal(second.bias, weight[0].astype(np.float64))
