"""Holds the tool to exact enumeration on small random networks: `python -m benchmarks.oracle`.

Every network is a whole ONNX file of one of `tests.oracle.families`, in float16, float32 or
float64; what it computes is known exactly, in rational arithmetic (`tests.oracle.pieces`). It is
optimized in six ways, in which all methods, goals and choices of reductions occur, and every
verdict, every bound and every statement on the deviation is held to the truth.

The record is one JSON object a line, for a hundred networks each, so that a run can be ended at any
time and goes on where it was. Lines of other sources than those at hand are done again. The exit
code is 1 where anything is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.deciding.cases import ROOT
from benchmarks.running.processes import RESULTS, write_text
from tests.oracle.families import FAMILIES, network
from tests.oracle.judge import Judgement, Known, judge, ways_for

COUNT = 10_000
BLOCK = 100
# What a result depends on, besides the packages that are installed.
SOURCES = ("onnx_exact", "tests/oracle")
# Of these, what neither decides, reduces, writes nor bounds anything.
UNCONCERNED = ("cli", "falsify", "flags", "report", "streams", "verified", "verifier")
# Facts that are counted over all runs.
COUNTED = ("units", "undecided", "changed", "removal_only", "certified")

Block = dict[str, Any]


def block_of(first: int, count: int) -> Block:
    """What came of `count` networks from number `first` on."""
    started = time.process_time()
    networks, runs, totals = Counter[str](), Counter[str](), Counter[str]()
    wrong, refused = [], []
    names = list(FAMILIES)
    for index in range(first, first + count):
        family = names[index % len(names)]
        known = Known.of(network(family, index))
        networks[family] += 1
        for way in ways_for(index):
            found = judge(known, way)
            runs[str(way)] += 1
            totals.update({name: int(getattr(found, name)) for name in COUNTED})
            wrong += _lines(known, str(way), found)
            if found.refused:
                refused.append(f"{known.network.name}, {way}: {found.refused}")
    return {
        "first": first,
        "count": count,
        "sources": sources(),
        "networks": dict(networks),
        "runs": dict(runs),
        **{name: totals[name] for name in COUNTED},
        "wrong": wrong,
        "refused": refused,
        "processor_seconds": round(time.process_time() - started, 1),
    }


def _lines(known: Known, way: str, found: Judgement) -> list[str]:
    """What is wrong with one run, in one line or none."""
    if not found.wrong:
        return []
    more = f" (and {len(found.wrong) - 1} more)" if len(found.wrong) > 1 else ""
    return [f"{known.network.name}, {way}: {found.wrong[0]}{more}"]


def sources() -> str:
    """A hash of the code that a result depends on."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.relative_to(ROOT / folder).parts[0].startswith(UNCONCERNED):
                continue
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def recorded(path: Path) -> dict[int, Block]:
    """The blocks of a record that are of the sources at hand, by their first network."""
    if not path.exists():
        return {}
    blocks = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    now = sources()
    return {block["first"]: block for block in blocks if block["sources"] == now}


def run(path: Path, count: int, jobs: int) -> dict[int, Block]:
    """Does what is missing in a record of `count` networks, and writes it block by block."""
    blocks = recorded(path)
    sizes = {first: min(BLOCK, count - first) for first in range(0, count, BLOCK)}
    todo = [
        (first, size)
        for first, size in sizes.items()
        if first not in blocks or blocks[first]["count"] < size
    ]
    for block in _done(todo, jobs):
        blocks[block["first"]] = block
        lines = [json.dumps(blocks[first]) for first in sorted(blocks)]
        write_text(path, "\n".join(lines) + "\n")
        progress(block)
    return blocks


def _done(todo: Sequence[tuple[int, int]], jobs: int) -> Iterator[Block]:
    """The blocks as they get ready, in one process or in several."""
    if jobs == 1:
        yield from (block_of(first, size) for first, size in todo)
        return
    with ProcessPoolExecutor(jobs) as pool:
        for future in as_completed([pool.submit(block_of, first, size) for first, size in todo]):
            yield future.result()


def progress(block: Block) -> None:
    """One line, and one more for each thing that is wrong."""
    last = block["first"] + block["count"] - 1
    print(
        f"networks {block['first']} to {last}: {len(block['wrong'])} wrong, "
        f"{len(block['refused'])} refused, {block['processor_seconds']} s",
        file=sys.stderr,
    )
    for line in block["wrong"]:
        print(f"  wrong: {line}", file=sys.stderr)


def page(blocks: Mapping[int, Block]) -> str:
    """The record in a page of Markdown."""
    networks, runs, totals = Counter[str](), Counter[str](), Counter[str]()
    for block in blocks.values():
        networks.update(block["networks"])
        runs.update(block["runs"])
        totals.update({name: block[name] for name in COUNTED})
    wrong = [line for block in blocks.values() for line in block["wrong"]]
    refused = sum(len(block["refused"]) for block in blocks.values())
    seconds = sum(block["processor_seconds"] for block in blocks.values())
    parts = [
        "# Small random networks against exact enumeration",
        "Generated by `python -m benchmarks.oracle`. Verdicts and bounds are held to the linear "
        "regions in rational arithmetic; the largest difference of old and new model over the "
        "whole domain to the certified deviation, to 0 where only units were removed or nothing "
        "was to be rounded, and to the original's own rounding where nothing is certified. "
        "In `exact` runs no rewrite may round anything.",
        f"**{networks.total():,} networks, {runs.total():,} runs: {len(wrong):,} wrong.** "
        f"{refused:,} ended in an error of the tool's own. Of {totals['units']:,} units "
        f"{totals['undecided']:,} were left undecided. {totals['changed']:,} runs changed the "
        f"model, {totals['removal_only']:,} of them without rounding anything; "
        f"{totals['certified']:,} had a certified deviation. {seconds / 60:.0f} minutes of "
        "processor time.",
        _table("network", "networks", networks),
        _table("method, goal, reductions", "runs", runs),
    ]
    if wrong:
        parts.append("\n".join(f"- {line}" for line in wrong))
    return "\n\n".join(parts) + "\n"


def _table(name: str, value: str, counts: Mapping[str, int]) -> str:
    rows = [f"| {key} | {counts[key]:,} |" for key in sorted(counts)]
    return "\n".join([f"| {name} | {value} |", "| --- | ---: |", *rows])


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.oracle", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--count", type=int, default=COUNT, help="networks (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--record", type=Path, default=RESULTS / "oracle.jsonl", metavar="FILE")
    args = parser.parse_args(argv)
    blocks = run(args.record, args.count, args.jobs)
    write_text(args.record.with_suffix(".md"), page(blocks))
    wrong = sum(len(block["wrong"]) for block in blocks.values())
    print(f"{sum(block['count'] for block in blocks.values())} networks, {wrong} runs wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
