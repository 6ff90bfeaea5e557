"""Certificates and their checker on every case: `python -m benchmarks.certify [CASE...]`.

For each network and domain: `optimize` with a certificate and `verify` on what it wrote, in a
process of their own. Verdicts with a full proof, the certified deviation, the size of the
certificate and both times go to `benchmarks/results/certify.json`, and to `certify.md` beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import onnx_exact
from benchmarks.deciding.cases import Case, case_from_json, cases
from benchmarks.deciding.tables import new_table, section, where
from benchmarks.running.processes import (
    RESULTS,
    ChildError,
    machine,
    now,
    patience,
    run_child,
    write_text,
)
from onnx_exact.errors import OnnxExactError

LIMIT = 300.0
# What is asked of every case: shares of decided verdicts, of the time and of the original's size.
LEAST_PROVED, MOST_TIMES, MOST_BYTES = 0.99, 5.0, 4.0

Entry = dict[str, Any]
T = TypeVar("T")


def measure(case: Case, limit: float) -> Entry:
    """Optimizes and verifies one case in this process."""
    with tempfile.TemporaryDirectory() as folder:
        new, certificate = Path(folder) / "new.onnx", Path(folder) / "certificate.npz"
        report, optimizing = _timed(
            lambda: onnx_exact.optimize_file(
                case.file, new, domain=case.domain_spec, time_limit=limit, certificate=certificate
            )
        )
        try:
            found, verifying = _timed(lambda: onnx_exact.verify(case.file, new, certificate))
        except OnnxExactError as error:
            return {"refused": str(error)}
        totals = report.to_json_dict()["totals"]
        return {
            "decided": totals["stably_inactive"] + totals["stably_active"] + totals["unstable"],
            "undecided": totals["undecided"],
            "proved": totals["proved"],
            "granted": totals["by_solver"],
            "claims": found.claims,
            "deviation": report.to_json_dict()["deviation"],
            "verified_deviation": found.deviation,
            "bytes": certificate.stat().st_size / case.file.stat().st_size,
            "stages": dict(report.seconds),
            "optimize_seconds": round(optimizing, 3),
            "verify_seconds": round(verifying, 3),
        }


def _timed(action: Callable[[], T]) -> tuple[T, float]:
    """What an action gives, and its time of the processor."""
    begin = time.process_time()
    return action(), time.process_time() - begin


def fails(entry: Entry) -> list[str]:
    """What is asked for and does not hold."""
    if "error" in entry or "refused" in entry:
        return [entry.get("error") or f"refused: {entry['refused']}"]
    found = []
    if entry["proved"] < LEAST_PROVED * entry["decided"]:
        found.append(f"only {entry['proved']} of {entry['decided']} verdicts fully proved")
    if entry["verify_seconds"] > MOST_TIMES * entry["optimize_seconds"]:
        found.append(f"verifying took over {MOST_TIMES:g} times the time of optimizing")
    if entry["bytes"] > MOST_BYTES:
        found.append(f"the certificate is over {MOST_BYTES:g} times the size of the original")
    return found


def markdown(results: Entry) -> str:
    """The table, and what does not hold."""
    columns = (
        *(
            "decided",
            "open",
            "fully proved",
            "taken for granted",
            "certified deviation",
            "observed",
        ),
        *("runtime rounding before", "after", "size", "optimize", "prove", "verify", "times"),
    )
    table = new_table(("case",), columns)
    wrong = []
    for name, entry in results["rows"].items():
        wrong += [f"- {name}: {why}" for why in fails(entry)]
        if "decided" in entry:
            table.add_row(name, *_cells(entry))
    words = (
        "Seconds are the processor's; *prove* is part of *optimize*, *times* is verifying against"
        " optimizing, *size* the certificate's against the original model's. A bound of - does not"
        " exist, or there was nothing to bound."
    )
    parts = [*section("# Certificates and their checker", table)]
    parts[1:1] = [
        "Written by `python -m benchmarks.certify`; not to be edited.",
        f"{where(results['machine'])} {words}",
    ]
    parts.append("Not as asked for:\n\n" + "\n".join(wrong) if wrong else "All is as asked for.")
    return "\n\n".join(parts) + "\n"


def _cells(entry: Entry) -> list[str]:
    deviation = entry["deviation"] or {}
    bounds = [
        "-" if deviation.get(key) is None else f"{deviation[key]:.3g}"
        for key in (
            *("certified_max_abs", "observed_max_abs"),
            *("runtime_rounding_before", "runtime_rounding_after"),
        )
    ]
    first, second = entry["optimize_seconds"], entry["verify_seconds"]
    return [
        f"{entry['decided']:,}",
        str(entry["undecided"]),
        f"{entry['proved'] / max(entry['decided'], 1):.1%}",
        str(entry["granted"]),
        *bounds,
        f"{entry['bytes']:.1%}",
        *(f"{value:.2f}" for value in (first, entry["stages"].get("prove", 0.0), second)),
        f"{second / first:.2f}",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 1 where something is not as asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.certify", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("cases", nargs="*", metavar="CASE", help="these alone")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for each case")
    parser.add_argument("--resume", action="store_true", help="keep the rows that are there")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(measure(case_from_json(json.loads(args.cases[0])), args.limit)))
        return 0
    path = RESULTS / "certify.json"
    rows: dict[str, Entry] = {}
    if args.resume and path.exists():
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    for case in cases():
        if not case.present or (args.cases and case.name not in args.cases):
            continue
        if args.resume and not args.cases and case.name in rows:
            continue
        arguments = ["--one", "--limit", str(args.limit), json.dumps(case.to_json())]
        try:
            entry = run_child("benchmarks.certify", arguments, 3 * patience(args.limit), threads=1)
        except ChildError as error:
            entry = {"error": str(error)}
        rows[case.name] = {"when": now(), "limit": args.limit} | entry
        print(case.name, json.dumps(rows[case.name]), flush=True)
        results = {"machine": machine(), "rows": rows}
        write_text(path, json.dumps(results, indent=1) + "\n")
        write_text(path.with_suffix(".md"), markdown(results))
    return 1 if any(fails(entry) for entry in rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
