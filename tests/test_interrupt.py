"""Ctrl-C while units are decided: the run goes on with what is known by then."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Status
from onnx_exact.network import Box
from onnx_exact.pipeline import analyze, optimize_file
from tests.oracle.networks import random_case
from tests.oracle.regions import enumerate_regions

MODEL = Path(__file__).parents[1] / "models" / "mnist_2x100_l1.onnx"


class Impatient:
    """Presses Ctrl-C when a stage is about to begin."""

    def __init__(self, name: str, detail: str = "") -> None:
        self._name, self._detail = name, detail

    def stage(self, name: str, detail: str = "") -> None:
        if name == self._name and self._detail in detail:
            raise KeyboardInterrupt


def test_what_was_decided_before_an_interruption_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    report = optimize_file(MODEL, out, progress=Impatient("bounds", "layer 2"))
    assert out.exists()
    assert report.interrupted
    assert report.to_json_dict()["interrupted"] is True
    first, second, _ = report.chains[0].layers
    assert first.stably_inactive > 0
    assert second.stably_inactive == second.stably_active == 0
    assert report.deviation is not None


def test_an_uninterrupted_run_says_so() -> None:
    assert not analyze(MODEL, method="bounds").interrupted


def test_an_interruption_outside_of_deciding_ends_the_run(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    with pytest.raises(KeyboardInterrupt):
        optimize_file(MODEL, out, progress=Impatient("validate"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stage", ["bounds", "witnesses", "slopes", "branching", "splitting"])
@pytest.mark.parametrize("seed", range(6))
def test_verdicts_of_an_interrupted_run_are_true(stage: str, seed: int) -> None:
    case = random_case("normal", seed)
    box: Box = case.box
    options = Options(progress=Impatient(stage).stage)
    stability = analyze_chain(case.chain, box, options)
    truth = enumerate_regions(case.chain, box)
    for verdicts, ranges in zip(stability.layers, truth.ranges, strict=True):
        if verdicts is None:
            continue
        for status, (least, greatest) in zip(verdicts.status, ranges, strict=True):
            assert status != Status.INACTIVE or greatest <= 0
            assert status != Status.ACTIVE or least >= 0
            assert status != Status.UNSTABLE or least < 0 < greatest
