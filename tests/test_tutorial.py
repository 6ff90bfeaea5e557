"""The tutorial: what it shows is what its record has, and its commands run here as well."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from benchmarks.newcomer import PAGE, RESULTS, Step, follow, outputs, steps, with_outputs

ROOT = Path(__file__).parents[1]
TEXT = PAGE.read_text(encoding="utf-8")


def masked(output: str) -> str:
    """Output without numbers and breaks of lines: what is trained depends on the machine."""
    return re.sub(r"[-+]?\d[\d,.]*(e[-+]?\d+)?%?", "_", " ".join(output.split()))


def test_every_step_of_the_page_is_read() -> None:
    kinds = [step.kind for step in steps(TEXT)]
    assert kinds.count("set up") == 1
    assert len(kinds) == TEXT.count("\n<!-- ")
    assert len(outputs(TEXT)) == kinds.count("run")


def test_page_shows_what_came_out_of_its_commands() -> None:
    record = json.loads((RESULTS / "newcomer.json").read_text(encoding="utf-8"))
    ran = [(step.text, output) for step, output in zip(_runs(), outputs(TEXT), strict=True)]
    assert ran == [(entry["commands"], entry["output"]) for entry in record["steps"]]


def _runs() -> list[Step]:
    return [step for step in steps(TEXT) if step.kind == "run"]


def test_outputs_are_put_where_they_belong() -> None:
    page = "<!-- run -->\n```sh\na\n```\n\n```text\nold\n```\nb\n"
    new = with_outputs(page, ["new\n"])
    assert outputs(new) == ["new\n"]
    assert new == page.replace("old", "new")


@pytest.mark.slow
def test_commands_of_the_tutorial_run_and_print_what_is_shown(tmp_path: Path) -> None:
    for package in ("sklearn", "skl2onnx"):
        pytest.importorskip(package, reason=f"{package} is not installed (extra tutorial)")
    program = tmp_path / "bin"
    program.mkdir()
    for name, call in (("python", ""), ("onnx-exact", " -m onnx_exact")):
        (program / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{call} "$@"\n')
        (program / name).chmod(0o755)
    path = f"{program}{os.pathsep}{os.environ['PATH']}"
    printed = follow(TEXT, tmp_path, {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)})
    assert [masked(output) for output in printed] == [masked(output) for output in outputs(TEXT)]
