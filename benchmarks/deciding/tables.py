"""What was measured of deciding, as tables in Markdown."""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

# No line is broken, however wide: Markdown knows no cells of several lines.
WIDTH = 1000
# What the whole command may take on a network that bounds and witnesses settle.
COMMAND_SECONDS, COMMAND_MB = 2.0, 300.0
MOST_MB = 4000.0

_LEGEND = (
    "Seconds are those of reading the file and deciding, in two processes or threads at most;"
    " *cpu* is the processor's time of the process and its threads, and *load*"
    " how many processes wanted a core when the run began: on a busy machine the seconds hold the"
    " others' share of the time."
)

Entry = dict[str, Any]


def one_line(case: str, method: str, entry: Entry) -> str:
    """How one run went."""
    if "error" in entry:
        return f"{case}, {method}: {entry['error']}"
    return (
        f"{case}, {method}: {entry['decided']} of {entry['units']} decided in"
        f" {entry['seconds']:.2f} s, {entry['peak_mb']:.0f} MB{_verdict(entry)}"
    )


def _verdict(entry: Entry) -> str:
    if entry["met"] is None:
        return ""
    return f" ({'within' if entry['met'] else 'NOT within'} {entry['asked_seconds']:g} s)"


def markdown(results: Entry) -> str:
    """All that was measured."""
    parts = [
        "# Deciding, measured",
        "Written by `python -m benchmarks.decide`; not to be edited.",
        f"{where(results['machine'])} {_LEGEND}",
        _failures(results["rows"]),
        *section("## Cases", _cases(results["rows"])),
        *section("## Seconds by stage", _stages(results["rows"])),
        *section("## Splittings that verdicts rest on", _splittings(results["rows"])),
        *section("## Against the published algorithms", _comparisons(results)),
        _medians(results["comparisons"]),
        *section("## Attacks on the verdicts", _attacks(results["attacks"])),
        _command(results["command"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def section(title: str, table: Table) -> list[str]:
    """A heading and a table in Markdown; nothing where the table is empty."""
    if not table.row_count:
        return []
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, legacy_windows=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    lines = [line.strip() for line in console.file.getvalue().splitlines()]
    return [title, "\n".join(line for line in lines if line)]


def new_table(words: Sequence[str], numbers: Sequence[str]) -> Table:
    """An empty table with columns of words, then columns of numbers."""
    table = Table(box=box.MARKDOWN)
    for name in words:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def where(machine: Entry) -> str:
    """On what machine and with what packages."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"{machine['cores']} cores ({machine['processor']}), {machine['system']}, Python"
        f" {machine['python']}, {packages}."
    )


def _runs(rows: Entry) -> Iterable[tuple[str, str, Entry]]:
    for case, methods in rows.items():
        for method, entry in methods.items():
            if "error" not in entry:
                yield case, method, entry


def _failures(rows: Entry) -> str:
    return "\n".join(
        f"- **{case}, {method}**: {entry['error']}"
        for case, methods in rows.items()
        for method, entry in methods.items()
        if "error" in entry
    )


def _cases(rows: Entry) -> Table:
    table = new_table(
        ("case", "domain", "method"),
        (
            *("units", "decided", "open", "inactive", "active"),
            *("interval", "linear", "solver", "witness"),
            *("seconds", "cpu", "load", "asked", "met", "MB"),
        ),
    )
    for case, method, entry in _runs(rows):
        evidence = entry["evidence"]
        asked = entry["asked_seconds"]
        table.add_row(
            case,
            entry["domain"],
            method,
            *(str(entry[name]) for name in ("units", "decided", "open")),
            *("/".join(str(layer[name]) for layer in entry["layers"]) for name in _STABLE),
            *(str(evidence[name]) for name in ("interval", "linear", "solver", "witness")),
            f"{entry['seconds']:.2f}",
            f"{entry['cpu_seconds']:.2f}",
            f"{entry['load']:.1f}",
            "" if asked is None else f"{asked:g}",
            {None: "", True: "yes", False: "**no**"}[entry["met"]],
            f"{entry['peak_mb']:.0f}" + (" **too much**" if entry["peak_mb"] > MOST_MB else ""),
        )
    return table


_STABLE = ("inactive", "active")


def _stages(rows: Entry) -> Table:
    names = dict.fromkeys(stage for _, _, entry in _runs(rows) for stage in entry["stage_seconds"])
    table = new_table(("case", "method"), ("read", *names))
    for case, method, entry in _runs(rows):
        spent = entry["stage_seconds"]
        table.add_row(
            case,
            method,
            f"{entry['read_seconds']:.2f}",
            *(f"{spent[name]:.2f}" if name in spent else "" for name in names),
        )
    return table


def _splittings(rows: Entry) -> Table:
    """Those of runs that were split anywhere."""
    table = new_table(
        ("case", "method"),
        (
            *("trees of the box", "parts", "of the largest"),
            *("trees of ReLUs", "nodes", "of the largest"),
        ),
    )
    for case, method, entry in _runs(rows):
        found = [entry["splittings"][kind] for kind in ("box", "relu")]
        if any(kind["trees"] for kind in found):
            numbers = [kind[name] for kind in found for name in ("trees", "nodes", "largest")]
            table.add_row(case, method, *(f"{number:,}" if number else "" for number in numbers))
    return table


def _comparisons(results: Entry) -> Table:
    table = new_table(("case", "method"), ("its open", "times auto", "disagreements"))
    for case, methods in results["comparisons"].items():
        for method, found in methods.items():
            table.add_row(
                case,
                method,
                str(found["open"]),
                ("> " if found["at_least"] else "") + f"{found['ratio']:g}",
                str(len(found["disagreements"])),
            )
    return table


def _medians(comparisons: Entry) -> str:
    """The median of the ratios of each method; a lower bound where one of them is."""
    lines = []
    for method in ("isa", "per-unit"):
        found = [methods[method] for methods in comparisons.values() if method in methods]
        if found:
            median = statistics.median(entry["ratio"] for entry in found)
            least = "at least " if any(entry["at_least"] for entry in found) else ""
            lines.append(f"Median of {len(found)} cases against {method}: {least}{median:g} times.")
    return "\n".join(lines)


def _attacks(attacks: Entry) -> Table:
    table = new_table(
        ("case",), ("units attacked", "steps", "closest by layer", "refuted", "seconds")
    )
    for case, found in attacks.items():
        if "error" in found:
            table.add_row(case, "", "", found["error"], "", "")
            continue
        table.add_row(
            case,
            str(found["units"]),
            str(found["steps"]),
            " ".join(f"{margin:.2g}" for margin in found["closest"].values()),
            str(len(found["violations"])),
            f"{found['seconds']:.0f}",
        )
    return table


def _command(command: Entry) -> str:
    if not command:
        return ""
    met = command["seconds"] < COMMAND_SECONDS and command["peak_mb"] < COMMAND_MB
    return (
        f"The whole command on {command['network']}: {command['seconds']:.2f} s (the best of"
        f" {len(command['all_seconds'])}) and {command['peak_mb']:.0f} MB, load"
        f" {command['load']:.1f}; asked for are {COMMAND_SECONDS:g} s and {COMMAND_MB:g} MB:"
        f" {'met' if met else '**not met**'}."
    )
