"""The record of what `verify` accepts says what does not hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import accept
from benchmarks.deciding.cases import Case
from benchmarks.training.networks import MODELS

HELD: dict[str, Any] = {
    "decided": 4,
    "undecided": 1,
    "claims": 0,
    "verified_deviation": 1e-7,
    "optimize_seconds": 2.0,
    "verify_seconds": 1.0,
}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, []),
        ({"claims": 2}, ["rests on 2 claims"]),
        ({"verify_seconds": 11.0}, ["verifying took over 5 times the time of optimizing"]),
        ({"refused": "no"}, ["refused: no"]),
        ({"error": "killed"}, ["killed"]),
    ],
)
def test_what_does_not_hold_is_said(change: dict[str, Any], why: list[str]) -> None:
    entry = HELD | change
    assert accept.fails(entry) == why
    machine = {"processor": "a", "cores": 1, "system": "b", "python": "c", "packages": {}}
    text = accept.markdown({"machine": machine, "rows": {"a case": entry}})
    assert ("All is as asked for." in text) != bool(why)


def test_a_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    monkeypatch.setattr(accept, "RESULTS", tmp_path)
    both = [Case(name, MODELS / "digits_2x32.onnx") for name in ("one", "two")]
    monkeypatch.setattr(accept, "cases", lambda: iter(both))
    monkeypatch.setattr(accept, "run_child", lambda *a, **k: ran.append(a) or HELD)
    (tmp_path / "accept.json").write_text(json.dumps({"rows": {"one": HELD}}))
    assert accept.main([]) == 0
    assert len(ran) == 1
    assert set(json.loads((tmp_path / "accept.json").read_text())["rows"]) == {"one", "two"}
