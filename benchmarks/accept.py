"""Whether `verify` accepts what `optimize` writes: `python -m benchmarks.accept [CASE...]`.

Every network of `models/` and every file of `../shared/models` over its natural domain and over the
files of `../shared/domains` that are of it: exit code, claims, and the processor's time of `verify`
against that of `optimize`. Rows go to `benchmarks/results/accept.json` after each case, so that a
run that was stopped goes on where it was, and as a table to `accept.md` beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.certify import MOST_TIMES, measure
from benchmarks.deciding.cases import ACASXU_BOX, SHARED, Case, case_from_json
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
from benchmarks.training.networks import MODELS

LIMIT = 20.0
# Natural domains other than [0, 1], by the start of the file's name.
BOXES = {"cartpole": "-1:1", "tll": "-2:2"}
# How the domains of a network begin, by a part of its name.
FAMILIES = {"ACASXU": "acasxu", "mnist-net": "mnistfc", "_kw": "cifar"}
# Of the networks in `models/acasxu`, which are alike, every eighth.
EVERY = 8

Entry = dict[str, Any]


def cases() -> Iterator[Case]:
    """The small files first."""
    for file in sorted(MODELS.glob("*.onnx")):
        yield Case(file.stem, file)
    domains = SHARED / "domains"
    files = [*(SHARED / "models").glob("*.onnx")]
    files += sorted((SHARED / "models" / "acasxu").glob("*.onnx"))[::EVERY]
    for file in sorted(files, key=lambda path: path.stat().st_size):
        name = file.stem.removesuffix("_batch_2000")
        if "ACASXU" not in name:
            box = next((b for start, b in BOXES.items() if name.startswith(start)), "0:1")
            yield Case(name, file, box)
        elif file.parent.name != "acasxu":
            yield Case(name, file, ACASXU_BOX)
        family = next((f for part, f in FAMILIES.items() if part in name), None)
        for domain in sorted(domains.glob(f"{family}_*")):
            yield Case(f"{file.parent.name}/{name} {domain.stem}", file, domain.name)


def fails(entry: Entry) -> list[str]:
    """What is asked for and does not hold."""
    if "error" in entry or "refused" in entry:
        return [entry.get("error") or f"refused: {entry['refused']}"]
    found = []
    if entry["claims"]:
        found.append(f"rests on {entry['claims']} claims")
    if entry["verify_seconds"] > MOST_TIMES * entry["optimize_seconds"]:
        found.append(f"verifying took over {MOST_TIMES:g} times the time of optimizing")
    return found


def markdown(results: Entry) -> str:
    """The table, and what does not hold."""
    columns = ("decided", "open", "claims", "deviation", "optimize", "verify", "times")
    table = new_table(("case",), columns)
    wrong = []
    for name, entry in results["rows"].items():
        wrong += [f"- {name}: {why}" for why in fails(entry)]
        if "decided" in entry:
            first, second = entry["optimize_seconds"], entry["verify_seconds"]
            table.add_row(
                name,
                *(f"{entry[key]:,}" for key in ("decided", "undecided", "claims")),
                f"{entry['verified_deviation']:.3g}",
                *(f"{value:.2f}" for value in (first, second, second / first)),
            )
    text = [*section("# What optimize writes, held to verify", table)]
    text[1:1] = [
        "Written by `python -m benchmarks.accept`; not to be edited.",
        f"{where(results['machine'])} Seconds are the processor's; *open* are verdicts not reached"
        " in time, of which nothing is claimed.",
    ]
    text.append("Not as asked for:\n\n" + "\n".join(wrong) if wrong else "All is as asked for.")
    return "\n\n".join(text) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 1 where something is not as asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accept", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("cases", nargs="*", metavar="CASE", help="these alone, and anew")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of optimize for each")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(measure(case_from_json(json.loads(args.cases[0])), args.limit)))
        return 0
    path = RESULTS / "accept.json"
    rows: dict[str, Entry] = json.loads(path.read_text())["rows"] if path.exists() else {}
    for case in cases():
        wanted = case.name in args.cases if args.cases else case.name not in rows
        if not (case.present and wanted):
            continue
        arguments = ["--one", "--limit", str(args.limit), json.dumps(case.to_json())]
        try:
            entry = run_child("benchmarks.accept", arguments, 5 * patience(args.limit), threads=1)
        except ChildError as error:
            entry = {"error": str(error)}
        rows[case.name] = {"when": now(), "limit": args.limit} | entry
        print(case.name, fails(entry), flush=True)
        results = {"machine": machine(), "rows": rows}
        write_text(path, json.dumps(results, indent=1) + "\n")
        write_text(path.with_suffix(".md"), markdown(results))
    return 1 if any(fails(entry) for entry in rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
