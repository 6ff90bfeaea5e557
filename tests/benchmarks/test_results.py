"""The page of results: what the measurements amount to, and that the page is made of them alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import results
from benchmarks.comparing.contestants import OURS
from benchmarks.compress import make, simplifiers
from benchmarks.fuzzing.findings import (
    NoLoss,
    architectures,
    best_no_loss,
    grown,
    losses,
    no_loss,
    removed,
    slopes,
)
from benchmarks.reduce import ORIGINAL, Decided, decide
from benchmarks.running.processes import machine
from benchmarks.scaling import NOTHING, Point, random_layers, run_point, slope
from onnx_exact.decide.verdict import Status
from tests.benchmarks.test_compare import run
from tests.benchmarks.test_decide import tiny_case

Entry = dict[str, Any]


def row(
    data: str, architecture: str, l1: float, accuracy: float, left: int, latency: float = 10.0
) -> Entry:
    """A network of 100 connections; the published reductions leave five more than ours."""

    def kind(connections: int, seconds: float) -> Entry:
        return {
            **{"widths": [4, 2], "connections": connections, "bytes": 4 * connections},
            "latency_us": {"1": seconds, "256": None},
            **{"accuracy": accuracy, "answers_changed": 0},
        }

    kinds = {
        **{ORIGINAL: kind(100, 10.0), "published": kind(min(100, left + 5), 10.0)},
        **{"all": kind(left, latency), "split": kind(left, latency)},
    }
    common = {"data": data, "architecture": architecture, "l1": l1, "missing": {}}
    return common | {"kinds": kinds, "accuracy": accuracy}


ROWS = {
    "plain small": row("mnist", "2x100", 0.0, 0.95, 100),
    "plain small, other seed": row("mnist", "2x100", 0.0, 0.96, 100),
    "plain large": row("mnist", "2x400", 0.0, 0.98, 100),
    "small, enough": row("mnist", "2x100", 1e-4, 0.96, 60),
    "small, too much": row("mnist", "2x100", 4e-4, 0.955, 20),
    "large": row("mnist", "2x400", 1e-4, 0.97, 10),
    "no rival": row("mnist", "5x100", 1e-4, 0.985, 50),
    "others' data": row("cifar10", "2x100", 1e-4, 0.99, 5),
}


def test_no_loss_holds_each_network_against_the_best_without_l1_of_its_architecture() -> None:
    found = no_loss(ROWS, "mnist", "all", "2x100")
    assert found is not None
    assert found.removed == pytest.approx(0.4)
    assert replace(found, removed=0.4) == NoLoss(
        "small, enough", "plain small, other seed", 0.96, 0.96, 0.4
    )
    assert no_loss(ROWS, "mnist", "all", "2x400") is None
    assert no_loss(ROWS, "mnist", "all", "5x100") is None
    assert architectures(ROWS, "mnist") == ["2x100", "2x400"]
    assert best_no_loss(ROWS, "mnist", "all") == found


def test_no_loss_against_all_architectures_needs_more_accuracy() -> None:
    found = no_loss(ROWS, "mnist", "published")
    assert found is not None
    assert found.removed == pytest.approx(0.45)
    assert replace(found, removed=0.45) == NoLoss("no rival", "plain large", 0.985, 0.98, 0.45)
    assert no_loss(ROWS, "cifar10", "all") is None


def test_removed_is_the_share_of_the_networks_own_connections() -> None:
    assert removed(ROWS["large"], "all") == pytest.approx(0.9)
    assert removed(ROWS["large"], "published") == pytest.approx(0.85)


def test_slope_is_the_power_of_a_power_law() -> None:
    xs = [1.0, 10.0, 100.0]
    assert slope(xs, [3.0 * x**1.5 for x in xs]) == pytest.approx(1.5)
    with pytest.raises(ValueError, match="two points"):
        slope([1.0], [1.0])
    with pytest.raises(ValueError, match="positive"):
        slope([1.0, 2.0], [0.0, 1.0])


def scaling_run(value: float, cpu: float, peak: float, left_open: int = 0) -> Entry:
    return run(cpu, left_open, samples=0.9 * cpu) | {"value": value, "peak_mb": peak}


def test_growth_takes_medians_beyond_the_start_and_fits_decided_points_alone() -> None:
    runs = [
        *(scaling_run(1, 1.0, 60.0), scaling_run(1, 3.0, 60.0), scaling_run(1, 2.0, 58.0)),
        *(scaling_run(10, 20.0, 150.0), scaling_run(100, 999.0, 500.0, left_open=1)),
        {"value": 1000, "error": "failed"},
    ]
    points = grown({"runs": runs}, {"peak_mb": 50.0})
    assert [(p.value, p.seconds, p.memory, p.open) for p in points] == [
        *((1, 2.0, 10.0, 0), (10, 20.0, 100.0, 0), (100, 999.0, 450.0, 1))
    ]
    assert points[0].stage == "samples"
    assert points[0].share == pytest.approx(1.0)
    assert slopes(points) == pytest.approx((1.0, 1.0))
    assert slopes(points[1:]) is None


def measurements() -> dict[str, Entry]:
    """One of each file, such that ours loses in every respect."""
    network = {"data": "mnist", "l1": 1e-4, "accuracy": 0.5}
    layers = [{"inactive": 1, "active": 2, "unstable": 7, "open": 0}]
    ours = run(2.0) | {"layers": layers, "open_units": []}
    unfinished = run(60.0, left_open=1) | {"layers": layers, "open_units": [[1, 4]]}
    here = machine(("numpy",))
    return {
        "compare": {
            **{"machine": here, "seed": 0, "limit": 60.0, "disagreements": []},
            "networks": {"easy": network, "hard": network},
            "runs": {
                "easy": {OURS: [ours], "isa": [run(1.0)], "per-unit": [run(900.0)]},
                "hard": {OURS: [unfinished], "isa": [run(70.0)]},
            },
        },
        "compress": {
            "rows": {
                "nothing": row("mnist", "2x100", 0.0, 0.9, 100),
                "slower": row("mnist", "2x100", 1e-4, 0.89, 50, latency=20.0),
                "skipped": {"data": "mnist", "skipped": "two chains"},
            },
        },
        "scaling": {
            **{"baseline": {"peak_mb": 50.0}, "limit": 15.0},
            "series": {
                "width": {
                    "words": "two layers",
                    "runs": [
                        *(scaling_run(1, 1.0, 60.0), scaling_run(10, 100.0, 70.0)),
                        scaling_run(99, 1.0, 60.0, left_open=3),
                    ],
                }
            },
        },
        "decide": {"rows": {"box": {OURS: {"open": 2, "units": 300, "limit": 300.0}}}},
        "lirpa": {"rows": {"one": {"times": 1.5}, "two": {"times": 4.0}}},
    }


def test_every_loss_is_named() -> None:
    text = "\n".join(losses(measurements()))
    assert "Units left open within the time limit: hard (1)." in text
    assert "`isa` was quicker on 2: easy (1 s against 2 s), hard (70 s against 60 s)." in text
    assert "per-unit" not in text
    assert "box (2 of 300 after 300 s)" in text
    assert "1.5 to 4 times as long" in text
    assert "after 15 s by the clock: width 99 (3 of 10)." in text
    assert (
        "On MNIST no network trained with l1 is as accurate as the best without, of 2x100" in text
    )
    assert "Nothing could be removed from 1: nothing." in text
    assert "Slower after reducing (`all`): slower (batch 1, 2.00 times)." in text


def write(folder: Path) -> None:
    for name, found in measurements().items():
        (folder / f"{name}.json").write_text(json.dumps(found))


def test_the_page_is_the_same_whenever_it_is_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write(tmp_path)
    flags = ["--results", str(tmp_path), "--out", str(tmp_path / "RESULTS.md")]
    texts = []
    for _ in range(2):
        assert results.main(flags) == 0
        plots = sorted((tmp_path / "plots").iterdir())
        texts.append([path.read_bytes() for path in (tmp_path / "RESULTS.md", *plots)])
    assert texts[0] == texts[1]
    page = texts[0][0].decode()
    assert "width^2.00" in page
    assert "2 on MNIST (2 with l1). `auto` decides every unit of 1 of them." in page
    assert "(plots/times.svg)" in page
    assert "450 |" in page


def test_missing_measurements_are_named_with_the_command_for_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    (tmp_path / "scaling.json").unlink()
    assert results.main(["--results", str(tmp_path), "--out", str(tmp_path / "page.md")]) == 2
    assert "python -m benchmarks.scaling" in capsys.readouterr().err
    assert not (tmp_path / "page.md").exists()


def test_random_networks_have_units_of_every_kind(tmp_path: Path) -> None:
    point = Point(6.0, (6, 12, 12, 2))
    entry = run_point(point, 30.0, 0, tmp_path)
    assert entry["open"] == 0
    for kind in ("inactive", "active", "unstable"):
        assert sum(layer[kind] for layer in entry["layers"]) > 0
    for one, other in zip(random_layers(NOTHING, 3), random_layers(NOTHING, 3), strict=True):
        np.testing.assert_array_equal(one[0], other[0])


def test_every_kind_of_reduction_and_installed_tool_gives_a_model_of_its_size(
    tmp_path: Path,
) -> None:
    decided = decide(tiny_case(tmp_path), 60.0, 0)
    assert isinstance(decided, Decided)
    assert decided.stability.count(Status.INACTIVE) > 0
    made = make(decided, simplifiers()[0])
    sizes = {name: found.sizes for name, found in made.items()}
    assert sizes["all"]["connections"] <= sizes["published"]["connections"]
    assert sizes["published"]["connections"] < sizes[ORIGINAL]["connections"] == 3 * 5 + 5 * 4 + 8
    assert sizes[ORIGINAL]["widths"] == [3, 5, 4, 2]
    for tool in simplifiers()[0]:
        assert sizes[tool]["connections"] == sizes[ORIGINAL]["connections"]
