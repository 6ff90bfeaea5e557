"""The comparison of two checkouts, of this one with itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import against
from benchmarks.deciding.cases import ROOT, Case
from benchmarks.training.networks import MODELS


def test_a_checkout_keeps_as_much_as_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [Case("small", MODELS / "digits_2x32_l1.onnx"), Case("none", tmp_path / "absent.onnx")]
    monkeypatch.setattr(against, "compared", lambda: cases)
    table = tmp_path / "table.md"
    assert against.main([str(ROOT), "--runs", "1", "--name", "itself", "--out", str(table)]) == 0
    small, none = (
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in table.read_text().splitlines()
        if line.startswith(("| small", "| none"))
    )
    assert small[1] == small[2] != "refused"
    assert small[3:5] == ["0", "0"]
    assert float(small[7]) > 0.0
    assert none[1:3] == ["refused", "refused"]
