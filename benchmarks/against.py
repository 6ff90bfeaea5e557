"""Holds this checkout against another one: `python -m benchmarks.against OTHER`.

`optimize` of both checkouts, in turn, on every case that takes no more than seconds and on networks
of others: what is kept of the connections, and the processor's time of the whole command (user and
system, the least of some runs). The table goes to `benchmarks/results/against.md`. OTHER is a
folder with the package in it, another revision's worktree for example.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.deciding.cases import ROOT, SHARED, Case, cases
from benchmarks.running.processes import RESULTS, THREADS, machine, write_text

LIMIT = 120
# Cases that take longer are measured by `benchmarks.decide`.
LEFT_OUT = {"acasxu_1_1_box", "acasxu_3_3_box", "mnist-net_256x4_prop_1", "mnist-net_256x4"}
MORE = {
    "cartpole": "-1:1",
    "lindex": "0:1",
    "tll_instance_0_0": "-2:2",
    "mnistcnn_0.1": "0:1",
    "cifar_base_kw": "0:1",
    "conv_mnist_cnn_l1": "0:1",
    "conv_cifar_cnn_l1": "0:1",
}


@dataclass(frozen=True)
class Outcome:
    """One run: connections kept, units left undecided, seconds of the processor."""

    connections: int | None
    undecided: int | None
    seconds: float


def optimized(checkout: Path, case: Case) -> Outcome:
    """What `optimize` of a checkout makes of a case."""
    environment = os.environ | dict.fromkeys(THREADS, "1") | {"PYTHONPATH": str(checkout)}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "r.json"
        command = [sys.executable, "-m", "onnx_exact", "optimize", str(case.file)]
        command += [f"{folder}/o.onnx", "--report", str(report), "--time-limit", str(LIMIT)]
        if case.domain is not None:
            command.append(f"--domain={case.domain_spec}")
        before = _seconds()
        subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
        seconds = _seconds() - before
        if not report.exists():
            return Outcome(None, None, seconds)
        totals = json.loads(report.read_text())["totals"]
    return Outcome(totals["connections_after"], totals["undecided"], seconds)


def _seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compared() -> list[Case]:
    """The cases that are there."""
    shared = [Case(name, SHARED / "models" / f"{name}.onnx", box) for name, box in MORE.items()]
    return [c for c in [*cases(), *shared] if c.present and c.name not in LEFT_OUT]


def row(case: Case, other: Path, runs: int) -> tuple[str, float]:
    """A line of the table, and the ratio of the times."""
    pairs = [(optimized(other, case), optimized(ROOT, case)) for _ in range(runs)]
    (theirs, ours), times = (
        pairs[0],
        [[o.seconds for o in side] for side in zip(*pairs, strict=True)],
    )
    ratio = min(times[1]) / min(times[0])
    cells = [case.name, *(f"{_number(o.connections)}" for o in (theirs, ours))]
    cells += [f"{_number(o.undecided)}" for o in (theirs, ours)]
    cells += [f"{min(side):.2f}" for side in times] + [f"{ratio:.2f}"]
    return f"| {' | '.join(cells)} |", ratio


def _number(value: int | None) -> str:
    return "refused" if value is None else f"{value:,}"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against", description=__doc__)
    parser.add_argument("other", type=Path, metavar="OTHER", help="the other checkout")
    parser.add_argument("--name", default="before", help="what the table calls it")
    parser.add_argument("--runs", type=int, default=2, help="of each on every case (default: 2)")
    parser.add_argument("--out", type=Path, default=RESULTS / "against.md", metavar="FILE")
    arguments = parser.parse_args(argv)
    lines, ratios = [], []
    for case in compared():
        line, ratio = row(case, arguments.other.resolve(), arguments.runs)
        print(line, flush=True)
        lines.append(line)
        ratios.append(ratio)
    described = machine()
    heads = [f"connections, {arguments.name}", "now", "undecided", "now", "cpu s", "now", "ratio"]
    table = [f"| case | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads), *lines]
    text = "\n".join(
        [
            "# Against an earlier revision",
            "",
            f"Written by `python -m benchmarks.against OTHER --name '{arguments.name}'`; not to be"
            " edited.",
            "",
            f"{described['processor']}, one thread; the least of {arguments.runs} runs of the whole"
            f" command. The median ratio is {sorted(ratios)[len(ratios) // 2]:.2f}.",
            "",
            *table,
            "",
        ]
    )
    write_text(arguments.out, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
