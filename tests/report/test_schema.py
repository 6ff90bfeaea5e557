"""The report's JSON Schema holds of every report, and knows every name in it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnx_exact
from onnx_exact.cli import main
from onnx_exact.methods import GOALS
from onnx_exact.report import schema, to_json_dict
from tests.lines import complaints
from tests.small_network import network

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")


def closed(part: Any) -> Any:
    """The schema with no name but those that it states, which later ones may add to."""
    if isinstance(part, list):
        return [closed(item) for item in part]
    if not isinstance(part, dict):
        return part
    found = {name: closed(value) for name, value in part.items()}
    if "properties" in found and "required" in found:
        found.setdefault("additionalProperties", False)
    return found


def check(data: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(closed(schema())).validate(json.loads(json.dumps(data)))


def test_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("removable", [True, False])
@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("domain", ["0:1", None])
def test_reports_of_runs_are_valid(
    tmp_path: Path, removable: bool, goal: str, domain: str | None
) -> None:
    path = network(tmp_path / "in.onnx", removable=removable)
    _, report = onnx_exact.optimize(path, domain=domain, goal=goal)
    for units in (False, True):
        check(to_json_dict(report, units=units))
    check(onnx_exact.analyze(path, domain=domain, time_limit=60.0).to_json_dict(units=True))


def test_other_reports_are_valid() -> None:
    from tests.report.test_report import REPORT, changed

    check(to_json_dict(REPORT))
    check(to_json_dict(changed(deviation=None, certified=None)))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.pop("totals"),
        lambda data: data.update(format_version=2),
        lambda data: data.update(unknown=1),
        lambda data: data["chains"][0]["layers"][0].update(units="3"),
        lambda data: data["chains"][0]["layers"][0]["verdicts"]["status"].append("maybe"),
    ],
)
def test_what_is_no_report_is_not_valid(tmp_path: Path, damage: Any) -> None:
    report = onnx_exact.analyze(network(tmp_path / "in.onnx"), domain="0:1")
    data = copy.deepcopy(to_json_dict(report, units=True))
    check(data)
    damage(data)
    with pytest.raises(jsonschema.ValidationError):
        check(data)


def test_units_hold_verdicts_and_bounds_that_belong_together(tmp_path: Path) -> None:
    path = network(tmp_path / "in.onnx")
    report = onnx_exact.analyze(path, domain="0:1")
    for layer in report.chains[0].layers:
        if not layer.relu:
            assert layer.status == ()
            continue
        assert layer.lower is not None
        assert layer.upper is not None
        status = np.array(layer.status)
        assert (layer.upper[status == "inactive"] <= 0).all()
        assert (layer.lower[status == "active"] >= 0).all()
        for name, count in (("inactive", layer.stably_inactive), ("unstable", layer.unstable)):
            assert (status == name).sum() == count
        assert len(layer.evidence) == layer.units


def test_units_are_in_the_report_where_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = str(network(tmp_path / "in.onnx"))
    assert main(["analyze", path, "--domain", "0:1", "--report", "-", "--units"]) == 0
    data = json.loads(capfd.readouterr().out)
    check(data)
    assert "verdicts" in data["chains"][0]["layers"][0]
    assert main(["analyze", path, "--domain", "0:1", "--report", "-"]) == 0
    assert "verdicts" not in json.loads(capfd.readouterr().out)["chains"][0]["layers"][0]
    assert main(["analyze", path, "--domain", "0:1", "--units"]) == 2
    assert "--report" in complaints(capfd.readouterr().err)
