"""What reading a model computes is rounded where it is written, and counted, or left as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_exact
from onnx_exact.graph import locate_chains, splice
from onnx_exact.report import Report
from tests.graph.build import Builder, feed_for, run

NOTHING_STABLE = "-1:1"


def in_a_row(narrow: int = 5, integers: bool = False, dtype: Any = np.float32) -> onnx.ModelProto:
    """6 -> 3 and on to `narrow` units, and a last layer; no ReLU between the first two."""
    b = Builder(dtype=dtype)

    def matrix(*shape: int) -> str:
        values = b.rng.integers(-4, 5, size=shape) if integers else b.rng.normal(size=shape)
        return b.constant(values.astype(dtype))

    y = b.node("Gemm", "x", matrix(8, 6), matrix(8), transB=1)
    y = b.relu(b.node("Gemm", y, matrix(narrow, 8), b.constant(np.zeros(narrow, dtype)), transB=1))
    return b.model([b.node("Gemm", y, matrix(2, narrow), transB=1)])


def optimized(model: onnx.ModelProto, **settings: Any) -> tuple[onnx.ModelProto, Report]:
    return onnx_exact.optimize(model, domain=NOTHING_STABLE, method="bounds", **settings)


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_a_product_with_fewer_entries_than_its_factors_is_written() -> None:
    model = in_a_row()
    after, report = optimized(model)
    assert kinds(after) == ["Gemm", "Relu", "Gemm"]
    assert report.changed
    assert report.totals.connections_before == 8 * 6 + 5 * 8 + 2 * 5
    assert report.totals.connections_after == 5 * 6 + 2 * 5
    assert report.chains[0].rounded
    (before,), (now,) = (run(m, feed_for(model)) for m in (model, after))
    np.testing.assert_allclose(now, before, rtol=1e-4, atol=1e-4)


def test_a_product_that_may_not_be_rounded_stays_in_factors() -> None:
    model = in_a_row()
    after, report = optimized(model, max_deviation=0.0)
    assert after.graph == model.graph
    assert not report.changed
    assert report.totals.connections_after == report.totals.connections_before == 98
    (refusal,) = report.refused
    assert refusal.numbers["deviation"] > refusal.numbers["allowed"] == 0.0


def test_a_product_that_the_dtype_holds_is_written_whatever_may_deviate() -> None:
    model = in_a_row(integers=True)
    after, report = optimized(model, max_deviation=0.0)
    assert kinds(after) == ["Gemm", "Relu", "Gemm"]
    assert report.refused == ()
    (before,), (now,) = (run(m, feed_for(model)) for m in (model, after))
    np.testing.assert_allclose(now, before, rtol=1e-5, atol=1e-5)


def test_a_product_with_as_many_entries_as_its_factors_is_not_worth_a_change() -> None:
    """6 x 12 = 72 = 6 x 4 + 4 x 12: folded as it is read, left as it is."""
    b = Builder()
    y = b.dense(b.dense("x", 6, 4), 4, 12)
    model = b.model([b.dense(b.relu(y), 12, 2)])
    (located,) = locate_chains(model)
    assert [layer.affine.weight.shape for layer in located.chain.layers] == [(12, 6), (2, 12)]
    assert located.folded == (False, False)
    after, report = optimized(model)
    assert after.graph == model.graph
    assert not report.changed


def test_a_product_that_does_not_fit_the_dtype_is_refused() -> None:
    b = Builder(dtype=np.float16)
    y = b.node("MatMul", "x", b.constant(np.full((6, 8), 300, np.float16)))
    y = b.relu(b.node("MatMul", y, b.constant(np.full((8, 5), 300, np.float16))))
    model = b.model([b.node("MatMul", y, b.weight(5, 2))])
    after, report = optimized(model)
    assert after.graph == model.graph
    assert any("does not fit float16" in refusal.reason for refusal in report.refused)


def scaled(dead: bool) -> onnx.ModelProto:
    """A first layer whose units are scaled by factors that no float32 product holds."""
    b = Builder()
    weight = b.rng.normal(size=(5, 6)).astype(np.float32)
    bias = np.zeros(5, np.float32)
    if dead:
        bias[2] = -100.0
    y = b.node("Gemm", "x", b.constant(weight), b.constant(bias), transB=1)
    y = b.relu(b.node("Mul", y, b.positive(5)))
    return b.model([b.gemm(y, 5, 2)])


def test_computed_weights_that_nothing_changes_keep_their_nodes() -> None:
    model = scaled(dead=False)
    after, report = optimized(model)
    assert not report.changed
    assert after.graph == model.graph


def test_computed_weights_count_as_rounded_where_their_layer_is_written_anew() -> None:
    model = scaled(dead=True)
    after, report = optimized(model)
    assert report.chains[0].layers[0].removed == 1
    assert report.chains[0].rounded
    (before,), (now,) = (run(m, feed_for(model)) for m in (model, after))
    np.testing.assert_allclose(now, before, rtol=1e-4, atol=1e-4)
    strict, report = optimized(model, max_deviation=0.0)
    assert strict.graph == model.graph
    assert not report.changed
    assert report.chains[0].layers[0].removed == 0
    assert report.refused[0].what == "store weights that reading computed"


@pytest.mark.parametrize("same", [True, False])
def test_splice_keeps_the_factors_of_the_very_layer_that_was_read(same: bool) -> None:
    model = in_a_row(integers=True)
    (located,) = locate_chains(model)
    assert located.folded == (True, False)
    first = located.chain.layers[0]
    layers = (first if same else replace(first), located.chain.layers[1])
    after = splice(model, [(located, replace(located.chain, layers=layers))])
    assert (after == model) == same
