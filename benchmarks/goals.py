"""What `--goal verify` does for those who verify: `python -m benchmarks.goals`.

Five networks in boxes of `../shared`, as they were and as the goal leaves them: how many units are
unstable by plain intervals, and how long SCIP on a big-M model of these intervals and Marabou take
for the largest margin of one output over another, five of them a network. The record is
`benchmarks/results/goals.json`, and `goals.md` beside it. Needs maraboupy.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

import onnx_exact
from benchmarks.deciding.cases import SHARED
from benchmarks.deciding.tables import where
from benchmarks.running.processes import RESULTS, Entry, machine, now, write_text
from benchmarks.tools.embed import Problem, big_m, marabou
from benchmarks.training.networks import MODELS
from onnx_exact.bounds.interval import interval_bounds
from onnx_exact.domains import resolve_domain
from onnx_exact.graph.locate import locate_chains
from onnx_exact.graph.read import inputs_of
from onnx_exact.network.affine import Array
from onnx_exact.network.chain import Chain

PACKAGES = ("numpy", "onnx", "pyscipopt", "maraboupy")
SEEDS = 5
# Seconds of the processor for one answer.
LIMIT = 10.0
ORIGINAL, VERIFY = "original", "--goal verify"


@dataclass(frozen=True)
class Case:
    """A network and its box."""

    network: Path
    box: Path

    @property
    def name(self) -> str:
        """Of both."""
        return f"{self.network.stem}, {self.box.stem}"


def cases() -> list[Case]:
    """Those that are there."""
    models, boxes = SHARED / "models", SHARED / "domains"
    chosen = [
        Case(MODELS / "mnist_2x100_l1.onnx", boxes / "mnistfc_prop_1_0.03.vnnlib"),
        Case(models / "mnist-net_256x2.onnx", boxes / "mnistfc_prop_1_0.03.vnnlib"),
        Case(models / "mnist-net_256x4.onnx", boxes / "mnistfc_prop_0_0.03.vnnlib"),
        Case(models / "ACASXU_run2a_1_1_batch_2000.onnx", boxes / "acasxu_prop_3.vnnlib"),
        Case(models / "ACASXU_run2a_3_3_batch_2000.onnx", boxes / "acasxu_prop_3.vnnlib"),
    ]
    return [case for case in chosen if case.network.exists() and case.box.exists()]


def unstable(chain: Chain, low: Array, high: Array) -> int:
    """How many ReLU units intervals do not decide."""
    count = 0
    for layer in chain.layers:
        low, high = interval_bounds(layer.affine, low, high)
        if layer.relu:
            count += int(((low < 0.0) & (high > 0.0)).sum())
            low, high = np.maximum(low, 0.0), np.maximum(high, 0.0)
    return count


def measured(case: Case) -> Entry:
    """One network in its box."""
    with tempfile.TemporaryDirectory() as folder:
        files = {ORIGINAL: case.network, VERIFY: Path(folder) / "verify.onnx"}
        report = onnx_exact.optimize_file(
            case.network, files[VERIFY], domain=case.box, goal="verify"
        )
        (spec,) = inputs_of(onnx.load(case.network))
        box = resolve_domain(case.box, (spec,), {}).boxes[spec.name]
        low, high = (np.asarray(side, dtype=np.float64).ravel() for side in (box.lower, box.upper))
        found: Entry = {"unstable": sum(s.unstable for c in report.chains for s in c.layers)}
        chains = {name: locate_chains(onnx.load(path))[0].chain for name, path in files.items()}
        outputs = chains[ORIGINAL].n_out
        rows: Entry = {name: {"SCIP": [], "Marabou": []} for name in files}
        for seed in range(SEEDS):
            direction = np.zeros(outputs)
            pair = np.random.default_rng(seed).choice(outputs, size=2, replace=False)
            direction[pair] = 1.0, -1.0
            problem = Problem(low, high, direction)
            for name, chain in chains.items():
                rows[name]["SCIP"].append(big_m(chain, problem, seed, LIMIT))
            solved = (rows[name]["SCIP"][-1]["value"] for name in files)
            middle = chains[ORIGINAL].forward(((low + high) / 2.0)[None])[0] @ direction
            best = max([float(middle), *(float(value) for value in solved if value is not None)])
            least = best + 0.01 * abs(best) + 0.01
            for name, path in files.items():
                rows[name]["Marabou"].append(marabou(path, problem, None, least, LIMIT))
        for name, chain in chains.items():
            rows[name]["by intervals"] = unstable(chain, low, high)
    return found | {"networks": rows}


def _mean(rows: Sequence[Entry]) -> float:
    return math.exp(sum(math.log(max(row["seconds"], 1e-3)) for row in rows) / len(rows))


def ratio(found: Entry, solver: str) -> float:
    """Of the geometric means of seconds, the new network to the old one."""
    networks = found["networks"]
    return _mean(networks[VERIFY][solver]) / _mean(networks[ORIGINAL][solver])


def markdown(record: Entry) -> str:
    """The record as a table."""
    lines = [
        "# `--goal verify`, measured",
        "",
        "Written by `python -m benchmarks.goals`.",
        where(record["machine"]),
        "",
        f"{SEEDS} margins a network, {LIMIT:g} s of the processor each; geometric means of seconds,"
        " and how many were not answered in time.",
        "",
        "| network, box | unstable | file | unstable by intervals | SCIP | Marabou |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
    ]
    for name, found in record["cases"].items():
        for which, rows in found["networks"].items():
            cells = [name, str(found["unstable"]), which, str(rows["by intervals"])]
            for solver, done in (("SCIP", ("optimal",)), ("Marabou", ("sat", "unsat"))):
                late = sum(row["status"] not in done for row in rows[solver])
                cells.append(f"{_mean(rows[solver]):.2f}" + (f" ({late})" if late else ""))
            lines.append(f"| {' | '.join(cells)} |")
    for solver in ("SCIP", "Marabou"):
        ratios = [ratio(found, solver) for found in record["cases"].values()]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        each = ", ".join(f"{value:.2f}" for value in ratios)
        lines += ["", f"{solver}, as a multiple of the original's: {mean:.2f} ({each})."]
    return "\n".join([*lines, ""])


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and writes the record; 1 where a unit is unstable by intervals alone."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.goals", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args(argv)
    record: Entry = {"machine": machine(PACKAGES), "date": now(), "cases": {}}
    for case in cases():
        record["cases"][case.name] = measured(case)
        print(case.name, file=sys.stderr, flush=True)
    write_text(RESULTS / "goals.json", json.dumps(record, indent=1) + "\n")
    write_text(RESULTS / "goals.md", markdown(record))
    found = record["cases"].values()
    return int(any(f["networks"][VERIFY]["by intervals"] > f["unstable"] for f in found))


if __name__ == "__main__":
    sys.exit(main())
