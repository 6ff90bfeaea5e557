"""Models spliced with a constant network: the same signature and shapes at every batch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_exact.graph import locate_chains, splice
from onnx_exact.network import Affine, Chain, Layer
from tests.graph.build import Builder, feed_for, run

LAYOUTS = {
    "matrix": (["batch", 6], False),
    "static": ([4, 6], False),
    "rank_3": (["batch", "time", 6], False),
    "column": ([6, "batch"], True),
    "column_rank_3": (["batch", 6, "time"], True),
}


@pytest.mark.parametrize("opset", [7, 8, 13])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_constant_network_keeps_its_signature_for_every_batch(layout: str, opset: int) -> None:
    shape, column = LAYOUTS[layout]
    b = Builder(opset=opset)
    if column:
        y = b.relu(b.node("MatMul", b.weight(5, 6), "x"))
        y = b.node("MatMul", b.weight(2, 5), y)
    else:
        y = b.dense(b.relu(b.dense("x", 6, 5)), 5, 2)
    model = b.model([y], {"x": shape})
    (located,) = locate_chains(model)
    value = np.array([1.5, -2.0])
    zero = Chain((Layer(Affine(np.zeros((2, 6)), value), False),))
    after = splice(model, [(located, zero)])
    onnx.checker.check_model(after, full_check=True)
    assert after.graph.input == model.graph.input
    assert after.graph.output == model.graph.output
    for batch in (1, 3, 7):
        feed = feed_for(model, batch=batch)
        (got,), (want,) = run(after, feed), run(model, feed)
        expected = np.broadcast_to(value[:, None] if column else value, want.shape)
        assert got.dtype == want.dtype
        assert np.array_equal(got, expected)
    assert all(0 not in t.dims for t in after.graph.initializer)


def test_constant_behind_a_reshape_keeps_its_shape() -> None:
    b = Builder()
    y = b.relu(b.gemm("x", 6, 4))
    y = b.relu(b.node("Reshape", b.gemm(y, 4, 4), b.ints(-1, 2, 2)))
    model = b.model([y])
    (located,) = locate_chains(model)
    zero = Chain((Layer(Affine(np.zeros((4, 6)), np.array([1.0, -1.0, 2.0, 3.0])), False),))
    after = splice(model, [(located, zero)])
    for batch in (1, 4):
        (got,) = run(after, feed_for(model, batch=batch))
        assert np.array_equal(got, np.tile([[[1.0, -1.0], [2.0, 3.0]]], (batch, 1, 1)))
