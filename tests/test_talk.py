"""How much the command says, and what it calls itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from onnx_exact.cli import main
from tests.small_network import network


@pytest.fixture
def model(tmp_path: Path) -> list[str]:
    return [str(network(tmp_path / "in.onnx")), str(tmp_path / "out.onnx"), "--domain", "0:1"]


def test_quiet_prints_nothing(model: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", *model, "--quiet"]) == 0
    assert Path(model[1]).exists()
    assert main(["verify", *model, "--quiet"]) == 3
    assert capfd.readouterr() == ("", "")


def test_quiet_does_not_hide_errors(model: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", "missing.onnx", model[1], "--quiet"]) == 2
    assert capfd.readouterr().err.startswith("error: ")


def test_verbose_logs_every_stage_beside_the_report(model: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "onnx_exact", "optimize", *model, "--verbose"],
        capture_output=True,
        text=True,
        check=True,
    )
    for stage in ("read", "bounds: layer 1", "write"):
        assert f"onnx_exact {stage}" in done.stderr
    assert "Totals" in done.stdout
    assert "Totals" not in done.stderr


def test_quiet_and_verbose_exclude_each_other(model: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["optimize", *model, "--quiet", "--verbose"])
    assert ended.value.code == 2


def test_no_argument_shows_what_to_do_next() -> None:
    done = subprocess.run([sys.executable, "-m", "onnx_exact"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "python -m onnx_exact optimize model.onnx" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("called", "name"),
    [("/usr/bin/onnx-exact", "onnx-exact"), ("/x/onnx_exact/__main__.py", "python -m onnx_exact")],
)
def test_program_is_named_as_it_was_called(
    called: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    with pytest.raises(SystemExit):
        main(["--help"])
    assert capsys.readouterr().out.startswith(f"usage: {name} ")
