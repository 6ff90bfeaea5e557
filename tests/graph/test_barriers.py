"""What ends a chain, what counts as no constant, and which weights are refused."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from onnx_exact.errors import ModelError
from onnx_exact.graph import locate_chains
from tests.graph.build import Builder, Op, check_model

WIDTH = 6
BN = "BatchNormalization"
BARRIERS: dict[str, tuple[int, Op]] = {
    "constant_over_x": (13, lambda b, x: b.node("Div", b.positive(WIDTH), x)),
    "division_by_zero": (13, lambda b, x: b.node("Div", x, b.constant(np.zeros(1, np.float32)))),
    "per_position_constant": (13, lambda b, x: b.node("Add", x, b.weight(3, WIDTH))),
    "constant_of_higher_rank": (13, lambda b, x: b.node("Add", x, b.weight(1, 1, WIDTH))),
    "mask_of_minus_infinity": (
        13,
        lambda b, x: b.node("Add", x, b.constant(np.array([0, -np.inf] * 3, np.float32))),
    ),
    "training_batch_normalization": (
        15,
        lambda b, x: b.node(
            BN,
            x,
            *[b.positive(WIDTH) for _ in range(4)],
            outputs=[f"y{x}", f"m{x}", f"v{x}"],
            training_mode=1,
        ),
    ),
    "batch_normalization_per_entry": (
        8,
        lambda b, x: b.node(BN, x, *[b.positive(WIDTH) for _ in range(4)], spatial=0),
    ),
    "batch_normalization_negative_variance": (
        13,
        lambda b, x: b.node(
            BN, x, *[b.positive(WIDTH) for _ in range(3)], b.constant(-np.ones(WIDTH, np.float32))
        ),
    ),
    "dropout_in_training": (
        13,
        lambda b, x: b.node("Dropout", x, "", b.constant(np.array(True))),
    ),
    "reshape_that_mixes_batch_and_features": (
        13,
        lambda b, x: b.node("Reshape", x, b.ints(-1, 2 * WIDTH)),
    ),
    "flatten_into_the_batch": (13, lambda b, x: b.node("Flatten", x, axis=0)),
    "another_activation": (13, lambda b, x: b.node("Sigmoid", x)),
    "clip": (
        13,
        lambda b, x: b.node("Clip", x, b.constant(np.float32(0)), b.constant(np.float32(6))),
    ),
    "softmax": (13, lambda b, x: b.node("Softmax", x)),
    "sum_with_itself": (13, lambda b, x: b.node("Add", x, x)),
}


@pytest.mark.parametrize("op", BARRIERS)
def test_barrier_ends_the_chain(op: str) -> None:
    opset, build = BARRIERS[op]
    b = Builder(opset=opset)
    y = b.relu(b.dense("x", WIDTH, WIDTH))
    y = build(b, y)
    barrier = b.nodes[-1].name
    model = b.model([y], {"x": [3, WIDTH] if op == "per_position_constant" else ["batch", WIDTH]})
    if op == "per_position_constant":
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    (located,) = locate_chains(model)
    assert barrier not in located.nodes
    assert located.nodes == ("n0_MatMul", "n1_Relu")


def test_gemm_with_a_bias_per_position_is_a_barrier() -> None:
    b = Builder()
    y = b.relu(b.dense("x", WIDTH, 4))
    y = b.node("Gemm", y, b.weight(4, 2), b.weight(3, 2))
    (located,) = locate_chains(b.model([b.relu(y)], {"x": [3, WIDTH]}))
    assert located.nodes == ("n0_MatMul", "n1_Relu")


def test_gemm_with_a_variable_bias_is_a_barrier() -> None:
    b = Builder()
    y = b.relu(b.dense("x", WIDTH, 4))
    y = b.node("Gemm", y, b.weight(4, 2), "c")
    (located,) = locate_chains(b.model([b.relu(y)], {"x": ["batch", WIDTH], "c": [2]}))
    assert located.nodes == ("n0_MatMul", "n1_Relu")


def test_product_of_two_variables_is_a_barrier() -> None:
    b = Builder()
    y = b.relu(b.dense("x", WIDTH, 4))
    y = b.relu(b.node("MatMul", y, "w"))
    (located,) = locate_chains(b.model([y], {"x": ["batch", WIDTH], "w": [4, 4]}))
    assert located.nodes == ("n0_MatMul", "n1_Relu")


def test_matmul_along_another_axis_starts_a_chain_of_its_own() -> None:
    b = Builder()
    y = b.relu(b.dense("x", WIDTH, 4))
    y = b.relu(b.node("MatMul", b.weight(3, 5), y))
    found = check_model(b.model([y], {"x": ["batch", 5, WIDTH]}), count=2)
    assert [chain.chain.n_in for chain in found] == [WIDTH, 5]


def test_initializer_a_user_may_override_is_no_constant() -> None:
    b = Builder()
    w = b.weight(WIDTH, 4)
    y = b.relu(b.node("MatMul", "x", w))
    y = b.relu(b.dense(y, 4, 3))
    model = b.model([y])
    model.graph.input.append(helper.make_tensor_value_info(w, b.elem_type, [WIDTH, 4]))
    (located,) = locate_chains(model)
    assert located.nodes == ("n2_MatMul", "n3_Relu")


def test_bfloat16_weights_are_a_barrier() -> None:
    b = Builder()
    y = b.relu(b.dense("x", WIDTH, 4))
    model = b.model([y])
    tensor = helper.make_tensor(
        "c0", 16, [WIDTH, 4], np.zeros(2 * 4 * WIDTH, np.uint8).tobytes(), True
    )
    model.graph.initializer[0].CopyFrom(tensor)
    model.graph.input[0].type.tensor_type.elem_type = 16
    assert locate_chains(model) == ()


def test_operator_sets_before_7_are_left_alone() -> None:
    b = Builder(opset=6, ir=3)
    y = b.relu(b.dense("x", WIDTH, 4))
    assert locate_chains(b.model([y], check=False)) == ()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(value: float) -> None:
    weight = np.ones((WIDTH, 4), np.float32)
    weight[2, 1] = value
    b = Builder()
    y = b.relu(b.node("MatMul", "x", b.constant(weight, "bad")))
    with pytest.raises(ModelError, match="'bad' holds NaN or infinite") as caught:
        locate_chains(b.model([y]))
    assert "\n" not in str(caught.value)


def test_mask_of_minus_infinity_outside_chains_passes_through() -> None:
    b = Builder()
    mask = b.constant(np.array([0, -np.inf, 0, 0, 0, 0], np.float32))
    y = b.node("Softmax", b.node("Add", b.node("Sigmoid", "x"), mask))
    check_model(b.model([b.relu(b.gemm(y, WIDTH, 4))]))
