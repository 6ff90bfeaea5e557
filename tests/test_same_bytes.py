"""The same input, options and seed give the same bytes, whatever else the machine does.

Every run is a process of its own: the new model, the certificate, and the report without its
seconds are compared. `python -m benchmarks.same_bytes` does so on real networks.
"""

from __future__ import annotations

import io
import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.same_bytes import BUSY, FIRST, Way, outcome
from tests.verifier.build import gemm_model

# Inputs, widths and half the side of the box: what is left after bounds and a short search is
# settled by splitting the box, and by splitting ReLUs.
NETWORKS = {"few inputs": ((3, 16, 16, 12, 2), 1.0), "many inputs": ((12, 24, 24, 12, 2), 0.3)}


@pytest.fixture(scope="module", params=NETWORKS.values(), ids=list(NETWORKS))
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, dict[str, bytes]]:
    """A network, its domain, and what is made of it first."""
    widths, half = request.param
    rng = np.random.default_rng(5)
    layers = [
        (rng.normal(0, a**-0.5, (b, a)).tolist(), rng.normal(-0.2, 0.3, b).tolist(), b != 2)
        for a, b in pairwise(widths)
    ]
    path = tmp_path_factory.mktemp("same") / "in.onnx"
    onnx.save(gemm_model(layers), path)
    domain = f"{-half}:{half}"
    return path, domain, outcome(path, domain, FIRST)


def test_a_run_leaves_a_smaller_model_a_certificate_with_trees_and_a_report(
    run: tuple[Path, str, dict[str, bytes]],
) -> None:
    _, _, first = run
    assert set(first) == {"out.onnx", "c.npz", "r.json", "exit code"}
    assert first["exit code"] == b"0"
    totals = json.loads(first["r.json"])["totals"]
    assert totals["units_after"] < totals["units_before"]
    with np.load(io.BytesIO(first["c.npz"])) as certificate:
        assert any(name.endswith("_nodes") for name in certificate.files)


@pytest.mark.slow
@pytest.mark.parametrize(
    "way",
    [Way("beside busy processes", busy=BUSY), Way("two jobs", jobs=2), Way("one core", cores=1)],
    ids=lambda way: way.name,
)
def test_the_same_bytes_come_out(run: tuple[Path, str, dict[str, bytes]], way: Way) -> None:
    path, domain, first = run
    if way.cores and not hasattr(os, "sched_setaffinity"):
        pytest.skip("a process cannot be pinned to a core on this system")
    assert outcome(path, domain, way) == first
