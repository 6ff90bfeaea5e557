"""Networks that others made, run against where they are at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_exact.graph import Ranges, inputs_of, locate_chains, read_model
from onnx_exact.network import Box
from tests.graph.build import check_model, run

MODELS = Path(__file__).parents[2].parent / "shared" / "models"
WIDTHS = {
    "ACASXU_run2a_1_1_batch_2000": [50, 50, 50, 50, 50, 50, 5],
    "ACASXU_run2a_3_3_batch_2000": [50, 50, 50, 50, 50, 50, 5],
    "cartpole": [64, 64, 2],
    "cifar_base_kw": [100, 10],
    "lindex": [128, 128, 128, 1],
    "mnist-net_256x2": [256, 256, 10],
    "mnist-net_256x4": [256, 256, 256, 256, 10],
    "mnist_relu_9_200": [200, 200, 200, 200, 200, 200, 200, 200, 10],
    "serra_cifar100_400-400_l1_pruned": [170, 380, 100],
    "serra_cifar10_400-400_l1_pruned": [116, 248, 10],
    "serra_mnist_100-100": [100, 100, 10],
}
# Interiors are compared in float32 against real arithmetic, relative to the largest value.
SLACK = 1e-5
pytestmark = pytest.mark.skipif(not MODELS.is_dir(), reason=f"{MODELS} is not there")


@pytest.mark.parametrize("name", WIDTHS)
def test_network_is_found_rebuilt_and_bounded(name: str) -> None:
    source = read_model(MODELS / f"{name}.onnx")
    (located,) = check_model(source.model)
    assert [layer.width for layer in located.chain.layers] == WIDTHS[name]
    assert all(layer.relu for layer in located.chain.layers[:-1])
    assert located.chain.layers[-1].relu == (name == "mnist_relu_9_200")
    (spec,) = inputs_of(source.model)
    assert spec.shape is not None
    rank = (1,) * len(spec.shape)
    ranges = Ranges(source.model, {spec.name: Box(np.zeros(rank), np.ones(rank))})
    tensors = [o for node in source.model.graph.node for o in node.output]
    rng = np.random.default_rng(0)
    for _ in range(2):
        x = rng.random([d or 3 for d in spec.shape]).astype(np.float32)
        for tensor, value in zip(tensors, run(source.model, {spec.name: x}, tensors), strict=True):
            box = ranges.of(tensor)
            slack = SLACK * max(1.0, float(np.abs(value).max()))
            assert box.finite
            assert (box.lower - slack <= value).all(), tensor
            assert (value <= box.upper + slack).all(), tensor
    origin = ranges.chain_domain(located).origin
    assert (origin is None) == (name == "cifar_base_kw")


@pytest.mark.parametrize("name", ["ACASXU_run2a_1_1_batch_2000", "mnist_relu_9_200", "lindex"])
def test_points_of_the_chain_come_from_the_graph(name: str) -> None:
    model = onnx.load(MODELS / f"{name}.onnx")
    (located,) = locate_chains(model)
    (spec,) = inputs_of(model)
    assert spec.shape is not None
    rank = (1,) * len(spec.shape)
    domain = Ranges(model, {spec.name: Box(np.zeros(rank), np.ones(rank))}).chain_domain(located)
    assert domain.origin is not None
    points = domain.box.sample(np.random.default_rng(0), 5)
    samples = domain.origin.to_graph(points)
    for point, sample in zip(points, samples, strict=True):
        feed = {spec.name: sample[None].astype(np.float32)}
        (found,) = run(model, feed, [located.input])
        np.testing.assert_allclose(found.reshape(-1), point, atol=SLACK)
