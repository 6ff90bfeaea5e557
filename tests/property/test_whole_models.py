"""Random networks as ONNX models, from end to end, at the vertices of their linear regions."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import onnx_exact
from onnx_exact.network import Box, Chain
from tests.oracle.networks import SOURCES, random_case
from tests.oracle.regions import enumerate_regions
from tests.oracle.rounding import own_rounding

NETWORKS = 25  # of each family
OPSET, IR_VERSION = 17, 8


@pytest.mark.parametrize("seed", range(NETWORKS))
@pytest.mark.parametrize("family", SOURCES)
def test_optimized_model_equals_the_original_at_the_vertices_of_its_regions(
    family: str, seed: int
) -> None:
    """In float32, and so within the rounding of both models."""
    case = random_case(family, seed)
    model = model_of(case.chain)
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


def model_of(chain: Chain) -> onnx.ModelProto:
    """The chain as Gemm and Relu nodes in float32, which holds its numbers."""
    nodes, tensors, name = [], [], "x"
    for i, layer in enumerate(chain.layers):
        for key, array in ((f"w{i}", layer.affine.weight), (f"b{i}", layer.affine.bias)):
            tensors.append(onnx.numpy_helper.from_array(array.astype(np.float32), key))
        nodes.append(onnx.helper.make_node("Gemm", [name, f"w{i}", f"b{i}"], [f"g{i}"], transB=1))
        name = f"g{i}"
        if layer.relu:
            nodes.append(onnx.helper.make_node("Relu", [name], [f"h{i}"]))
            name = f"h{i}"
    nodes[-1].output[0] = "y"
    x, y = (
        onnx.helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT, ["batch", width])
        for key, width in (("x", chain.n_in), ("y", chain.n_out))
    )
    graph = onnx.helper.make_graph(nodes, "chain", [x], [y], tensors)
    opset = onnx.helper.make_opsetid("", OPSET)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)


def run(model: onnx.ModelProto, points: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": points})[0])
