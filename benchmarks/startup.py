"""The processor time of the whole command on easy networks: `python -m benchmarks.startup SLIM`.

`onnx_exact optimize` with all of its checks against `onnxslim IN OUT`, SLIM being that program, of
an environment of its own. The two take turns; each number is the median over the pairs of user and
system time, compiled files being there on both sides. Results go to
`benchmarks/results/startup.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.deciding.cases import ROOT
from benchmarks.running.processes import RESULTS, Entry, machine, now, write_text
from benchmarks.training.networks import MODELS

PAIRS = 15
# The most that is wanted of ours, as a share of the other's.
WANTED = {"mnist_2x100_l1": 0.8, "cifar10_5x100_l1": 1.0}


def seconds(command: Sequence[str]) -> float:
    """User and system time of a command.

    Raises:
        RuntimeError: it failed.
    """
    # Compiled files are written, whatever the caller's environment says.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    nowhere = subprocess.DEVNULL
    child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=nowhere, stderr=nowhere)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{command}: exit code {child.returncode}")
    return used.ru_utime + used.ru_stime


def compare(model: Path, other: str, pairs: int) -> Entry:
    """Both on one model, in turns, after one run that counts for nothing."""
    with tempfile.TemporaryDirectory() as name:
        made = str(Path(name) / "out.onnx")
        ours = [sys.executable, "-m", "onnx_exact", "optimize", str(model), made, "--quiet"]
        theirs = [other, str(model), made]
        for command in (ours, theirs):
            seconds(command)
        taken = [(seconds(ours), seconds(theirs)) for _ in range(pairs)]
    own, others = (statistics.median(column) for column in zip(*taken, strict=True))
    return {"ours": round(own, 3), "onnxslim": round(others, 3), "share": round(own / others, 3)}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 1 where more is taken than is wanted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("slim", help="the onnxslim program")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--out", type=Path, default=RESULTS / "startup.json", metavar="FILE")
    args = parser.parse_args(argv)
    results: Entry = {"machine": machine(), "when": now(), "pairs": args.pairs, "runs": {}}
    right = True
    for name, wanted in WANTED.items():
        found = compare(MODELS / f"{name}.onnx", args.slim, args.pairs) | {"wanted": wanted}
        right &= found["share"] <= wanted
        print(f"{name}: {found}", flush=True)
        results["runs"][name] = found
    write_text(args.out, json.dumps(results, indent=1) + "\n")
    return int(not right)


if __name__ == "__main__":
    sys.exit(main())
