"""Each reason why something is in no chain, why a chain ends, and why a domain is open."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from onnx_exact.graph import Ranges
from onnx_exact.network import Box
from tests.graph.build import Builder

Maker = Callable[[], ModelProto]


def built(
    make: Callable[[Builder], str],
    inputs: dict[str, list[int | str]] | None = None,
    opset: int = 13,
) -> ModelProto:
    b = Builder(opset=opset)
    return b.model([make(b)], inputs, check=False)


def overridable() -> ModelProto:
    b = Builder()
    weight = b.weight(6, 5)
    y = b.relu(b.node("MatMul", "x", weight, name="fc"))
    model = b.model([y])
    value = helper.make_tensor_value_info(weight, TensorProto.FLOAT, [6, 5])
    model.graph.input.append(value)
    return model


def unknown_rank() -> ModelProto:
    model = built(lambda b: b.relu(b.node("MatMul", "x", b.weight(6, 5), name="fc")))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def of_integers() -> ModelProto:
    b = Builder()
    weight = b.constant(np.ones((6, 5), np.int32), "codes")
    y = b.node("MatMul", b.node("Cast", "x", to=6), weight, name="fc")
    return b.model([b.node("Cast", y, to=1)], check=False)


def function() -> ModelProto:
    model = built(lambda b: b.relu(b.node("Layer", "x", domain="my", name="layer")))
    model.opset_import.append(helper.make_opsetid("my", 1))
    inner = helper.make_node("Neg", ["a"], ["z"])
    opsets = [helper.make_opsetid("", 13)]
    model.functions.append(helper.make_function("my", "Layer", ["a"], ["z"], [inner], opsets))
    return model


def nothing() -> ModelProto:
    return built(lambda b: b.node("Sigmoid", "x"))


IMAGE: dict[str, list[int | str]] = {"x": ["n", 2, 6, 6]}
TWO: dict[str, list[int | str]] = {"x": ["n", 6], "z": [6, 5]}

# The model, and what some line of `left_out` holds.
LEFT_OUT: dict[str, tuple[Maker, str]] = {
    "a convolution": (
        lambda: built(
            lambda b: b.node("Relu", b.node("Conv", "x", b.weight(3, 2, 3, 3), name="c"), name="r"),
            IMAGE,
        ),
        "Relu 'r' reads Conv 'c', which is a convolution",
    ),
    "a residual connection": (
        lambda: built(lambda b: b.node("Relu", b.node("Add", "x", b.gemm("x", 6, 6)), name="r")),
        "joins tensors that all vary ('x', ",
    ),
    "an input": (
        lambda: built(lambda b: b.node("Relu", "x", name="r")),
        "Relu 'r' reads the input 'x' of the graph: no layer is in front of it",
    ),
    "another operator": (
        lambda: built(lambda b: b.relu(b.node("Softmax", "x", name="s"))),
        "reads Softmax 's', which is no layer of a chain",
    ),
    "a weight that can be overridden": (
        overridable,
        "which is a graph input too, so it can be overridden: take it out of the graph's inputs",
    ),
    "two that vary": (
        lambda: built(lambda b: b.relu(b.node("MatMul", "x", "z", name="fc")), TWO),
        "reads MatMul 'fc', which multiplies two tensors that both vary ('x', 'z')",
    ),
    "an unknown rank": (
        unknown_rank,
        "reads 'x' of unknown rank: declare the shapes of the graph's inputs",
    ),
    "a weight of integers": (of_integers, "reads 'codes' of type int32, which is not read"),
    "sizes that do not fit": (
        lambda: built(lambda b: b.relu(b.node("MatMul", "x", b.weight(7, 5), name="fc"))),
        "reads 'x', whose sizes do not fit",
    ),
    "constants alone": (
        lambda: built(
            lambda b: b.node("Add", "x", b.node("MatMul", b.weight(1, 2), b.weight(2, 6)))
        ),
        "reads constants alone",
    ),
    "an old operator set": (
        lambda: built(lambda b: b.relu(b.node("MatMul", "x", b.weight(6, 5))), opset=6),
        "is of operator set 6; chains are read from 7 on",
    ),
    "a function": (function, "Layer 'layer', which is a function of the model's own"),
    "a stack of matrices": (
        lambda: built(
            lambda b: b.relu(b.node("MatMul", "x", b.weight(2, 6, 5))), {"x": ["n", 2, 3, 6]}
        ),
        "which is not one number (or matrix) for all",
    ),
    "a product that stands alone": (
        lambda: built(lambda b: b.node("Softmax", b.gemm("x", 6, 5), name="s")),
        "stands alone, no chain comes to a ReLU or another: Softmax 's' is no layer of a chain",
    ),
    "a product with two readers": (
        lambda: built(
            lambda b: (lambda y: b.node("Add", b.node("Relu", y, name="r"), y, name="a"))(
                b.gemm("x", 6, 5)
            )
        ),
        "has several readers: Relu 'r', Add 'a'",
    ),
    "nothing": (nothing, "there is no Gemm or MatMul with a constant"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_in_no_chain_comes_with_the_node_and_the_reason(name: str) -> None:
    make, wanted = LEFT_OUT[name]
    lines = Ranges(make(), {}).left_out()
    assert any(wanted in line for line in lines), lines
    assert all("\n" not in line for line in lines)


def behind(make: Callable[[Builder, str], str]) -> Maker:
    """A chain of two layers, and what comes behind it."""
    return lambda: built(lambda b: make(b, b.gemm(b.relu(b.gemm("x", 6, 5)), 5, 4)))


def overridden_bias() -> ModelProto:
    model = built(lambda b: b.node("Add", b.gemm(b.relu(b.gemm("x", 6, 5)), 5, 4), "bias"))
    model.graph.initializer.append(helper.make_tensor("bias", TensorProto.FLOAT, [4], [0.0] * 4))
    model.graph.input.append(helper.make_tensor_value_info("bias", TensorProto.FLOAT, [4]))
    return model


def read_in_a_branch() -> ModelProto:
    b = Builder()
    y = b.gemm(b.relu(b.gemm("x", 6, 5)), 5, 4)
    inner = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    parts = [
        helper.make_graph([helper.make_node(op, [y], ["inner"])], op, [], [inner])
        for op in ("Neg", "Abs")
    ]
    flag = b.constant(np.asarray(True))
    z = b.node("If", flag, then_branch=parts[0], else_branch=parts[1])
    return b.model([z], check=False)


ENDS: dict[str, tuple[Maker, str]] = {
    "an output": (behind(lambda b, y: y), "is an output of the graph"),
    "a branch": (read_in_a_branch, "is read in a branch"),
    "two readers": (
        behind(lambda b, y: b.node("Mul", y, b.node("Sigmoid", y))),
        "has several readers: Sigmoid",
    ),
    "another operator": (
        behind(lambda b, y: b.node("Softmax", y, name="s")),
        "Softmax 's' is no layer of a chain",
    ),
    "a tensor that varies": (
        behind(
            lambda b, y: b.node("Add", y, b.node("Slice", "x", b.ints(0), b.ints(4), b.ints(1)))
        ),
        "which varies as well",
    ),
    "a constant that can be overridden": (overridden_bias, "reads 'bias', which is a graph input"),
    "a kink that may be met": (
        behind(lambda b, y: b.node("LeakyRelu", y, name="leaky")),
        "LeakyRelu 'leaky' is linear in pieces, of which its input may be in several",
    ),
    "a reshape": (
        behind(lambda b, y: b.node("Reshape", y, b.ints(-1, 2), name="mixes")),
        "Reshape 'mixes' mixes the units with other axes",
    ),
    "a cast": (behind(lambda b, y: b.node("Cast", y, to=11)), "changes the type"),
    "a dropout": (
        behind(lambda b, y: b.node("Dropout", y, "", b.constant(np.asarray(True)))),
        "may drop units: it trains",
    ),
    "a constant by position": (
        lambda: built(
            lambda b: b.node("Add", b.dense(b.relu(b.dense("x", 6, 5)), 5, 4), b.weight(3, 4)),
            {"x": [3, 6]},
        ),
        "which is not one number (or matrix) for all",
    ),
    "a batch normalisation that trains": (
        behind(
            lambda b, y: b.node(
                *("BatchNormalization", y, *(b.positive(4) for _ in range(4))), training_mode=1
            )
        ),
        "is not in inference form",
    ),
    "a ReLU that adds no layer": (
        behind(lambda b, y: b.node("Squeeze", b.node("Unsqueeze", y, b.ints(1)), b.ints(1))),
        "adds no layer",
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_end_of_a_chain_comes_with_its_reason(name: str) -> None:
    make, wanted = ENDS[name]
    ranges = Ranges(make(), {})
    ends = [ranges.end_of(chain) for chain in ranges.chains]
    assert any(wanted in end for end in ends), ends


def test_fused_product_with_another_activation_says_so() -> None:
    b = Builder()
    x = b.relu(b.gemm("x", 6, 5))
    y = b.node("FusedGemm", x, b.weight(5, 4), domain="com.microsoft", activation="Tanh")
    model = b.model([y], check=False)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    ranges = Ranges(model, {})
    assert "has another activation than Relu" in ranges.end_of(ranges.chains[0])


def test_what_leaves_a_domain_open_is_named() -> None:
    b = Builder()
    hidden = b.node("Tan", b.node("Sigmoid", "x"), name="tan")
    model = b.model([b.relu(b.gemm(hidden, 6, 5)), b.node("Exp", b.node("Neg", "x"))])
    ranges = Ranges(model, {})
    (chain,) = ranges.chains
    assert ranges.unbounded(chain.input) == "Tan 'tan' has no bounds that are known"
    exponential = model.graph.output[1].name
    found = ranges.unbounded(exponential)
    assert found == "nothing bounds the input 'x'; give --domain x=LO:HI"
    unit = Ranges(model, {"x": Box(np.zeros((1, 6)), np.ones((1, 6)))})
    assert unit.unbounded(exponential) is None
