"""The tutorial from nothing: `python -m benchmarks.newcomer`.

Every command of docs/tutorial.md runs as it stands there, in a fresh environment with this checkout
installed by pip. The outputs go into the page and, with the versions that gave them, into
`benchmarks/results/newcomer.json` and `newcomer.md`. Needs the package index. Ends with 1 where a
command fails, and then writes nothing.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.deciding.cases import ROOT
from benchmarks.deciding.tables import where
from benchmarks.running.processes import RESULTS, machine, now, write_text

PAGE = ROOT / "docs" / "tutorial.md"
# What the outputs depend on.
PACKAGES = ("scikit-learn", "skl2onnx", "onnx", "onnxruntime", "numpy", "scipy")
_STEP = re.compile(r"^<!-- (set up|run|file (\S+)) -->\n```\w+\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Step:
    """What a reader does: save a file, or run commands.

    Attributes:
        kind: "set up", "run" or "file".
        text: the commands, or what is in the file.
        file: its name.
    """

    kind: str
    text: str
    file: str = ""


def steps(page: str) -> list[Step]:
    """The steps of a page, in order."""
    return [
        Step(kind.split()[0] if file else kind, text, file)
        for kind, file, text in _STEP.findall(page)
    ]


def outputs(page: str) -> list[str]:
    """What the page shows after each step that runs commands."""
    return re.findall(r"^<!-- run -->\n```sh\n.*?^```\n\n```text\n(.*?)^```$", page, re.M | re.S)


def with_outputs(page: str, found: Sequence[str]) -> str:
    """The page with these outputs in the place of its own."""
    left = iter(found)

    def replaced(match: re.Match[str]) -> str:
        return f"{match[1]}```text\n{next(left)}```"

    return re.sub(
        r"(^<!-- run -->\n```sh\n.*?^```\n\n)```text\n.*?^```$", replaced, page, flags=re.M | re.S
    )


def run(commands: str, folder: Path, environment: Mapping[str, str]) -> str:
    """What commands print.

    Raises:
        CalledProcessError: one of them fails.
    """
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=dict(environment),
        text=True,
        stdout=subprocess.PIPE,
        check=True,
    )
    return done.stdout


def follow(page: str, folder: Path, environment: Mapping[str, str]) -> list[str]:
    """What the steps of a page print that come after the set-up, done in order in a folder."""
    found = []
    for step in steps(page):
        if step.kind == "file":
            (folder / step.file).write_text(step.text, encoding="utf-8")
        elif step.kind == "run":
            found.append(run(step.text, folder, environment))
    return found


def newcomer(page: str, folder: Path) -> tuple[list[str], dict[str, Any]]:
    """What the page's commands print in a fresh environment, and what is installed there."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    (set_up,) = (step.text for step in steps(page) if step.kind == "set up")
    # The environment of the page is made beside the checkout, not in it.
    activate = f"source {folder}/.venv/bin/activate"
    made = set_up.replace("-m venv .venv", f"-m venv {folder}/.venv")
    made = made.replace("source .venv/bin/activate", activate)
    run(made.replace("pip install", "pip install --quiet"), ROOT, environment)
    work = folder / "work"
    work.mkdir()
    bin_folder = folder / ".venv" / "bin"
    environment["PATH"] = f"{bin_folder}{os.pathsep}{environment['PATH']}"
    found = follow(page, work, environment)
    asked = "from importlib.metadata import version; import json, sys;"
    asked += "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    listed = subprocess.run(
        [bin_folder / "python", "-c", asked, *PACKAGES],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return found, json.loads(listed.stdout)


def markdown(found: Mapping[str, Any]) -> str:
    """The record as a page."""
    lines = [
        "# The tutorial in a fresh environment",
        "",
        "Written by `python -m benchmarks.newcomer`.",
        where(found["machine"]),
        "",
        f"Every command of [tutorial.md](../../docs/tutorial.md), {found['seconds']:.0f} s in all,",
        "installing included.",
    ]
    for entry in found["steps"]:
        lines += ["", "```sh", entry["commands"].rstrip(), "```", "", "```text"]
        lines += [entry["output"].rstrip(), "```"]
    return "\n".join([*lines, ""])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tutorial, and writes what came out into it and into the record."""
    del argv
    page = PAGE.read_text(encoding="utf-8")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            printed, packages = newcomer(page, Path(folder))
        except subprocess.CalledProcessError as error:
            print(f"{error.cmd[-1]}\nended with exit code {error.returncode}", file=sys.stderr)
            return 1
    ran = [step for step in steps(page) if step.kind == "run"]
    record = {
        "machine": machine(()) | {"packages": packages},
        "date": now(),
        "seconds": time.monotonic() - started,
        "steps": [
            {"commands": step.text, "output": output}
            for step, output in zip(ran, printed, strict=True)
        ],
    }
    write_text(PAGE, with_outputs(page, printed))
    write_text(RESULTS / "newcomer.json", json.dumps(record, indent=1) + "\n")
    write_text(RESULTS / "newcomer.md", markdown(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
