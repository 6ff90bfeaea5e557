"""What a comparison found, as tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from benchmarks.comparing.contestants import CONTESTANTS, OURS
from benchmarks.comparing.summary import (
    Race,
    Runs,
    Typical,
    by_name,
    measured,
    median,
    race,
    typical,
)
from benchmarks.deciding.tables import new_table, section, where

Entry = dict[str, Any]

# They leave unstable units open by their nature: the time is not that of deciding every unit.
INCOMPLETE = ("bounds", "lirpa")
# So many open units are named one by one.
MOST_NAMED = 12


def one_line(case: str, contestant: str, entry: Entry) -> str:
    """How one run went."""
    if "skipped" in entry:
        return f"{case}, {contestant}: skipped, {entry['skipped']}"
    if "error" in entry:
        return f"{case}, {contestant}: {entry['error']}"
    return (
        f"{case}, {contestant}: {entry['decided']} of {entry['units']} decided in"
        f" {entry['cpu_seconds']:.2f} s of the processor ({entry['seconds']:.2f} s),"
        f" {entry['peak_mb']:.0f} MB"
    )


def markdown(results: Entry) -> str:
    """All that was found."""
    parts = [
        "# Deciding, compared",
        "Written by `python -m benchmarks.compare`; not to be edited.",
        f"{where(results['machine'])} {conditions(results)}",
        *tables(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def conditions(results: Entry) -> str:
    """How it was measured, in words."""
    limits = [float(entry["limit"]) for *_, entry in by_name(results["runs"], measured)]
    least, most = min(limits, default=results["limit"]), max(limits, default=results["limit"])
    # Entries without splittings are of the time when what onnx sets up still counted.
    older = {name for _, name, e in by_name(results["runs"], measured) if "splittings" not in e}
    set_up = f"; in some runs of {', '.join(sorted(older))} the latter does" if older else ""
    seconds = f"{most:g}" if least == most else f"{least:g} to {most:g}"
    return (
        f"One run at a time, each in a process and on a thread of its own, in an order shuffled"
        f" with seed {results['seed']}, at most {seconds} s each by the clock; seconds"
        " are the processor's, medians with the spread of repeated runs. Reading the file and"
        " sampling count; loading data, compiling models, importing libraries and what these set up"
        f" when first used do not{set_up}."
    )


def tables(results: Entry) -> list[str]:
    """The sections of the comparison, without a heading above them."""
    runs: Runs = results["runs"]
    return [
        legend(),
        *section("## Ratios of times", _ratios(runs)),
        _unfinished_ours(runs),
        *section("## Seconds", _seconds(runs)),
        *section("## Verdicts", _verdicts(results)),
        _open_units(runs),
        disagreement_words(results),
        *section("## Skipped and failed", _left_out(runs)),
    ]


def legend() -> str:
    """Who is who."""
    return "\n".join(f"- `{c.name}`: {c.words}" for c in CONTESTANTS.values())


def disagreement_words(results: Entry) -> str:
    """Whether all verdicts agree, and where not."""
    found = results["disagreements"]
    if not found:
        count = sum(1 for _ in by_name(results["runs"], lambda entry: "units" in entry))
        return f"Verdicts of all {count} runs compared unit by unit: **no disagreement**."
    lines = (
        f"- **{wrong['case']}, layer {wrong['layer'] + 1}, unit {wrong['unit']}**: "
        + ", ".join(f"{name} says {verdict}" for name, verdict in wrong["verdicts"].items())
        for wrong in found
    )
    return "Verdicts that disagree:\n\n" + "\n".join(lines)


def _ratios(runs: Runs) -> Table:
    table = new_table(
        ("against",),
        ("networks", "finished by it", "median ratio", "least", "greatest", "of the program alone"),
    )
    for name in CONTESTANTS:
        found = race(runs, name)
        if name == OURS or name in INCOMPLETE or not found.ratios:
            continue
        middle = median(found.ratios)
        values = sorted(found.ratios, key=lambda ratio: ratio.value)
        table.add_row(
            name,
            str(len(found.ratios)),
            str(found.finished),
            str(middle),
            *(f"{'≥ ' if r.at_least else ''}{r.value:.3g}" for r in (values[0], values[-1])),
            program_words(found),
        )
    return table


def program_words(found: Race) -> str:
    """The median where the other's program was run at all, its sampling left out."""
    return f"{median(found.programs)} ({len(found.programs)} networks)" if found.programs else ""


def _unfinished_ours(runs: Runs) -> str:
    names = [
        name
        for name, methods in runs.items()
        if (ours := typical(methods.get(OURS, ()))) is not None and ours.open
    ]
    if not names:
        return ""
    return f"Without the networks that `{OURS}` left units open in: {', '.join(names)}."


def _seconds(runs: Runs) -> Table:
    table = new_table(("network",), ("units", *CONTESTANTS))
    for case in sorted(runs):
        found = {name: typical(runs[case].get(name, ())) for name in CONTESTANTS}
        units = next((str(t.units) for t in found.values() if t is not None), "")
        table.add_row(case, units, *(cell(found[name], name) for name in CONTESTANTS))
    return table


def cell(found: Typical | None, name: str) -> str:
    """The time of a contestant on a case, with its spread and what it left open."""
    if found is None:
        return ""
    text = f"{found.seconds:.3g}"
    if found.most > found.least:
        text += f" ({found.least:.2g}-{found.most:.2g})"
    if found.open:
        text = f"{'' if name in INCOMPLETE else '> '}{text}, {found.open} open"
    return text


def _verdicts(results: Entry) -> Table:
    table = new_table(
        ("network",),
        ("l1", "accuracy", "units", "inactive", "active", "unstable", "open", "MB"),
    )
    for case in sorted(results["runs"]):
        entries = [e for e in results["runs"][case].get(OURS, ()) if "units" in e]
        if not entries:
            continue
        last, network = entries[-1], results["networks"][case]
        kinds = ("inactive", "active", "unstable")
        table.add_row(
            case,
            *_training_words(network),
            str(last["units"]),
            *("/".join(str(layer[kind]) for layer in last["layers"]) for kind in kinds),
            str(max(entry["open"] for entry in entries)),
            f"{max(entry['peak_mb'] for entry in entries):.0f}",
        )
    return table


def _training_words(network: Entry) -> tuple[str, str]:
    """Penalty and accuracy; nothing where a network's training is not on record."""
    if "data" not in network:
        return "", ""
    return f"{network['l1']:g}", f"{network['accuracy']:.2%}"


def _open_units(runs: Runs) -> str:
    lines = []
    for case in sorted(runs):
        entries = [e for e in runs[case].get(OURS, ()) if e.get("open_units")]
        if entries:
            units = max((entry["open_units"] for entry in entries), key=len)
            lines.append(f"- {case}: {_named(units)}")
    return "Units left open, layer/unit:\n\n" + "\n".join(lines) if lines else ""


def _named(units: Sequence[Sequence[int]]) -> str:
    names = ", ".join(f"{layer + 1}/{unit}" for layer, unit in units[:MOST_NAMED])
    more = len(units) - MOST_NAMED
    return names + (f" and {more} more" if more > 0 else "")


def _left_out(runs: Runs) -> Table:
    """One row for each contestant and reason, so that the reasons are read."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for case, name, entry in by_name(runs, lambda entry: "units" not in entry):
        reason = entry.get("skipped") or f"failed: {entry['error']}"
        cases = reasons.setdefault((name, reason), [])
        if case not in cases:
            cases.append(case)
    table = new_table(("contestant", "why"), ("networks",))
    for (name, reason), cases in sorted(reasons.items()):
        table.add_row(name, reason, str(len(cases)))
    return table
