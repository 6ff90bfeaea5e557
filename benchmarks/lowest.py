"""The tests with the lowest versions: `python -m benchmarks.lowest [PYTEST ARGUMENTS...]`.

Installs this checkout into a fresh environment with what `constraints/lowest.txt` says, runs the
tests there (all that are not slow, unless arguments say which), and writes what came out to
`benchmarks/results/lowest.json`. Needs the package index.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cases import ROOT
from benchmarks.processes import RESULTS, machine, now, write_text

CONSTRAINTS = ROOT / "constraints" / "lowest.txt"
DEFAULT = ("-m", "not slow")


def versions(text: str) -> dict[str, str]:
    """What a file of constraints says of each package."""
    lines = (line.strip() for line in text.splitlines())
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def main(argv: Sequence[str] | None = None) -> int:
    """Installs, runs the tests, and gives their exit code."""
    chosen = list(sys.argv[1:] if argv is None else argv) or list(DEFAULT)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(CONSTRAINTS)]
        subprocess.run([*install, "--editable", ".[test]"], cwd=ROOT, check=True, env=environment)
        started = time.monotonic()
        done = subprocess.run(
            [python, "-m", "pytest", "-p", "no:cacheprovider", *chosen],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
            text=True,
        )
    print(done.stdout, end="")
    record = {
        "machine": machine(()) | {"packages": versions(CONSTRAINTS.read_text())},
        "date": now(),
        "tests": chosen,
        "seconds": time.monotonic() - started,
        "exit_code": done.returncode,
        "last_line": done.stdout.strip().splitlines()[-1],
    }
    write_text(RESULTS / "lowest.json", json.dumps(record, indent=1) + "\n")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
