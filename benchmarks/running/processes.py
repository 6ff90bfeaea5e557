"""Processes of their own for what is measured, on which machine, and files written whole."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.deciding.cases import ROOT

RESULTS = Path(__file__).parents[1] / "results"
# Beyond its time limit a process gets this share of it and these seconds to come to its end.
GRACE = (0.2, 60.0)
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PACKAGES = ("numpy", "scipy", "onnx", "onnxruntime", "cvxpy", "highspy", "pyscipopt")

Entry = dict[str, Any]


class ChildError(Exception):
    """A process that measured something failed; the message is the last line that it said."""


def patience(limit: float) -> float:
    """How long to wait, in seconds, for a process that has `limit` seconds for its work."""
    return limit * (1 + GRACE[0]) + GRACE[1]


def run_child(module: str, arguments: Sequence[str], seconds: float, threads: int = 0) -> Entry:
    """The JSON that a module of ours prints, run in a process of its own.

    Args:
        module: its full name.
        arguments: its command line.
        seconds: after which it is ended.
        threads: for matrix products; 0 for as many as there are cores.

    Raises:
        ChildError: it failed, or did not end in time.
    """
    command = [sys.executable, "-m", module, *arguments]
    environment = os.environ | dict.fromkeys(THREADS, str(threads or os.cpu_count() or 1))
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise ChildError(f"{module} did not end within {seconds:.0f} s and was ended") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        last = said[-1] if said else f"exit code {done.returncode} and not a word"
        raise ChildError(f"{module} failed: {last}")
    measured: Entry = json.loads(done.stdout.splitlines()[-1])
    return measured


def machine(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Where and with what was measured."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def now() -> str:
    """The time in UTC, to the minute."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def write_text(path: Path, text: str) -> None:
    """Writes a file and the folders above it; a partial file is never seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
