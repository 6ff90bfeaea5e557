"""Every network of `models/`, made smaller and verified: `python -m benchmarks.quick`.

A look at the tool in seconds, on this machine and this checkout: units and connections before and
after, the worst-case bound on the deviation, seconds. It writes no record. Ends with 1 where a
result is not verified.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.training.networks import MODELS
from onnx_exact.pipeline import optimize_file
from onnx_exact.verified import verify

COLUMNS = "{:<22} {:>13} {:>22} {:>9} {:>9} {:>8} {:>8}"


def row(model: Path, folder: Path) -> tuple[str, bool]:
    """The line of one network, and whether its result is verified."""
    result, certificate = folder / "out.onnx", folder / "certificate.npz"
    started = time.perf_counter()
    report = optimize_file(model, result, certificate=certificate)
    optimized = time.perf_counter()
    found = verify(model, result, certificate)
    totals = report.totals
    line = COLUMNS.format(
        model.stem,
        f"{totals.units_before} to {totals.units_after}",
        f"{totals.connections_before} to {totals.connections_after}",
        f"{found.deviation:.2g}",
        "yes" if found.verified else "NO",
        f"{optimized - started:.1f}",
        f"{time.perf_counter() - optimized:.1f}",
    )
    return line, found.verified


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a line for each network."""
    del argv
    names = ("network", "ReLU units", "connections", "at most", "verified", "optimize", "verify")
    print(COLUMNS.format(*names))
    good = True
    for model in sorted(MODELS.rglob("*.onnx")):
        with tempfile.TemporaryDirectory() as folder:
            line, verified = row(model, Path(folder))
        print(line, flush=True)
        good &= verified
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
