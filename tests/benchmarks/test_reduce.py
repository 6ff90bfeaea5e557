"""The benchmark of the reductions, on the smallest network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import reduce
from benchmarks.deciding.cases import cases
from benchmarks.running import latency
from benchmarks.training.networks import MODELS
from onnx_exact.graph.read import read_model

CASE = "digits_2x32_l1"
KINDS = ["original", "published", "all", "split"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "ROUNDS", 2)
    monkeypatch.setattr(latency, "GO_SECONDS", 0.001)


def test_a_case_is_measured_with_the_same_verdicts_for_all(
    quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--only", CASE, "--time-limit", "5", "--out", str(tmp_path)]
    assert reduce.main(arguments) == 0
    entry = json.loads((tmp_path / "reduce.json").read_text())["rows"][CASE]
    assert list(entry["kinds"]) == KINDS
    original, published, everything, split = (entry["kinds"][kind] for kind in KINDS)
    assert original["widths"] == [64, 32, 32, 10]
    for name in ("connections", "bytes"):
        assert everything[name] <= published[name] <= original[name]
    assert split["connections"] <= everything["connections"]
    for kind in (original, published, everything, split):
        assert all(microseconds > 0 for microseconds in kind["latency_us"].values())
        assert 0 <= kind["deviation"] < 1e-3
    assert everything["within_need"]
    assert CASE in capsys.readouterr().out
    assert CASE in (tmp_path / "reduce.md").read_text()


def test_an_unknown_case_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert reduce.main(["--only", "nothing"]) == 2
    assert "no case 'nothing'" in capsys.readouterr().err


def test_points_hold_witnesses_and_corners_and_stay_in_the_box() -> None:
    case = next(case for case in cases() if case.name == CASE)
    decided = reduce.decide(case, 5.0, 0)
    assert isinstance(decided, reduce.Decided)
    points = reduce.points_of(decided, np.random.default_rng(0))
    assert points.shape == (reduce.POINTS, 64)
    assert decided.where.box.contains(points)
    witnesses = decided.stability.witnesses
    np.testing.assert_array_equal(points[: len(witnesses)], witnesses)
    corners = ((points == decided.where.box.lower) | (points == decided.where.box.upper)).all(
        axis=1
    )
    assert corners.sum() > reduce.POINTS / 3


def test_a_runner_gives_the_outputs_of_every_sample() -> None:
    source = read_model(MODELS / f"{CASE}.onnx")
    runner = latency.Runner(source.model)
    samples = np.random.default_rng(0).random((300, 64)).astype(np.float32)
    outputs = runner.outputs(samples)
    assert outputs.shape == (300, 10)
    np.testing.assert_allclose(outputs[7:8], runner.run(samples[7:8]), rtol=1e-4, atol=1e-5)
