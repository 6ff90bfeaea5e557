"""What the reductions leave of real networks, and how far these deviate in onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from onnx_exact.graph.locate import locate_chains
from onnx_exact.network import Box
from onnx_exact.network.affine import Array
from onnx_exact.pipeline import optimize
from onnx_exact.report import ChainReport, Report

ROOT = Path(__file__).parents[2]
OWN = [ROOT / "models" / f"{name}.onnx" for name in ("mnist_2x400_l1", "mnist_5x100_l1")]
OTHERS = [ROOT.parent / "shared" / "models" / "serra_cifar10_400-400_l1_pruned.onnx"]
POINTS = 2000
# How far a reduced network may be from the float64 result, as a multiple of the original's own.
MOST_DEVIATION = 3.0

every_network = pytest.mark.parametrize("path", [*OWN, *OTHERS], ids=lambda path: path.stem)


def optimized(path: Path, reductions: str = "all") -> tuple[onnx.ModelProto, Report]:
    if not path.exists():
        pytest.skip(f"{path.name} is not there")
    return optimize(path, domain="0:1", method="bounds", reductions=reductions)


@every_network
def test_a_layer_keeps_its_unstable_units_and_no_more_than_is_needed(path: Path) -> None:
    _, report = optimized(path)
    (chain,) = report.chains
    for index in range(len(chain.layers) - 1):
        assert_needed(chain, index)


def assert_needed(chain: ChainReport, index: int) -> None:
    layer, after = chain.layers[index : index + 2]
    inputs = chain.layers[index - 1].units_after if index else chain.inputs
    assert layer.units_after is not None
    assert after.units_after is not None
    assert inputs is not None
    need = min(layer.stably_active, inputs, after.units_after)
    assert layer.units_after <= layer.unstable + layer.undecided + need
    gone = layer.removed + layer.negligible + layer.merged + layer.folded
    assert layer.units == gone + layer.units_after


@every_network
def test_connections_are_fewer_than_the_published_reductions_leave(path: Path) -> None:
    everything, published = (optimized(path, name)[1].totals for name in ("all", "published"))
    assert everything.connections_after is not None
    assert published.connections_after is not None
    assert everything.connections_after < published.connections_after


def test_a_quarter_of_the_connections_of_mnist_2x400_is_left() -> None:
    totals = optimized(OWN[0])[1].totals
    assert totals.connections_after is not None
    assert totals.connections_after < 0.25 * totals.connections_before


@every_network
def test_the_deviation_from_the_float64_result_stays_of_the_order_of_the_original(
    path: Path,
) -> None:
    new, _ = optimized(path)
    original = onnx.load(path)
    chain = locate_chains(original)[0].chain
    box = Box(np.zeros(chain.n_in), np.ones(chain.n_in))
    rng = np.random.default_rng(0)
    points = np.vstack([box.sample(rng, POINTS), box.corners(rng, POINTS)]).astype(np.float32)
    exact = chain.forward(points.astype(np.float64))
    own, found = (np.abs(outputs(model, points) - exact).max() for model in (original, new))
    assert found <= MOST_DEVIATION * own


def outputs(model: onnx.ModelProto, points: NDArray[np.float32]) -> Array:
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.asarray(session.run(None, {name: points})[0], dtype=np.float64)
