"""Bypasses in every dialect and layout that chains are found in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from onnx_exact.graph import locate_chains, splice
from onnx_exact.network import Affine, Layer, SplitChain
from tests.graph.build import Builder, feed_for, run

SHAPES = {"matrix": ["batch", 6], "static": [4, 6], "rank 3": ["batch", "time", 6]}
COLUMNS = {"column": [6, "batch"], "column of rank 3": ["batch", 6, "time"]}
# Relative to the largest value: the rounding of float32 products of a few terms.
TOLERANCE = 1e-5


def gemms(shape: list[int | str]) -> ModelProto:
    b = Builder()
    y = b.relu(b.gemm("x", 6, 5))
    y = b.relu(b.gemm(y, 5, 4))
    return b.model([b.gemm(y, 4, 2)], {"x": shape})


def matmuls(shape: list[int | str]) -> ModelProto:
    b = Builder()
    y = b.relu(b.node("Add", b.dense("x", 6, 5), b.weight(5)))
    y = b.relu(b.node("Add", b.weight(4), b.dense(y, 5, 4)))
    return b.model([b.dense(y, 4, 2)], {"x": shape})


def columns(shape: list[int | str]) -> ModelProto:
    b = Builder()
    y = b.relu(b.node("Add", b.node("MatMul", b.weight(5, 6), "x"), b.weight(5, 1)))
    y = b.relu(b.node("MatMul", b.weight(4, 5), y))
    return b.model([b.node("MatMul", b.weight(2, 4), y)], {"x": shape})


def transposed(shape: list[int | str]) -> ModelProto:
    """Columns at the beginning, rows at the end: the first Gemm transposes what it reads."""
    b = Builder()
    y = b.relu(b.node("Gemm", "x", b.weight(6, 5), b.weight(5), transA=1))
    y = b.relu(b.gemm(y, 5, 4))
    return b.model([b.gemm(y, 4, 2)], {"x": shape})


def narrowed(model: ModelProto, around: tuple[bool, ...]) -> tuple[ModelProto, SplitChain]:
    """The model with a unit less in each hidden layer, and random bypasses where said."""
    (located,) = locate_chains(model)
    rng = np.random.default_rng(0)
    layers: list[Layer] = []
    bypasses = []
    for index, layer in enumerate(located.chain.layers):
        last = index == len(located.chain.layers) - 1
        n_in = layers[-1].width if layers else layer.affine.n_in
        n_out = layer.width - (not last)
        weight = rng.normal(size=(n_out, n_in)).astype(np.float32)
        bias = rng.normal(size=n_out).astype(np.float32)
        wide = layers[-1].affine.n_in if layers else 0
        bypass = rng.normal(size=(n_out, wide)).astype(np.float32).astype(np.float64)
        layers.append(Layer(Affine(weight, bias), layer.relu))
        bypasses.append(bypass if around[index] else None)
    chain = SplitChain(tuple(layers), tuple(bypasses))
    return splice(model, [(located, chain)]), chain


CASES: list[tuple[Callable[[list[int | str]], ModelProto], list[int | str]]] = [
    *((gemms, shape) for shape in list(SHAPES.values())[:2]),
    *((matmuls, shape) for shape in SHAPES.values()),
    *((columns, shape) for shape in COLUMNS.values()),
    (transposed, [6, "batch"]),
]


@pytest.mark.parametrize(("build", "shape"), CASES)
@pytest.mark.parametrize("around", [(False, True, False), (False, False, True)])
def test_a_model_with_a_bypass_computes_what_the_split_chain_says(
    build: Callable[[list[int | str]], ModelProto],
    shape: list[int | str],
    around: tuple[bool, ...],
) -> None:
    model = build(shape)
    after, chain = narrowed(model, around)
    onnx.checker.check_model(after, full_check=True)
    feed = feed_for(model)
    x = np.asarray(next(iter(feed.values())), dtype=np.float64)
    axis = shape.index(6)
    rows = np.moveaxis(x, axis, -1)
    expected = chain.forward(rows.reshape(-1, 6)).reshape(*rows.shape[:-1], -1)
    if build is not transposed:
        expected = np.moveaxis(expected, -1, axis)
    (found,) = run(after, feed)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE * np.abs(expected).max())
    assert len({node.name for node in after.graph.node}) == len(after.graph.node)


def test_a_gemm_takes_the_bypass_in_place_of_its_bias() -> None:
    after, _ = narrowed(gemms(["batch", 6]), (False, True, False))
    kinds = " ".join(node.op_type for node in after.graph.node)
    assert kinds == "Gemm Relu Gemm Gemm Relu Gemm"
    around, read = after.graph.node[2:4]
    assert around.input[0] == "x"
    assert read.input[2] == around.output[0]


def test_a_bypass_around_a_layer_that_stays_as_it_is_is_refused() -> None:
    model = gemms(["batch", 6])
    (located,) = locate_chains(model)
    bypasses = (None, np.ones((4, 6)), None)
    chain = SplitChain(located.chain.layers, bypasses)
    with pytest.raises(ValueError, match="a layer that stays as it is"):
        splice(model, [(located, chain)])


def test_layers_without_a_bypass_that_stay_keep_their_nodes() -> None:
    model = gemms(["batch", 6])
    (located,) = locate_chains(model)
    first, second, third = located.chain.layers
    changed = Layer(Affine(first.affine.weight[:4], first.affine.bias[:4]), True)
    read = Layer(Affine(second.affine.weight[:, :4], second.affine.bias), True)
    chain = SplitChain((changed, read, third), (None, np.ones((4, 6)), None))
    after = splice(model, [(located, chain)])
    assert after.graph.node[-1] == model.graph.node[-1]
