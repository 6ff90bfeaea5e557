"""What is large is kept in float32 and read by blocks: no other result comes out of it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_exact import optimize_file, verify
from onnx_exact.graph.ops import step
from onnx_exact.graph.ranges import Ranges
from onnx_exact.network import operator
from onnx_exact.network.operator import Blocks
from onnx_exact.reduce import collinear
from tests.verifier.build import gemm_model


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Units of every kind: dead, active, multiples of others, and unstable."""
    rng = np.random.default_rng(7)
    layers = []
    for inputs, outputs in pairwise((6, 24, 18, 3)):
        weight = rng.normal(0, inputs**-0.5, (outputs, inputs)).astype(np.float32)
        bias = rng.normal(0, 0.2, outputs).astype(np.float32)
        if outputs > 3:
            weight[3], bias[3] = -2 * weight[2], -2 * bias[2]
            bias[4:8], bias[8:12] = -9.0, 9.0
        layers.append((weight.tolist(), bias.tolist(), outputs > 3))
    path = tmp_path / "in.onnx"
    onnx.save(gemm_model(layers), path)
    return path


def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """From one entry on, and a block has few of them."""
    for module in (operator, step):
        monkeypatch.setattr(module, "LARGE", 1)
    monkeypatch.setattr(operator, "BLOCK", 16)
    monkeypatch.setattr(collinear, "BLOCK", 4)


def test_weights_of_a_large_chain_are_read_by_blocks(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything_is_large(monkeypatch)
    (located,) = Ranges(onnx.load(network), {}).chains
    assert all(isinstance(layer.affine.linear, Blocks) for layer in located.chain.layers)


@pytest.mark.parametrize("goal", ["verify", "size"])
def test_a_large_model_is_reduced_as_a_small_one_is(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goal: str
) -> None:
    certificate = {"certificate": tmp_path / "c.npz"} if goal != "size" else {}
    small = optimize_file(network, tmp_path / "small.onnx", domain="-1:1", goal=goal)
    everything_is_large(monkeypatch)
    large = optimize_file(network, tmp_path / "large.onnx", domain="-1:1", goal=goal, **certificate)
    assert large.totals == small.totals
    assert large.totals.units_after < large.totals.units_before
    if certificate:
        found = verify(network, tmp_path / "large.onnx", tmp_path / "c.npz", "-1:1")
        assert found.exit_code == 0
