"""The README's commands are there and work.

A fenced block after the line `<!-- run -->` is run here, line by line, by this interpreter in a
temporary folder; the one after `<!-- test -->` is what `.ci/run` runs, and only looked at here.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Parts of a command that set up the environment that these tests already have.
SET_UP = re.compile(r"^(python3? -m venv|git clone|cd )|\bpip install\b|^(source|\.) .*activate$")

# Read by every interpreter when it starts: however slow the machine is, nothing is given up.
STOPPED = """
from onnx_exact.runtime import deadline

deadline.monotonic = lambda: 0.0
"""


def blocks(text: str, mark: str) -> list[str]:
    """The fenced blocks that follow a line `<!-- mark -->`."""
    return re.findall(rf"^<!-- {mark} -->\n```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    """The commands of a block without those that only set up, with this interpreter in them."""
    lines = block.replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines for part in line.split("&&")]
    kept = [p for p in parts if p and not p.startswith("#") and not SET_UP.search(p)]
    python = shlex.quote(sys.executable)
    kept = [re.sub(r"^(\S*/)?onnx-exact\b", f"{python} -m onnx_exact", p) for p in kept]
    return [re.sub(r"^(\S*/)?python3?(?= )", python, p) for p in kept]


def test_set_up_is_left_out_and_the_interpreter_is_this_one() -> None:
    text = (
        "<!-- run -->\n```sh\npython3 -m venv v && v/bin/pip install . && \\\n"
        "v/bin/python -m onnx_exact --version\n# a comment\nonnx-exact --help\n```\n"
        "```sh\nnot this\n```\n"
    )
    (block,) = blocks(text, "run")
    python = shlex.quote(sys.executable)
    assert commands(block) == [
        f"{python} -m onnx_exact --version",
        f"{python} -m onnx_exact --help",
    ]


def test_readme_has_one_test_command_which_installs_and_tests() -> None:
    (block,) = blocks(README, "test")
    assert "pip install" in block
    assert commands(block) == [f"{shlex.quote(sys.executable)} -m pytest"]


def test_every_mark_is_followed_by_a_block() -> None:
    for mark in ("run", "test"):
        assert README.count(f"<!-- {mark} -->") == len(blocks(README, mark))


def shown(block: str) -> str:
    """The output that the text has after a block."""
    found = re.search(r"```text\n(.*?)```", README[README.index(block) :], re.DOTALL)
    assert found
    return found[1]


def masked(output: str) -> str:
    """Output without what depends on the machine: seconds, and what searches and runtimes give."""
    text = " ".join(output.split())
    text = re.sub(r"(?<=Seconds: )\d+\.\d+( in total \([^)]*\))?", "_", text)
    text = re.sub(r"(?<=deviation observed: )\S+", "_", text)
    return re.sub(r"\d+(?= (points|leaves|witnesses))", "_", text)


def test_only_what_depends_on_the_machine_is_masked() -> None:
    assert masked("Seconds: 1.5 in total (read 0.1,\nwrite 2).\n3 units") == "Seconds: _. 3 units"
    assert masked("Seconds: 1.5. 8 leaves, 0 undecided") == "Seconds: _. _ leaves, 0 undecided"
    assert masked("deviation observed: 1e-05 in 'y'") == "deviation observed: _ in 'y'"


@pytest.mark.parametrize("block", blocks(README, "run"))
def test_command_of_the_readme_runs_and_prints_what_is_shown(block: str, tmp_path: Path) -> None:
    for name in ("models", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    (stopped / "sitecustomize.py").write_text(STOPPED)
    found = commands(block)
    assert found
    for command in found:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{stopped}{os.pathsep}{ROOT}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert masked(done.stdout) == masked(shown(block))
