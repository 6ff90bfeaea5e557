"""Measures how many units are decided, and how fast: `python -m benchmarks.decide`.

Every case runs in a process of its own, one at a time. Results are merged case by case into
`benchmarks/results/decide.json` and shown in `decide.md` beside it, so that a run can be broken off
and gone on with (`--resume`), and single cases measured anew (`--only`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.deciding.cases import ROOT, Case, cases
from benchmarks.deciding.tables import markdown, one_line
from benchmarks.deciding.verdicts import Verdicts, disagreements
from benchmarks.measure import RSS_UNIT
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
from benchmarks.training.export import sha256
from benchmarks.training.networks import MODELS
from onnx_exact.methods import METHODS

VERDICTS = CACHE / "decide"
# Seconds for deciding a case that has no limit of its own.
LIMIT = 300.0
# A run that takes more than this share of its time limit was ended by it.
ENDED = 0.95
ATTACK_SECONDS = 4 * 3600.0
# So that an attack begins elsewhere than the run that it attacks.
ATTACK_SEED = 7919
# The parts of the package that verdicts and times depend on.
DECIDING = ("network", "graph", "domains", "bounds", "attack", "bab", "milp", "decide")
COMMAND_RUNS = 3
COMMAND_MODEL = MODELS / "mnist_2x100_l1.onnx"

Results = dict[str, Any]
Entry = dict[str, Any]


def run_case(case: Case, method: str, limit: float, seed: int, verdicts: Path) -> Entry:
    """Decides one case in a process of its own, and says what was measured, or the `error`."""
    entry: Entry = {
        "network": case.file.name,
        "domain": case.domain_words,
        "asked_seconds": case.seconds,
        "all_units": case.all_units,
        "limit": limit,
        "seed": seed,
        "when": now(),
        "load": round(os.getloadavg()[0], 2),
        "fingerprint": fingerprint(case, limit, seed),
    }
    arguments = [json.dumps(case.to_json()), method, str(limit), str(seed), str(verdicts)]
    try:
        entry |= run_child("benchmarks.measure", arguments, patience(limit))
    except ChildError as error:
        return entry | {"error": str(error)}
    return entry | {"met": _met(case, entry) if method == "auto" else None}


def _met(case: Case, entry: Entry) -> bool | None:
    """Whether every unit was decided in the time asked for; None where that cannot be told."""
    if case.seconds is None or not case.all_units:
        return None
    if entry["open"] and entry["limit"] < case.seconds:
        return None
    return bool(entry["open"] == 0 and entry["seconds"] <= case.seconds)


def run_attack(case: Case, verdicts: Path, seed: int) -> Entry:
    """Attacks the verdicts on one case in a process of its own."""
    entry: Entry = {"when": now(), "seed": seed, "verdicts": sha256(verdicts)}
    arguments = [json.dumps(case.to_json()), str(verdicts), str(seed)]
    try:
        # On a busy machine the threads of a matrix product wait for one another.
        return entry | run_child("benchmarks.attack", arguments, ATTACK_SECONDS, threads=1)
    except ChildError as error:
        return entry | {"error": str(error)}


def compare(entries: dict[str, Entry], method: str, verdicts: dict[str, Path]) -> Entry:
    """The verdicts and the time of `method` against those of `auto` on the same case."""
    ours, theirs = (Verdicts.read(verdicts[name]) for name in ("auto", method))
    auto, other = entries["auto"], entries[method]
    return {
        "disagreements": [asdict(found) for found in disagreements(ours, theirs)],
        "open": other["open"],
        "ratio": round(other["seconds"] / auto["seconds"], 1),
        "at_least": other["seconds"] > ENDED * other["limit"],
    }


def measure_command(model: Path) -> Entry:
    """Time and peak memory of the whole command on a model: the best time, the greatest peak."""
    seconds, peaks = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(COMMAND_RUNS):
            target = Path(folder) / "smaller.onnx"
            command = ["-m", "onnx_exact", "optimize", str(model), str(target)]
            begin = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL
            )
            # What the process is forked from counts as well, but that is smaller.
            _, status, usage = os.wait4(process.pid, 0)
            seconds.append(round(time.perf_counter() - begin, 3))
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                raise BenchmarkError(f"the command failed on {model.name}")
            peaks.append(round(usage.ru_maxrss * RSS_UNIT / 1e6, 1))
    return {
        "network": model.name,
        "when": now(),
        "load": round(os.getloadavg()[0], 2),
        "seconds": min(seconds),
        "all_seconds": seconds,
        "peak_mb": max(peaks),
    }


def fingerprint(case: Case, limit: float, seed: int, rooms: Sequence[str] = DECIDING) -> str:
    """Sixteen digits that change with the code, the network, its domain, the limit or the seed.

    Args:
        case: its network is there.
        limit: seconds for deciding.
        seed: of every random choice.
        rooms: the parts of the package that the figures depend on.
    """
    digest = hashlib.sha256(json.dumps([case.domain, limit, seed]).encode())
    package = ROOT / "onnx_exact"
    for room in rooms:
        for path in sorted((package / room).rglob("*.py")):
            digest.update(path.read_bytes())
    for file in (case.file, case.domain_file):
        digest.update(file.read_bytes() if file else b"")
    return digest.hexdigest()[:16]


def read_results(path: Path) -> Results:
    """The results so far; none where there is no file."""
    if path.exists():
        results: Results = json.loads(path.read_text(encoding="utf-8"))
        return results
    return {"machine": {}, "rows": {}, "comparisons": {}, "attacks": {}, "command": {}}


def write_results(results: Results, path: Path) -> None:
    """Writes the results and their tables; a partial file is never seen."""
    for target, text in (
        (path, json.dumps(results, indent=1) + "\n"),
        (path.with_suffix(".md"), markdown(results)),
    ):
        write_text(target, text)


class Run:
    """One call of the command: what it measures, and into which files."""

    def __init__(self, args: argparse.Namespace, results: Path, verdicts: Path) -> None:
        self.args, self.path, self.folder = args, results, verdicts
        self.results = read_results(results)
        self.results["machine"] = machine()
        self.failed = False

    def all(self, chosen: Sequence[Case]) -> None:
        """Measures the cases one after another, and the command unless cases were named."""
        for case in chosen:
            if not case.present:
                print(f"{case.name}: skipped, its network or domain is absent", flush=True)
                continue
            for method in self.args.methods:
                self._decide(case, method)
            self._compare(case)
            if self.args.attack:
                self._attack(case)
        if not self.args.only:
            self.results["command"] = measure_command(COMMAND_MODEL)
            self._save()

    def _decide(self, case: Case, method: str) -> None:
        default = max(case.seconds or 0.0, LIMIT)
        limit = self.args.limit if self.args.limit is not None else default
        rows = self.results["rows"].setdefault(case.name, {})
        verdicts = self._verdicts(case, method)
        known = rows.get(method, {}).get("fingerprint") == fingerprint(case, limit, self.args.seed)
        if self.args.resume and known and verdicts.exists() and "error" not in rows[method]:
            print(f"{case.name}, {method}: measured already", flush=True)
            return
        verdicts.unlink(missing_ok=True)
        rows[method] = run_case(case, method, limit, self.args.seed, verdicts)
        print(one_line(case.name, method, rows[method]), flush=True)
        self.failed |= "error" in rows[method]
        self._save()

    def _compare(self, case: Case) -> None:
        """Every method that has been measured on the case against `auto`."""
        rows = {m: e for m, e in self.results["rows"][case.name].items() if "error" not in e}
        files = {method: self._verdicts(case, method) for method in rows}
        for method in self.args.methods:
            if method == "auto" or not {"auto", method} <= {m for m in rows if files[m].exists()}:
                continue
            found = compare(rows, method, files)
            self.results["comparisons"].setdefault(case.name, {})[method] = found
            for wrong in found["disagreements"]:
                print(f"{case.name}: auto and {method} disagree: {wrong}", flush=True)
                self.failed = True
        self._save()

    def _attack(self, case: Case) -> None:
        """Attacks the verdicts of the first method."""
        verdicts = self._verdicts(case, self.args.methods[0])
        if not verdicts.exists():
            return
        attacks = self.results["attacks"]
        if self.args.resume and attacks.get(case.name, {}).get("verdicts") == sha256(verdicts):
            return
        attacks[case.name] = found = run_attack(case, verdicts, self.args.seed + ATTACK_SEED)
        print(f"{case.name}: attacked: {json.dumps(found)}", flush=True)
        self.failed |= "error" in found or bool(found["violations"])
        self._save()

    def _verdicts(self, case: Case, method: str) -> Path:
        return self.folder / f"{case.name}_{method}.npz"

    def _save(self) -> None:
        write_results(self.results, self.path)


def _chosen(args: argparse.Namespace) -> list[Case]:
    """The cases that the flags ask for."""
    known = {case.name: case for case in cases()}
    unknown = [name for name in args.only if name not in known]
    if unknown:
        raise BenchmarkError(f"no case {unknown[0]!r}; there are {', '.join(known)}")
    chosen = [known[name] for name in args.only] or list(known.values())
    return [case for case in chosen if case.quick or not args.quick]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decide", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", nargs="+", default=[], metavar="CASE", help="these cases alone")
    parser.add_argument("--quick", action="store_true", help="cases of a few seconds alone")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=["auto"], help="(default: auto)"
    )
    parser.add_argument(
        "--limit", type=float, metavar="SECONDS", help="for each case (default: its own, or 300)"
    )
    parser.add_argument(
        "--attack", action="store_true", help="try to refute the verdicts of the first method"
    )
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.add_argument(
        "--resume", action="store_true", help="leave out what was measured with the same code"
    )
    return parser


def main(
    argv: Sequence[str] | None = None, results: Path | None = None, verdicts: Path = VERDICTS
) -> int:
    """The command line; 1 where a verdict is refuted, methods disagree or a run fails."""
    args = _parser().parse_args(argv)
    path = results or RESULTS / "decide.json"
    try:
        run = Run(args, path, verdicts)
        run.all(_chosen(args))
    except (BenchmarkError, OSError) as error:
        print(f"benchmarks.decide: {error}", file=sys.stderr)
        return 2
    print(path.with_suffix(".md").read_text(encoding="utf-8"))
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
