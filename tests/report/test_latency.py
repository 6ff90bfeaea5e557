"""The page that a report is shows how long both models take, where they can be run."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest

from onnx_exact.cli import main
from onnx_exact.report.latency import latencies
from tests.graph.build import Builder

TILE = re.compile(r"<b>([\d.e+-]+) <span class=to>&rarr;</span> ([\d.e+-]+)</b><span>milliseconds")


def saved(path: Path, size: int = 6) -> Path:
    b = Builder()
    y = b.gemm(b.relu(b.gemm("x", size, 5)), 5, 2)
    onnx.save(b.model([y], {"x": ["batch", size]}), path)
    return path


def test_page_of_optimize_has_the_latency_of_both_models(tmp_path: Path) -> None:
    source = saved(tmp_path / "in.onnx")
    page = tmp_path / "report.html"
    files = [str(source), str(tmp_path / "out.onnx")]
    assert main(["optimize", *files, "--domain", "0:1", "--report", str(page), "--quiet"]) == 0
    found = TILE.search(page.read_text("utf-8"))
    assert found is not None
    assert all(float(number) > 0.0 for number in found.groups())


def test_page_of_analyze_has_none(tmp_path: Path) -> None:
    source, page = saved(tmp_path / "in.onnx"), tmp_path / "report.html"
    assert main(["analyze", str(source), "--domain", "0:1", "--report", str(page)]) == 0
    assert TILE.search(page.read_text("utf-8")) is None


@pytest.mark.parametrize("domain", [{}, {"x": {"lower": 0.0, "upper": 1.0}}])
def test_models_that_can_be_run_have_a_latency(tmp_path: Path, domain: dict[str, object]) -> None:
    file = saved(tmp_path / "in.onnx")
    found = latencies(file, file, domain)  # type: ignore[arg-type]
    assert found is not None
    assert min(found) > 0.0


def test_models_that_cannot_be_run_alike_have_none(tmp_path: Path) -> None:
    files = saved(tmp_path / "in.onnx"), saved(tmp_path / "other.onnx", 7)
    assert latencies(*files, {}) is None
    assert latencies(files[0], tmp_path / "nothing.onnx", {}) is None
