"""The same layers in the spellings of exporters: all are one chain, read right and written back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from onnx_exact import optimize
from onnx_exact.graph import Ranges, locate_chains
from onnx_exact.network import Box
from tests.graph.build import Builder, check_model, feed_for, run

Spelling = Callable[[Builder, str], str]


def zero(b: Builder) -> str:
    return b.constant(np.zeros((), b.dtype))


def clip_attribute(b: Builder, x: str) -> str:
    return b.node("Clip", x, min=0.0, max=float("inf"))


RELUS: dict[str, tuple[int, Spelling]] = {
    "Clip(x, 0)": (13, lambda b, x: b.node("Clip", x, zero(b))),
    "Clip(x, 0, inf)": (
        13,
        lambda b, x: b.node("Clip", x, zero(b), b.constant(np.asarray(np.inf, b.dtype))),
    ),
    "Clip by attributes": (7, clip_attribute),
    "Max(x, 0)": (13, lambda b, x: b.node("Max", x, zero(b))),
    "Max(0, x)": (13, lambda b, x: b.node("Max", zero(b), x)),
    "Max(x, zeros)": (13, lambda b, x: b.node("Max", x, b.constant(np.zeros(5, b.dtype)))),
    "LeakyRelu 0": (13, lambda b, x: b.node("LeakyRelu", x, alpha=0.0)),
    "PRelu 0": (13, lambda b, x: b.node("PRelu", x, b.constant(np.zeros(5, b.dtype)))),
    "ThresholdedRelu 0": (13, lambda b, x: b.node("ThresholdedRelu", x, alpha=0.0)),
    "Relu of Relu": (13, lambda b, x: b.relu(b.node("Identity", b.relu(x)))),
    "Relu of Cast": (13, lambda b, x: b.relu(b.node("Cast", x, to=b.elem_type))),
}


@pytest.mark.parametrize("name", RELUS)
def test_relu_in_other_spellings_is_a_unit_of_the_chain(name: str) -> None:
    opset, spelling = RELUS[name]
    b = Builder(opset=opset)
    y = b.gemm(spelling(b, b.gemm(spelling(b, b.gemm("x", 6, 5)), 5, 5)), 5, 3)
    (chain,) = check_model(b.model([y]))
    assert chain.chain.relu_units == 10
    assert len(chain.chain.layers) == 3


BETWEEN: dict[str, Spelling] = {
    "Cast to its own type": lambda b, x: b.node("Cast", x, to=b.elem_type),
    "Neg": lambda b, x: b.node("Neg", x),
    "Sum of one": lambda b, x: b.node("Sum", x),
    "Sum with a constant": lambda b, x: b.node("Sum", x, b.weight(5)),
    "Mean of one": lambda b, x: b.node("Mean", x),
    "Max of one": lambda b, x: b.node("Max", x),
    "Concat of one": lambda b, x: b.node("Concat", x, axis=1),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_only_acts_on_units_does_not_end_a_chain(name: str) -> None:
    b = Builder()
    y = b.gemm(b.relu(BETWEEN[name](b, b.gemm("x", 6, 5))), 5, 3)
    (chain,) = check_model(b.model([y]))
    assert chain.chain.relu_units == 5


def with_domain(model: ModelProto, domain: str, version: int = 1) -> ModelProto:
    model.opset_import.append(helper.make_opsetid(domain, version))
    for value in model.graph.output:
        value.type.tensor_type.shape.dim.add()
        value.type.tensor_type.shape.dim.add()
    return model


def fused(b: Builder, x: str, n_in: int, n_out: int, activation: str, **more: Any) -> str:
    return b.node(
        *("FusedGemm", x, b.weight(n_out, n_in), b.weight(n_out)),
        domain="com.microsoft",
        transB=1,
        activation=activation,
        **more,
    )


@pytest.mark.parametrize("more", [{}, {"alpha": 0.5, "beta": 2.0}])
def test_fused_gemm_is_a_product_and_its_relu(more: dict[str, float]) -> None:
    b = Builder()
    y = b.gemm(fused(b, fused(b, "x", 6, 5, "Relu", **more), 5, 4, "Relu"), 4, 2)
    (chain,) = check_model(with_domain(b.model([y], check=False), "com.microsoft"))
    assert chain.chain.relu_units == 9


def test_fused_gemm_with_another_activation_ends_a_chain() -> None:
    b = Builder()
    y = fused(b, b.relu(b.gemm("x", 6, 5)), 5, 4, "Tanh")
    (chain,) = locate_chains(with_domain(b.model([y], check=False), "com.microsoft"))
    assert len(chain.chain.layers) == 1


@pytest.mark.parametrize("turned", [0, 1])
def test_fused_matmul_is_a_product_with_a_factor(turned: int) -> None:
    b = Builder()
    weight = b.weight(4, 5) if turned else b.weight(5, 4)
    x = b.relu(b.gemm("x", 6, 5))
    y = b.node("FusedMatMul", x, weight, domain="com.microsoft", transB=turned, alpha=0.3)
    y = b.gemm(b.relu(y), 4, 2)
    (chain,) = check_model(with_domain(b.model([y], check=False), "com.microsoft"))
    assert chain.chain.relu_units == 9


def test_function_of_the_models_own_is_not_taken_for_the_operator_of_that_name() -> None:
    b = Builder()
    y = fused(b, fused(b, "x", 6, 5, "Relu"), 5, 4, "Relu")
    model = with_domain(b.model([y], check=False), "com.microsoft")
    inner = helper.make_node("MatMul", ["a", "b"], ["y"])
    opsets = [helper.make_opsetid("", 13)]
    model.functions.append(
        helper.make_function("com.microsoft", "FusedGemm", ["a", "b", "c"], ["y"], [inner], opsets)
    )
    assert locate_chains(model) == ()


def test_scaler_in_front_of_a_chain_leads_back_to_the_input() -> None:
    b = Builder()
    known = {"offset": [0.5] * 6, "scale": [2.0, 1.0, 0.5, -1.0, 3.0, 1.0]}
    x = b.node("Scaler", "x", domain="ai.onnx.ml", **known)
    y = b.node("MatMul", b.relu(b.dense(x, 6, 5)), b.weight(5, 2))
    model = with_domain(b.model([y], check=False), "ai.onnx.ml", 3)
    ranges = Ranges(model, {"x": Box(np.zeros((1, 6)), np.ones((1, 6)))})
    (chain,) = ranges.chains
    where = ranges.chain_domain(chain)
    assert where.origin is not None
    wanted = np.sort(np.outer([-0.5, 0.5], known["scale"]), axis=0)
    np.testing.assert_allclose(where.box.lower, wanted[0], rtol=1e-6)
    np.testing.assert_allclose(where.box.upper, wanted[1], rtol=1e-6)


# -- constants that are computed --


def places(values: Any) -> range:
    return range(len(values))


def codes(values: Any) -> Any:
    return np.round(50 * values).astype(np.int8)


STORED: dict[str, Callable[[Builder, Any], str]] = {
    "Identity": lambda b, w: b.node("Identity", b.constant(w)),
    "Transpose": lambda b, w: b.node("Transpose", b.constant(w.T.copy())),
    "Cast from float64": lambda b, w: b.node("Cast", b.constant(w.astype(np.float64)), to=1),
    "Cast from float16": lambda b, w: b.node("Cast", b.constant(w.astype(np.float16)), to=1),
    "Reshape": lambda b, w: b.node("Reshape", b.constant(w.reshape(-1)), b.ints(*w.shape)),
    "Concat": lambda b, w: b.node("Concat", b.constant(w[:2]), b.constant(w[2:]), axis=0),
    "Gather": lambda b, w: b.node("Gather", b.constant(w[::-1].copy()), b.ints(*places(w)[::-1])),
    "Mul": lambda b, w: b.node("Mul", b.constant(w), b.constant(np.float32(1 / 3))),
    "Add": lambda b, w: b.node("Add", b.constant(w), b.constant(w[:1].copy())),
    "Where": lambda b, w: b.node("Where", b.constant(w > 0), b.constant(w), b.constant(-w)),
    "DequantizeLinear": lambda b, w: b.node(
        "DequantizeLinear",
        b.constant(codes(w)),
        b.constant(np.float32(0.02)),
    ),
    "QuantizeLinear": lambda b, w: b.node(
        "DequantizeLinear",
        b.node("QuantizeLinear", b.constant(w), b.constant(np.float32(0.02))),
        b.constant(np.float32(0.02)),
    ),
}


@pytest.mark.parametrize("name", STORED)
def test_weights_that_nodes_compute_of_constants_are_constants(name: str) -> None:
    b = Builder(opset=13)

    def gemm(x: str, n_in: int, n_out: int) -> str:
        weight = STORED[name](b, b.rng.normal(size=(n_out, n_in)).astype(np.float32))
        return b.node("Gemm", x, weight, b.weight(n_out), transB=1)

    y = gemm(b.relu(gemm("x", 6, 5)), 5, 3)
    (chain,) = check_model(b.model([y]))
    assert chain.chain.relu_units == 5


def test_what_only_replaced_nodes_read_goes_with_all_that_made_it() -> None:
    b = Builder()
    shared = b.constant(np.float32(0.5), "shared")
    weight = b.rng.normal(size=(5, 6)).astype(np.float32)
    codes = b.node("Identity", b.constant(weight, "stored"))
    scaled = b.node("Mul", codes, shared)
    dead = b.constant(np.float32([-99, -99, 0, 0, 0]))
    y = b.gemm(b.relu(b.node("Gemm", "x", scaled, dead, transB=1)), 5, 3)
    z = b.node("Mul", "x", shared)
    model = b.model([y, z])
    new, report = optimize(model, domain="0:1")
    assert report.totals.units_after is not None
    assert report.totals.units_after <= 3
    assert [node.op_type for node in new.graph.node].count("Identity") == 0
    names = {tensor.name for tensor in new.graph.initializer}
    assert "shared" in names
    assert "stored" not in names
    feed = {"x": np.random.default_rng(0).random((4, 6), np.float32)}
    for old, after in zip(run(model, feed), run(new, feed), strict=True):
        np.testing.assert_allclose(after, old, atol=1e-5)


def test_constants_of_layers_that_stay_keep_their_nodes() -> None:
    b = Builder()
    kept = b.node("Identity", b.weight(5, 6), name="kept")
    y = b.gemm(b.relu(b.node("Gemm", "x", kept, b.weight(5), transB=1)), 5, 3)
    model = b.model([y])
    new, report = optimize(model, domain="-9:9")
    assert not report.changed
    assert [n.name for n in new.graph.node] == [n.name for n in model.graph.node]


@pytest.mark.parametrize("elem_type", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_cast_to_another_type_ends_a_chain(elem_type: int) -> None:
    b = Builder()
    x = b.node("Cast", b.relu(b.gemm("x", 6, 5)), to=elem_type)
    y = b.gemm(b.node("Cast", x, to=1), 5, 3)
    chains = locate_chains(b.model([y]))
    assert [len(chain.chain.layers) for chain in chains] == [1]


def test_chain_of_all_spellings_is_reduced_to_the_same_function() -> None:
    b = Builder()
    y = "x"
    for i, (_, spelling) in enumerate(RELUS.values()):
        if spelling is not clip_attribute:
            bias = b.constant(np.float32([-99.0, 99.0, 0.1, -0.1, 0.0]))
            weight = b.rng.normal(0, 0.4, (5, 5 if i else 6)).astype(np.float32)
            y = spelling(b, b.node("Gemm", y, b.constant(weight), bias, transB=1))
    model = b.model([y])
    new, report = optimize(model, domain="0:1")
    assert report.totals.units_after is not None
    assert report.totals.units_after < report.totals.units_before
    feed = {"x": np.random.default_rng(0).random((50, 6), np.float32)}
    (old,), (after,) = run(model, feed), run(new, feed)
    np.testing.assert_allclose(after, old, rtol=1e-3)
    assert feed_for(model).keys() == feed.keys()
