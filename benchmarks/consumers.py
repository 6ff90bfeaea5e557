"""What embeds or verifies networks, on results and bounds: `python -m benchmarks.consumers`.

Problems: the largest margin of one output over another in a box, by PySCIPOpt-ML and by OMLT, for
the original, for what is made of it, and for that with its bounds, with five seeds; and the same as
queries to Marabou. And which of four consumers reads what each `--goal` gives. What came out goes
to `benchmarks/results/consumers.json` after each part, and into the tables of `docs/bounds.md`.
Needs PySCIPOpt-ML, OMLT, gurobi-machinelearning and maraboupy.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import onnx_exact
from benchmarks.deciding.cases import ACASXU_BOX, SHARED
from benchmarks.running.processes import RESULTS, machine, now, write_text
from benchmarks.tools.embed import READERS, SOLVERS, LayerBounds, Problem, layer_bounds, marabou
from benchmarks.training.networks import MODELS
from onnx_exact.domains import DomainLike, resolve_domain
from onnx_exact.graph.read import inputs_of
from onnx_exact.methods import GOALS

PAGE = Path(__file__).parents[1] / "docs" / "bounds.md"
RECORD = RESULTS / "consumers.json"
PACKAGES = (
    *("onnx", "pyscipopt", "pyscipopt-ml", "omlt", "pyomo", "highspy", "maraboupy"),
    *("gurobi-machinelearning", "gurobipy"),
)
SEEDS = range(5)
# Seconds of the processor for each solution.
LIMIT = 10.0
# The consumer that finds the largest margins for the queries to Marabou.
FIRST = "PySCIPOpt-ML"
ORIGINAL, REDUCED, BOUNDED = "original", "reduced", "reduced with bounds"
# What counts as a gain: as often as fast, or this share of nodes or binaries.
FASTER, FEWER = 2.0, 0.5

Entry = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A network, a box, and which output is to exceed which."""

    name: str
    file: Path
    domain: str | Path
    output: int
    over: int


def tasks() -> tuple[Task, ...]:
    """Six problems; a box of `../shared` may be absent."""
    boxes = SHARED / "domains"

    def digit(network: str, box: str) -> Task:
        name = f"{network}, {box}"
        return Task(name, MODELS / f"{network}.onnx", boxes / f"mnistfc_{box}.vnnlib", 0, 7)

    box = "0.45:0.55"
    return (
        Task("digits_2x32_l1, [0,1]", MODELS / "digits_2x32_l1.onnx", "0:1", 0, 1),
        Task(f"digits_2x32, [{box}]", MODELS / "digits_2x32.onnx", box, 0, 1),
        digit("mnist_2x100_l1", "prop_1_0.03"),
        digit("mnist_2x400_l1", "prop_2_0.03"),
        digit("mnist_2x100", "prop_1_0.03"),
        digit("mnist_5x100_l1", "prop_1_0.03"),
    )


def queries() -> tuple[Task, ...]:
    """For Marabou, which answers wrongly where weights are as small as a penalty leaves them."""
    return tuple(task for task in tasks() if "_l1" not in task.name)


def networks(
    task: Task, folder: Path
) -> tuple[Problem, dict[str, tuple[Path, LayerBounds | None]]]:
    """The problem of a task, and the networks to solve it with."""
    new, file = folder / "new.onnx", folder / "bounds.npz"
    onnx_exact.optimize_file(task.file, new, domain=task.domain, bounds=file)
    old = onnx.load(task.file)
    (spec,) = inputs_of(old)
    box = resolve_domain(task.domain, (spec,), {}).boxes[spec.name]
    direction = np.zeros(old.graph.output[0].type.tensor_type.shape.dim[-1].dim_value)
    direction[task.output], direction[task.over] = 1.0, -1.0
    problem = Problem(box.lower.ravel(), box.upper.ravel(), direction)
    return problem, {
        ORIGINAL: (task.file, None),
        REDUCED: (new, None),
        BOUNDED: (new, layer_bounds(file, "new", onnx.load(new))),
    }


def solve(task: Task, consumer: str, known: Entry, keep: Callable[[], None]) -> None:
    """One problem in one consumer, with the networks that are not known yet, and every seed."""
    with tempfile.TemporaryDirectory() as folder:
        problem, candidates = networks(task, Path(folder))
        for name, (path, bounds) in candidates.items():
            if name not in known:
                known[name] = [
                    SOLVERS[consumer](onnx.load(path), problem, bounds, seed, LIMIT)
                    for seed in SEEDS
                ]
                keep()


def ask(task: Task) -> Entry:
    """Queries to Marabou: can the margin be a little below the largest, and a little above."""
    with tempfile.TemporaryDirectory() as folder:
        problem, candidates = networks(task, Path(folder))
        path, bounds = candidates[BOUNDED]
        best = SOLVERS[FIRST](onnx.load(path), problem, bounds, 0, 10 * LIMIT)
        if best["status"] != "optimal":
            return {}
        step = 0.01 * abs(best["value"]) + 0.01
        return {
            words: {
                name: marabou(path, problem, bounds, best["value"] + sign * step, LIMIT)
                for name, (path, bounds) in candidates.items()
            }
            for words, sign in (("within reach", -1.0), ("out of reach", 1.0))
        }


def mean(rows: Sequence[Entry], key: str) -> float:
    """The geometric mean over seeds; of nodes, of one more."""
    shift = 1.0 if key == "nodes" else 0.0
    logs = [math.log(max(row[key] + shift, 1e-3)) for row in rows]
    return math.exp(sum(logs) / len(logs)) - shift


def unsolved(rows: Sequence[Entry]) -> int:
    """How many seeds were not solved within the limit."""
    return sum(row["status"] != "optimal" for row in rows)


def gains(found: Entry) -> list[str]:
    """What the reduced network with bounds gains on the original."""
    old, new = found[ORIGINAL], found[BOUNDED]
    words = []
    if mean(old, "seconds") >= FASTER * mean(new, "seconds"):
        words.append("time")
    if mean(new, "nodes") <= FEWER * mean(old, "nodes"):
        words.append("nodes")
    if new[0]["binaries"] <= FEWER * old[0]["binaries"]:
        words.append("binaries")
    return words


def read_all() -> Entry:
    """Which consumer reads what each goal gives, and the originals."""
    chosen: dict[str, tuple[Path, str | list[list[float]]]] = {
        "mnist_2x100_l1": (MODELS / "mnist_2x100_l1.onnx", "0:1"),
        "mnist_2x400_l1": (MODELS / "mnist_2x400_l1.onnx", "0:1"),
        "ACAS Xu 1_1": (SHARED / "models" / "ACASXU_run2a_1_1_batch_2000.onnx", ACASXU_BOX),
        "conv_mnist_cnn_l1": (SHARED / "models" / "conv_mnist_cnn_l1.onnx", "0:1"),
    }
    found: Entry = {}
    for name, (file, domain) in chosen.items():
        if not file.exists():
            continue
        (spec,) = inputs_of(onnx.load(file))
        inputs = math.prod(size or 1 for size in spec.shape or ())
        box: DomainLike = domain if isinstance(domain, str) else (domain[0], domain[1])
        with tempfile.TemporaryDirectory() as folder:
            files = {"as it was": file}
            for goal in GOALS:
                files[f"--goal {goal}"] = Path(folder) / f"{goal}.onnx"
                onnx_exact.optimize_file(
                    file, files[f"--goal {goal}"], domain=box, goal=goal, method="bounds"
                )
            found[name] = {
                what: {consumer: _read(consumer, path, inputs) for consumer in READERS}
                for what, path in files.items()
            }
    return found


def _read(consumer: str, path: Path, inputs: int) -> str:
    """Why a consumer does not read a file; empty where it does."""
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            READERS[consumer](path, inputs)
    except Exception as error:  # whatever it raises is its answer
        return " ".join(f"{type(error).__name__}: {error}".split())[:160]
    return ""


def markdown(record: Entry) -> str:
    """The tables of the page."""
    packages = record["machine"]["packages"].items()
    lines = ["Measured with " + ", ".join(f"{n} {v}" for n, v in packages) + ".", ""]
    for consumer, found in record["problems"].items():
        lines += [f"### {consumer}", ""]
        lines += [
            "| problem | network | binaries | nodes | seconds | not solved |",
            "| --- | --- | ---: | ---: | ---: | ---: |",
        ]
        found = {name: rows for name, rows in found.items() if BOUNDED in rows}
        for name, networks in found.items():
            for which, rows in networks.items():
                cells = [name, which, str(rows[0]["binaries"]), f"{mean(rows, 'nodes'):.0f}"]
                cells += [f"{mean(rows, 'seconds'):.2f}", str(unsolved(rows) or "")]
                lines.append(f"| {' | '.join(cells)} |")
        lines += ["", _summary(found), ""]
    if record.get("queries"):
        lines += ["### Marabou", "", "| query | margin | network | answer | splits | seconds |"]
        lines += ["| --- | --- | --- | --- | ---: | ---: |"]
        for name, margins in record["queries"].items():
            for words, networks in margins.items():
                for which, row in networks.items():
                    cells = [name, words, which, row["status"], str(row["nodes"])]
                    lines.append(f"| {' | '.join(cells)} | {row['seconds']:.2f} |")
        lines.append("")
    if record.get("reads"):
        lines += ["### What they read", "", "| network | file | " + " | ".join(READERS) + " |"]
        lines += ["| --- | --- |" + " --- |" * len(READERS)]
        for name, files in record["reads"].items():
            for what, answers in files.items():
                cells = [name, what, *("no" if answers[c] else "yes" for c in READERS)]
                lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _summary(found: Entry) -> str:
    """On how many problems something is gained, and on which nothing."""
    by_name = {name: gains(networks) for name, networks in found.items()}
    gained = [name for name, words in by_name.items() if words]
    quick = [name for name, words in by_name.items() if "time" in words]
    left = [name for name, words in by_name.items() if not words]
    text = (
        "With bounds the reduced network takes at most half of the original's time on"
        f" {len(quick)} of {len(found)} problems, and at most half of its time, its nodes or its"
        f" binaries on {len(gained)}."
    )
    return text + (f" Not on {'; '.join(left)}." if left else "")


def write_page(record: Entry) -> None:
    """Puts the tables into the page."""
    text = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- tables -->\n", "<!-- end of tables -->"
    head, rest = text.split(begin)
    write_text(PAGE, f"{head}{begin}{markdown(record)}{end}{rest.split(end)[1]}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what the record lacks, or is named again, and writes record and page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.consumers")
    parser.add_argument("--again", action="store_true", help="forget the record")
    again = parser.parse_args(argv).again
    known: Entry = {"problems": {name: {} for name in SOLVERS}, "queries": {}, "reads": {}}
    if RECORD.exists() and not again:
        known |= json.loads(RECORD.read_text())

    def keep() -> None:
        known.update({"machine": machine(PACKAGES), "date": now()})
        write_text(RECORD, json.dumps(known, indent=1) + "\n")

    if not known["reads"]:
        known["reads"] = read_all()
        keep()
    there = [t for t in tasks() if isinstance(t.domain, str) or t.domain.exists()]
    for task in there:
        for consumer in SOLVERS:
            print(task.name, consumer, file=sys.stderr)
            solve(task, consumer, known["problems"][consumer].setdefault(task.name, {}), keep)
    for task in queries():
        if task.name not in known["queries"] and task in there:
            print(task.name, "Marabou", file=sys.stderr)
            known["queries"][task.name] = ask(task)
            keep()
    write_page(known)
    return 0


if __name__ == "__main__":
    sys.exit(main())
