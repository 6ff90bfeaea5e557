"""Random networks as ONNX models, from end to end, at the vertices of their linear regions."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import onnx_exact
from onnx_exact.network import Box
from tests.oracle.families import model_of
from tests.oracle.networks import SOURCES, random_case
from tests.oracle.regions import enumerate_regions
from tests.oracle.rounding import own_rounding

NETWORKS = 25  # of each family


@pytest.mark.parametrize("seed", range(NETWORKS))
@pytest.mark.parametrize("family", SOURCES)
def test_optimized_model_equals_the_original_at_the_vertices_of_its_regions(
    family: str, seed: int
) -> None:
    """In float32, and so within the rounding of both models."""
    case = random_case(family, seed)
    model = model_of(case.chain, np.dtype(np.float32))
    before = model.SerializeToString()
    bounds = (case.box.lower.tolist(), case.box.upper.tolist())
    new, report = onnx_exact.optimize(model, domain={"x": bounds}, method="per-unit")

    regions = enumerate_regions(case.chain, case.box).regions
    points = single([p for region in regions for p in region.polytope.points], case.box)
    difference = run(new, points).astype(np.float64) - run(model, points)
    allowed = 2 * np.array(own_rounding(case.chain, case.box, np.dtype(np.float32)), dtype=float)
    assert (np.abs(difference) <= allowed).all(), case
    assert model.SerializeToString() == before
    assert report.totals.connections_after <= report.totals.connections_before


def single(points: list[tuple[object, ...]], box: Box) -> NDArray[np.float32]:
    """The nearest float32 points that do not leave the box, whose lower sides are float32."""
    nearest = np.array(points, dtype=np.float64).astype(np.float32)
    beyond = nearest.astype(np.float64) > box.upper
    nearest[beyond] = np.nextafter(nearest[beyond], np.float32(-np.inf))
    assert box.contains(nearest.astype(np.float64))
    return nearest


def run(model: onnx.ModelProto, points: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": points})[0])
