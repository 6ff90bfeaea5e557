"""Completion in each shell that is here: what a user is offered after a few letters."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onnx_exact.command.completion import SHELLS, script
from onnx_exact.command.flags import commands_of, parser_of_all

COMMANDS = commands_of(parser_of_all())
# The words of a line, the last of which is to be completed, and some of what is offered.
LINES = [
    (["ana"], ["analyze"]),
    (["optimize", "--cert"], ["--certificate"]),
    (["optimize", "a.onnx", "--goal", "v"], ["verify"]),
    (["verify", "--q"], ["--quiet"]),
    (["completion", "z"], ["zsh"]),
]


def offered(shell: str, words: list[str], folder: Path) -> list[str]:
    """What a shell offers for a line."""
    file = folder / "completion"
    file.write_text(script(shell, COMMANDS))
    line = " ".join(["onnx-exact", *words])
    # zsh completes nothing outside of a terminal: its function is called as its line editor does,
    # which then takes what begins with the word.
    asked = {
        "bash": f"source {file}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _onnx_exact;"
        ' printf "%s\\n" "${COMPREPLY[@]}"',
        "zsh": f"source {file}; ask() {{ emulate -L sh; COMP_WORDS=({line});"
        f' COMP_CWORD={len(words)}; _onnx_exact; printf "%s\\n" "${{COMPREPLY[@]}}"; }}; ask',
        "fish": f"source {file}; complete -C '{line}'",
    }[shell]
    quiet = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [shell, *quiet, "-c", asked], capture_output=True, text=True, check=True, cwd=folder
    )
    found = [entry.split("\t")[0] for entry in done.stdout.splitlines()]
    return [entry for entry in found if shell != "zsh" or entry.startswith(words[-1])]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("words", "wanted"), LINES)
def test_shell_offers_commands_flags_and_values(
    shell: str, words: list[str], wanted: list[str], tmp_path: Path
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    assert offered(shell, words, tmp_path) == wanted


def test_command_prints_the_script() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "onnx_exact", "completion", "bash"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == script("bash", COMMANDS)


def test_flags_that_the_help_hides_are_not_offered() -> None:
    for shell in SHELLS:
        assert "require-proof" not in script(shell, COMMANDS)
