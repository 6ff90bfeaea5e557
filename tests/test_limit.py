"""The time limit holds for a whole run, by a clock that the tests set."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_exact
from onnx_exact.cli import main
from onnx_exact.decide.run import Options
from onnx_exact.errors import TimeLimitError
from onnx_exact.methods import METHODS
from onnx_exact.report import to_text
from onnx_exact.runtime import deadline
from onnx_exact.runtime.deadline import Deadline
from onnx_exact.runtime.limit import STAGES, TimeLimit
from onnx_exact.settings import Settings
from onnx_exact.stages import deciding, reducing, writing
from onnx_exact.stages.estimate import expected_seconds
from tests.clock import Ticking
from tests.lines import complaints
from tests.nets import random_chain
from tests.small_network import network
from tests.verifier.build import gemm_model

EXPECTED = {"prove": 4.0, "reduce": 8.0, "certify": 16.0, "validate": 2.0}
MANDATORY = ("reduce", "certify", "validate")


class Clock:
    """Stands still unless it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(deadline, "monotonic", found)
    monkeypatch.setattr(deciding, "expected_seconds", lambda *_, **__: EXPECTED)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return network(tmp_path / "in.onnx")


def takes(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, name: str, seconds: float
) -> Callable[..., Any]:
    """Has a function of the pipeline take so long, before what it does."""
    module = next(m for m in (deciding, reducing, writing) if hasattr(m, name))
    original = getattr(module, name)

    def slow(*arguments: Any, **options: Any) -> Any:
        clock.now += seconds
        return original(*arguments, **options)

    monkeypatch.setattr(module, name, slow)
    return slow


def test_deadlines_are_derived_from_one_another(clock: Clock) -> None:
    whole = Deadline(10.0)
    assert whole.earlier(4.0).remaining == 6.0
    assert whole.earlier(-4.0).remaining == 14.0
    assert whole.earlier(20.0).passed
    assert whole.within(3.0).remaining == 3.0
    assert whole.within(30.0).remaining == 10.0
    assert whole.share(0.25).remaining == 2.5
    clock.now += 10.0
    assert whole.passed
    endless = Deadline()
    for found in (endless.earlier(5.0), endless.share(0.5), endless):
        assert found.remaining == math.inf
    assert endless.within(3.0).remaining == 3.0


def test_stages_leave_time_for_those_after_them(clock: Clock) -> None:
    limit = TimeLimit(100.0)
    assert limit.until("decide").remaining == 100.0
    limit.expect(EXPECTED)
    assert limit.until("decide").remaining == 100.0 - 30.0
    assert limit.until("prove").remaining == 100.0 - 26.0
    # What has to be done may go on beyond the limit for half of what a run may exceed it by.
    assert limit.until("reduce").remaining == 105.0 - 18.0
    assert limit.until("certify").remaining == 105.0 - 2.0
    assert limit.until("validate").remaining == 105.0


@pytest.mark.parametrize(("seconds", "last"), [(10.0, 12.5), (1000.0, 1050.0), (0.5, 3.0)])
def test_what_is_required_ends_half_way_to_what_a_limit_may_be_exceeded_by(
    clock: Clock, seconds: float, last: float
) -> None:
    limit = TimeLimit(seconds)
    clock.now += last - 0.001
    limit.require("validate")
    clock.now += 0.002
    with pytest.raises(TimeLimitError, match="--time-limit") as caught:
        limit.require("validate")
    assert "\n" not in str(caught.value)
    assert f"{seconds:g} s" in str(caught.value)
    assert "'validate'" in str(caught.value)


def test_without_a_limit_nothing_ever_ends(clock: Clock) -> None:
    limit = TimeLimit(None)
    limit.expect(EXPECTED)
    clock.now += 1e9
    for stage in STAGES:
        assert limit.until(stage).remaining == math.inf
        limit.require(stage)
        limit.require_rest(stage)
    assert Settings().time_limit is None


def record(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """The options of every chain that is decided."""
    original, seen = deciding.analyze_chain, []

    def analyze(chain: Any, box: Any, options: Options, points: Any) -> Any:
        seen.append(options)
        return original(chain, box, options, points)

    monkeypatch.setattr(deciding, "analyze_chain", analyze)
    return seen


@pytest.mark.parametrize("method", METHODS)
def test_deciding_leaves_time_for_all_that_follows(
    clock: Clock, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    seen = record(monkeypatch)
    out = tmp_path / "out.onnx"
    onnx_exact.optimize_file(source, out, domain="0:1", time_limit=100.0, method=method)
    [options] = seen
    assert options.deadline.remaining == 70.0
    assert options.latest.remaining == 105.0 - 18.0


def test_an_analysis_has_all_the_time(
    clock: Clock, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = record(monkeypatch)
    onnx_exact.analyze(source, domain="0:1", time_limit=100.0)
    assert seen[0].deadline.remaining == 100.0


@pytest.mark.parametrize("certify", [False, True])
@pytest.mark.parametrize("stage", ["analyze_chain", "reduce_chain", "certify", "validate"])
def test_a_stage_that_ends_too_late_leaves_no_file(
    clock: Clock,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    stage: str,
    certify: bool,
) -> None:
    takes(monkeypatch, clock, stage, 106.0)
    out, report = tmp_path / "out.onnx", tmp_path / "r.json"
    arguments = ["optimize", source, out, "--domain", "0:1", "--time-limit", "100"]
    arguments += ["--report", report]
    if certify:
        arguments += ["--certificate", tmp_path / "c.npz"]
    before = source.read_bytes()
    assert main([str(a) for a in arguments]) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    error = complaints(printed.err)
    assert error.startswith("error: the time limit of 100 s")
    assert error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["in.onnx"]
    assert source.read_bytes() == before


@pytest.mark.parametrize("stage", ["analyze_chain", "reduce_chain", "certify", "validate"])
def test_a_stage_that_ends_soon_after_the_limit_is_waited_for(
    clock: Clock, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """By the estimate 18 s are needed behind reducing, and 5 s are left to go beyond the limit."""
    begins = {"analyze_chain": 87.0, "reduce_chain": 87.0, "certify": 104.0, "validate": 104.0}
    takes(monkeypatch, clock, stage, begins[stage] - 0.5)
    out = tmp_path / "out.onnx"
    report = onnx_exact.optimize_file(source, out, domain="0:1", time_limit=100.0)
    assert report.changed
    assert out.exists()


def test_a_limit_that_only_reading_fits_in_ends_in_one_line(
    clock: Clock, source: Path, tmp_path: Path
) -> None:
    """Of 20 s and half of 5 s more, what follows reducing takes 18 s, and reading took the rest."""
    out = tmp_path / "out.onnx"
    onnx_exact.optimize_file(source, out, domain="0:1", time_limit=20.0)
    out.unlink()
    with pytest.raises(TimeLimitError, match="'reduce'"):
        onnx_exact.optimize_file(source, out, domain="0:1", time_limit=15.0)
    assert not out.exists()


def random_network(path: Path, *sizes: int) -> Path:
    """A dense network of such widths, most of whose units are unstable over [-1, 1]."""
    rng = np.random.default_rng(0)
    layers = [
        (rng.normal(0, a**-0.5, (b, a)).tolist(), rng.normal(0, 0.1, b).tolist(), True)
        for a, b in pairwise(sizes)
    ]
    onnx.save(gemm_model([*layers[:-1], (*layers[-1][:2], False)]), path)
    return path


def test_the_report_says_what_was_cut_short(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    takes(monkeypatch, clock, "analyze_chain", 60.0)
    source = random_network(tmp_path / "in.onnx", 6, 12, 12, 12, 2)
    report = onnx_exact.analyze(source, domain="-1:1", time_limit=60.0)
    undecided = report.totals.undecided
    assert undecided
    assert report.to_json_dict()["time_limit"] == {
        "seconds": 60.0,
        "reached": True,
        "cut_short": ["decide"],
    }
    said = " ".join(to_text(report).split())
    assert f"{undecided} undecided; a longer --time-limit may decide them" in said
    assert "(decide cut short)" in said


def test_a_run_that_ends_by_itself_has_reached_no_limit(source: Path, tmp_path: Path) -> None:
    for limit in (None, 600.0):
        report = onnx_exact.optimize_file(
            source, tmp_path / "out.onnx", domain="0:1", time_limit=limit
        )
        found = report.to_json_dict()["time_limit"]
        assert found == {"seconds": limit, "reached": False, "cut_short": []}
        assert "limit" not in to_text(report)
        assert json.loads(json.dumps(found)) == found


def test_reducing_that_is_cut_short_still_gives_a_valid_model(
    clock: Clock, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock goes on with each look at it that reducing takes."""
    original = reducing.reduce_chain

    class Ticking(Deadline):
        @property
        def passed(self) -> bool:
            clock.now += 1.0
            return super().passed

    def ticking(*arguments: Any) -> Any:
        clock.now += arguments[-1].remaining - 2.5
        return original(*arguments[:-1], Ticking(2.5))

    monkeypatch.setattr(reducing, "reduce_chain", ticking)
    out = tmp_path / "out.onnx"
    report = onnx_exact.optimize_file(source, out, domain="0:1", time_limit=100.0)
    assert report.time_limit.cut_short == ("reduce",)
    assert report.changed
    onnx_exact.verify(source, out)


def test_estimates_grow_with_the_chains_and_with_reading() -> None:
    small, large = (random_chain(0, n, 4 * n, 4 * n, 2) for n in (10, 60))
    few, many = (expected_seconds([c] * 2, 1.0, proving=True) for c in (small, large))
    assert set(few) == {"prove", *MANDATORY}
    assert all(np.isfinite(v) and v > 0.0 for v in few.values())
    assert few["validate"] < expected_seconds([small], 2.0, proving=True)["validate"]
    assert many["validate"] == few["validate"]
    assert expected_seconds([small], 1.0, proving=False)["prove"] == 0.0
    assert expected_seconds([], 1.0, proving=True)["reduce"] == 0.0


def test_a_run_that_would_take_long_ends_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of signs that take thousands of looks at the clock, in time for four hundred."""
    ticking = Ticking(0.01)
    expected = {stage: 0.05 * seconds for stage, seconds in EXPECTED.items()}
    monkeypatch.setattr(deadline, "monotonic", ticking)
    monkeypatch.setattr(deciding, "expected_seconds", lambda *_, **__: expected)
    path, out = random_network(tmp_path / "in.onnx", 60, 100, 100, 100, 10), tmp_path / "out.onnx"
    begin = ticking.now
    report = onnx_exact.optimize_file(path, out, domain="0.4:0.6", time_limit=4.0)
    assert 4.0 - sum(expected.values()) < ticking.now - begin < 4.0
    assert report.time_limit.cut_short
    assert out.exists()
