"""Compares ways to decide on the trained networks and others: `python -m benchmarks.compare`.

Every run has a process of its own, one at a time, in a shuffled order. Results are written after
each run into `benchmarks/results/compare.json` and shown in `compare.md` beside it, so that a run
can be broken off and gone on with (`--resume`). Verdicts are compared unit by unit: where two
differ the command names the unit and fails. `--quick` takes the networks of
`python -m benchmarks.train --grid quick`, a short limit, and its own files.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparing.contestants import CONTESTANTS, OURS
from benchmarks.comparing.others import OthersNetwork, others_networks
from benchmarks.comparing.summary import clashes
from benchmarks.comparing.tables import markdown, one_line
from benchmarks.decide import fingerprint
from benchmarks.deciding.verdicts import Verdicts
from benchmarks.running.processes import (
    RESULTS,
    ChildError,
    machine,
    now,
    patience,
    run_child,
    write_text,
)
from benchmarks.training.data import CACHE, BenchmarkError
from benchmarks.training.trained import TrainedNetwork, quick_networks, trained_networks
from onnx_exact.decide.verdict import Status

VERDICTS = CACHE / "compare"
LIMIT, QUICK_LIMIT = 1800.0, 12.0
REPEAT, QUICK_REPEAT = 3, 2

Entry = dict[str, Any]
Network = TrainedNetwork | OthersNetwork


@dataclass(frozen=True)
class Job:
    """One run: a contestant on a network, for the n-th time."""

    network: Network
    contestant: str
    repeat: int

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from all others."""
        return self.network.name, self.contestant, self.repeat


def jobs(
    networks: Iterable[Network], contestants: Sequence[str], repeat: int, seed: int
) -> list[Job]:
    """All runs, in an order shuffled with `seed`; contestants that take long run once."""
    found = [
        Job(network, name, number)
        for network in networks
        for name in contestants
        for number in range(1 if CONTESTANTS[name].once else repeat)
    ]
    random.Random(seed).shuffle(found)
    return found


def known(results: Entry, job: Job) -> Entry | None:
    """What was measured of a job, if it was."""
    name, contestant, repeat = job.key
    entries = results["runs"].get(name, {}).get(contestant, [])
    return next((entry for entry in entries if entry["repeat"] == repeat), None)


def enter(results: Entry, job: Job, entry: Entry) -> None:
    """Puts a measurement in the place of an older one of the same job."""
    name, contestant, repeat = job.key
    entries = results["runs"].setdefault(name, {}).setdefault(contestant, [])
    entries[:] = sorted(
        [*(e for e in entries if e["repeat"] != repeat), entry], key=lambda e: int(e["repeat"])
    )


def run_job(job: Job, limit: float, seed: int, verdicts: Path) -> Entry:
    """Measures in a process of its own; the tool has another seed in each repeat."""
    case = job.network.case
    entry: Entry = {
        "repeat": job.repeat,
        "limit": limit,
        "seed": seed + job.repeat,
        "when": now(),
        "load": round(os.getloadavg()[0], 2),
        "fingerprint": fingerprint(case, limit, seed + job.repeat),
    }
    arguments = [
        *(json.dumps(case.to_json()), job.contestant),
        *(str(limit), str(seed + job.repeat), str(verdicts)),
    ]
    try:
        entry |= run_child("benchmarks.contest", arguments, patience(limit), threads=1)
    except ChildError as error:
        return entry | {"error": str(error)}
    if job.contestant == OURS:
        entry["open_units"] = open_units(Verdicts.read(verdicts))
    return entry


def open_units(verdicts: Verdicts) -> list[list[int]]:
    """Layer and unit of all that is undecided."""
    return [
        [layer, int(unit)]
        for layer, status in verdicts.status.items()
        for unit in np.flatnonzero(status == Status.UNDECIDED)
    ]


class Run:
    """One call of the command: what it measures, and into which files."""

    def __init__(self, args: argparse.Namespace, results: Path, verdicts: Path) -> None:
        self.args, self.path, self.folder = args, results, verdicts
        self.results: Entry = {"networks": {}, "runs": {}, "disagreements": []}
        if args.resume and results.exists():
            self.results = json.loads(results.read_text(encoding="utf-8"))
        self.results |= {"machine": machine(), "seed": args.seed, "limit": args.limit}
        self.failed = False

    def all(self, networks: Sequence[Network]) -> None:
        """Measures what there is to measure, one run after another."""
        present = [network for network in networks if network.file.exists()]
        for network in networks:
            if isinstance(network, TrainedNetwork) and network not in present:
                print(f"{network.name}: skipped, absent; {network.spec.command('FILE.onnx')}")
        todo = jobs(present, self.args.contestants, self.args.repeat, self.args.seed)
        for number, job in enumerate(todo, start=1):
            self.results["networks"][job.network.name] = job.network.to_json()
            if not (self.args.resume and self._is_done(job)):
                self._measure(job, f"{number}/{len(todo)}")
        for case in list(self.results["runs"]):
            self._compare(case)
        self.failed |= bool(self.results["disagreements"])

    def _is_done(self, job: Job) -> bool:
        entry = known(self.results, job)
        if entry is None or "error" in entry:
            return False
        current = fingerprint(job.network.case, self.args.limit, self.args.seed + job.repeat)
        there = "skipped" in entry or self._file(job).exists()
        return bool(entry["fingerprint"] == current) and there

    def _measure(self, job: Job, place: str) -> None:
        self._file(job).unlink(missing_ok=True)
        entry = run_job(job, self.args.limit, self.args.seed, self._file(job))
        enter(self.results, job, entry)
        print(f"{place} {one_line(job.network.name, job.contestant, entry)}", flush=True)
        self.failed |= "error" in entry
        self._compare(job.network.name)

    def _compare(self, case: str) -> None:
        """Holds the verdicts on a network against one another, all runs on record."""
        files = {
            f"{name} #{entry['repeat'] + 1}": self._path(case, name, entry["repeat"])
            for name, entries in self.results["runs"][case].items()
            for entry in entries
            if "units" in entry
        }
        found = clashes(case, {run: Verdicts.read(p) for run, p in files.items() if p.exists()})
        others = [wrong for wrong in self.results["disagreements"] if wrong["case"] != case]
        self.results["disagreements"] = others + found
        self._save()

    def _file(self, job: Job) -> Path:
        return self._path(*job.key)

    def _path(self, case: str, contestant: str, repeat: int) -> Path:
        return self.folder / f"{case}_{contestant}_{repeat}.npz"

    def _save(self) -> None:
        write_text(self.path, json.dumps(self.results, indent=1) + "\n")
        write_text(self.path.with_suffix(".md"), markdown(self.results))


def _chosen(args: argparse.Namespace) -> Sequence[Network]:
    """The networks that the flags ask for."""
    all_of_them: list[Network] = [*trained_networks(), *others_networks()]
    networks = {network.name: network for network in all_of_them}
    unknown = [name for name in args.only if name not in networks]
    if unknown:
        raise BenchmarkError(
            f"no network {unknown[0]!r} on record; there are {', '.join(networks)}"
        )
    if args.only:
        return [networks[name] for name in args.only]
    return quick_networks() if args.quick else list(networks.values())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="few networks and a short limit")
    parser.add_argument("--only", nargs="+", default=[], metavar="NETWORK", help="these alone")
    parser.add_argument(
        "--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), metavar="NAME"
    )
    parser.add_argument(
        "--limit",
        type=float,
        metavar="SECONDS",
        help=f"for each run (default: {LIMIT:g}, with --quick {QUICK_LIMIT:g})",
    )
    parser.add_argument(
        "--repeat",
        type=int,
        help=f"of runs that take little (default: {REPEAT}, with --quick {QUICK_REPEAT})",
    )
    parser.add_argument("--seed", type=int, default=0, help="of order and tool (default: 0)")
    parser.add_argument("--resume", action="store_true", help="leave out what was measured already")
    return parser


def main(
    argv: Sequence[str] | None = None, results: Path | None = None, verdicts: Path = VERDICTS
) -> int:
    """The command line; 1 where verdicts disagree or a run fails."""
    args = _parser().parse_args(argv)
    if args.limit is None:
        args.limit = QUICK_LIMIT if args.quick else LIMIT
    if args.repeat is None:
        args.repeat = QUICK_REPEAT if args.quick else REPEAT
    # A quick look does not replace the record.
    path = results or (CACHE / "compare_quick.json" if args.quick else RESULTS / "compare.json")
    folder = verdicts / "quick" if args.quick else verdicts
    try:
        run = Run(args, path, folder)
        run.all(_chosen(args))
    except (BenchmarkError, OSError) as error:
        print(f"benchmarks.compare: {error}", file=sys.stderr)
        return 2
    print(path.with_suffix(".md").read_text(encoding="utf-8"))
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
