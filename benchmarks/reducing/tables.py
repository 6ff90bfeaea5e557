"""What was measured of reducing, as tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Entry = dict[str, Any]

KINDS = ("original", "published", "all", "split")
# Of the deviation of the original network from its own float64 evaluation.
MOST_DEVIATION = 3.0


def one_line(name: str, entry: Entry) -> str:
    """How one case went."""
    if "skipped" in entry:
        return f"{name}: {entry['skipped']}"
    kinds = entry["kinds"]
    before = kinds["original"]["connections"]
    published, left, split = (kinds[kind]["connections"] / before for kind in KINDS[1:])
    return (
        f"{name}: {'-'.join(map(str, kinds['all']['widths']))}, connections {left:.1%}"
        f" (published {published:.1%}, split {split:.1%}), {_speedup(kinds, 'all', '1')} times the"
        f" speed at batch 1, {_speedup(kinds, 'all', '256')} at batch 256, deviation"
        f" {_ratio(kinds, 'all')} times the original's"
    )


def markdown(results: Entry) -> str:
    """All that was measured."""
    machine = results["machine"]
    rows = {name: entry for name, entry in results["rows"].items() if "kinds" in entry}
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    parts = [
        "# Reducing, measured",
        "Written by `python -m benchmarks.reduce`; not to be edited.",
        f"{machine['cores']} cores ({machine['processor']}), {machine['system']}, Python"
        f" {machine['python']}, {packages}. The same verdicts for all; latency in onnxruntime on"
        " one thread, in microseconds, the least of many runs; deviation from the float64"
        " evaluation of the original network at 10,000 points of the domain, corners and"
        " witnesses among them.",
        "## Connections",
        _table(
            [
                *("network", "domain", "widths", "published", "all", "split", "connections"),
                *("published", "all", "split"),
            ],
            (_connections(name, entry) for name, entry in rows.items()),
        ),
        "\n".join(f"- {line}" for line in _held(rows)),
        "## Size, latency, deviation",
        _table(
            ["network", "domain", "reductions", "bytes", "batch 1", "batch 256", "deviation"],
            (row for name, entry in rows.items() for row in _figures(name, entry)),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _held(rows: dict[str, Entry]) -> Iterable[str]:
    """What is to hold of every network, and where it does not."""
    kinds = {name: entry["kinds"] for name, entry in rows.items()}
    more = [n for n, k in kinds.items() if k["all"]["connections"] > k["published"]["connections"]]
    yield f"More connections than the published reductions leave: {', '.join(more) or 'none'}."
    wide = [name for name, k in kinds.items() if not k["all"]["within_need"]]
    yield (
        "A layer wider than its unstable units and min(stably active, inputs, units of the next"
        f" layer): {', '.join(wide) or 'none'}."
    )
    off = [
        f"{name} ({kind})"
        for name, k in kinds.items()
        for kind in KINDS[1:]
        if k[kind]["deviation"] > MOST_DEVIATION * k["original"]["deviation"]
    ]
    yield (
        f"A deviation above {MOST_DEVIATION:g} times that of the original:"
        f" {', '.join(off) or 'none'}."
    )


def _connections(name: str, entry: Entry) -> list[str]:
    kinds = entry["kinds"]
    before = kinds["original"]["connections"]
    widths = ["-".join(map(str, kinds[kind]["widths"])) for kind in KINDS]
    shares = [f"{kinds[kind]['connections'] / before:.1%}" for kind in KINDS[1:]]
    return [name, entry["domain"], *widths, f"{before:,}", *shares]


def _figures(name: str, entry: Entry) -> Iterable[list[str]]:
    kinds = entry["kinds"]
    for kind in KINDS:
        found = kinds[kind]
        times = [_time(kinds, kind, batch) for batch in ("1", "256")]
        deviation = f"{found['deviation']:.2g} ({_ratio(kinds, kind)}x)"
        yield [name, entry["domain"], kind, f"{found['bytes']:,}", *times, deviation]


def _time(kinds: Entry, kind: str, batch: str) -> str:
    found = kinds[kind]["latency_us"][batch]
    return "" if found is None else f"{found:.1f} ({_speedup(kinds, kind, batch)}x)"


def _speedup(kinds: Entry, kind: str, batch: str) -> str:
    before, after = (kinds[k]["latency_us"][batch] for k in ("original", kind))
    return "-" if after is None else f"{before / after:.2f}"


def _ratio(kinds: Entry, kind: str) -> str:
    own = kinds["original"]["deviation"]
    return f"{kinds[kind]['deviation'] / own:.2f}" if own else "-"


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)
