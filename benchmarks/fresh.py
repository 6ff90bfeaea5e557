"""The tests in a fresh environment: `python -m benchmarks.fresh lowest|sdist [ARGUMENTS...]`.

`lowest` installs this checkout with the versions of `constraints/lowest.txt`. `sdist` builds the
wheel and the source distribution, installs the wheel, and runs the tests that the source
distribution has, where it was unpacked. All tests that are not slow, unless arguments of pytest
say which. What came out goes to `benchmarks/results/lowest.json` or `sdist.json`. Needs the package
index.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.deciding.cases import ROOT
from benchmarks.running.processes import RESULTS, machine, now, write_text

CONSTRAINTS = ROOT / "constraints" / "lowest.txt"
DEFAULT = ("-m", "not slow")


def versions(text: str) -> dict[str, str]:
    """What a file of constraints says of each package."""
    lines = (line.strip() for line in text.splitlines())
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


class Fresh:
    """A virtual environment, and a folder to work in beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = str(folder / "venv" / "bin" / "python")
        self.environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)

    def install(self, *arguments: str) -> None:
        """Runs pip install."""
        command = [self.python, "-m", "pip", "install", "--quiet", *arguments]
        subprocess.run(command, cwd=ROOT, check=True, env=self.environment)

    def unpacked(self) -> Path:
        """Installs the wheel with what its tests need; the folder of the source distribution."""
        self.install("build")
        out = self.folder / "dist"
        build = [self.python, "-m", "build", "--outdir", str(out), str(ROOT)]
        subprocess.run(build, check=True, env=self.environment, stdout=subprocess.DEVNULL)
        (wheel,), (source,) = out.glob("*.whl"), out.glob("*.tar.gz")
        self.install(f"onnx-exact[test] @ {wheel.as_uri()}")
        with tarfile.open(source) as archive:
            archive.extractall(self.folder, filter="data")
        return self.folder / source.name.removesuffix(".tar.gz")

    def tested(self, where: Path, arguments: Sequence[str]) -> dict[str, Any]:
        """How the tests end in a folder."""
        started = time.monotonic()
        command = [self.python, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, cwd=where, env=self.environment, text=True
        )
        print(done.stdout, end="")
        return {
            "tests": list(arguments),
            "seconds": time.monotonic() - started,
            "exit_code": done.returncode,
            "last_line": done.stdout.strip().splitlines()[-1],
        }

    def packages(self) -> dict[str, str]:
        """The versions of what the package depends on."""
        command = [self.python, "-m", "pip", "list", "--format", "json"]
        done = subprocess.run(command, capture_output=True, check=True, env=self.environment)
        wanted = versions(CONSTRAINTS.read_text(encoding="utf-8"))
        found = {
            row["name"].lower().replace("_", "-"): row["version"] for row in json.loads(done.stdout)
        }
        return {name: found[name] for name in wanted}


def main(argv: Sequence[str] | None = None) -> int:
    """Installs, runs the tests, and gives their exit code."""
    kind, *chosen = sys.argv[1:] if argv is None else argv
    if kind not in ("lowest", "sdist"):
        print("lowest or sdist?", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        fresh, where = Fresh(Path(folder)), ROOT
        if kind == "lowest":
            fresh.install("--constraint", str(CONSTRAINTS), "--editable", ".[test]")
        else:
            where = fresh.unpacked()
        found = fresh.tested(where, chosen or DEFAULT)
        record = {"machine": machine(()) | {"packages": fresh.packages()}, "date": now(), **found}
    write_text(RESULTS / f"{kind}.json", json.dumps(record, indent=1) + "\n")
    return int(found["exit_code"])


if __name__ == "__main__":
    sys.exit(main())
