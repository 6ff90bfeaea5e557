"""The sections of RESULTS.md that are not those of the comparison."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from benchmarks.comparing.contestants import OURS
from benchmarks.comparing.summary import Runs, median, race, typical
from benchmarks.deciding.tables import new_table, section
from benchmarks.fuzzing.findings import (
    DATA,
    ORIGINAL,
    Grown,
    Rows,
    accuracy,
    architectures,
    baseline,
    best_no_loss,
    no_loss,
    removed,
    slopes,
)

Entry = dict[str, Any]

REDUCED = ("published", "all", "split")
# Connections removed from MNIST networks trained with l1, with their accuracy (Serra et al. 2020).
PAPER_MNIST = "22% (width 25, 95.76%), 29.4% (50, 96.05%), 30.8% (100, 97.14%)"


def headline(compare: Entry, rows: Rows) -> list[str]:
    """The papers' figures beside ours."""
    runs: Runs = compare["runs"]
    table = new_table(("figure", "published", "here"), ())
    table.add_row(
        "one program (2021) against one for each unit and sign (2020): median ratio of times",
        "183 (CIFAR-10, Gurobi)",
        _against_per_unit(runs),
    )
    for name, words in (
        ("per-unit", "this tool against one program for each unit and sign (2020)"),
        ("isa", "this tool against one program (2021), its sampling included"),
    ):
        table.add_row(f"{words}: median ratio of times", "", _race_words(runs, name))
    table.add_row(
        "the same without its sampling, where a program was needed", "", _program_words(runs)
    )
    table.add_row(
        "this tool against one program with points in place of the training set: median ratio",
        "",
        _race_words(runs, "isa+corners"),
    )
    table.add_row(
        "connections removed at no loss of accuracy, CIFAR-10",
        "up to 56%",
        _no_loss_words(rows, "cifar10"),
    )
    table.add_row(
        "connections removed at no loss of accuracy, MNIST",
        f"with l1, not always at no loss: {PAPER_MNIST}; nothing without l1",
        _no_loss_words(rows, "mnist"),
    )
    table.add_row(
        "CIFAR-10 2x400 trained with l1",
        "the authors' network: 3072-116-248-10, 72% removed, in 114 to 119 s (Gurobi)",
        _one_network(runs, rows, "cifar10_2x400_l1-0.000175_s0"),
    )
    return [
        *section("## In short", table),
        "The published figures come from other hardware and another solver (Gurobi), and from"
        " networks that were trained anew here: they say what to expect, not who is faster. Only"
        " ratios between columns of one table below were measured under the same conditions."
        " `≥` marks a lower bound: where the other did not finish within the limit, its time up to"
        " then is taken. The one program for each unit and sign is quicker here than the papers'"
        " ratio suggests: a solve ends as soon as a forward pass shows the sign or the bound"
        " excludes it, and what a point shows counts for every unit.",
    ]


def networks_words(compare: Entry) -> str:
    """How many networks there are of each kind, and on how many every unit is decided."""
    measured = {
        name: ours
        for name, methods in compare["runs"].items()
        if (ours := typical(methods.get(OURS, ()))) is not None
    }
    found = {name: ours for name, ours in measured.items() if "data" in compare["networks"][name]}
    others = [ours for name, ours in measured.items() if name not in found]
    kinds = []
    for data in sorted({compare["networks"][name]["data"] for name in found}):
        own = [name for name in found if compare["networks"][name]["data"] == data]
        with_l1 = sum(compare["networks"][name]["l1"] > 0.0 for name in own)
        kinds.append(f"{len(own)} on {DATA.get(data, data)} ({with_l1} with l1)")
    decided = sum(not ours.open for ours in found.values())
    words = []
    if found:
        words.append(
            f"{len(found)} networks, trained on real data by the papers' recipe:"
            f" {', '.join(kinds)}. `{OURS}` decides every unit of {decided} of them."
        )
    if others:
        decided = sum(not ours.open for ours in others)
        words.append(f"{len(others)} networks of others, {decided} of them wholly decided.")
    return " ".join(words)


def _against_per_unit(runs: Runs) -> str:
    """What the papers' own ratio is here, where both finished."""
    ratios = []
    for methods in runs.values():
        isa, per_unit = (typical(methods.get(name, ())) for name in ("isa", "per-unit"))
        if isa is not None and per_unit is not None and not isa.open and not per_unit.open:
            ratios.append(per_unit.seconds / isa.seconds)
    if not ratios:
        return "no network that both finished"
    return f"{statistics.median(ratios):.3g} ({len(ratios)} networks that both finished, SCIP)"


def _race_words(runs: Runs, name: str) -> str:
    found = race(runs, name)
    return (
        f"**{median(found.ratios)}** ({len(found.ratios)} networks,"
        f" {len(found.ratios) - found.finished} of which it did not finish)"
    )


def _program_words(runs: Runs) -> str:
    found = race(runs, "isa").programs
    unfinished = sum(ratio.at_least for ratio in found)
    return f"{median(found)} ({len(found)} networks, {unfinished} of which it did not finish)"


def _no_loss_words(rows: Rows, data: str) -> str:
    own = best_no_loss(rows, data, "all")
    anywhere, rival = no_loss(rows, data, "all"), baseline(rows, data)
    parts = []
    if own is not None:
        parts.append(f"**{own.removed:.1%}** against the best without l1 of the same architecture")
    if anywhere is not None:
        parts.append(f"**{anywhere.removed:.1%}** against the best of all without l1")
    elif rival is not None:
        parts.append(f"none with l1 reaches the best of all without ({accuracy(rows[rival]):.2%})")
    return "; ".join(parts)


def _one_network(runs: Runs, rows: Rows, name: str) -> str:
    ours = typical(runs.get(name, {}).get(OURS, ()))
    if ours is None or name not in rows:
        return ""
    widths = "-".join(map(str, rows[name]["kinds"]["all"]["widths"]))
    words = f"{removed(rows[name], 'all'):.0%} removed, decided in {ours.seconds:.2f} s"
    return f"one of our own: {widths}, {words} of one processor"


def no_loss_section(rows: Rows) -> list[str]:
    """The largest shares of connections removed at no loss."""
    table = new_table(
        ("data", "architecture", "best without l1"),
        ("its accuracy", *(f"removed, {kind}" for kind in REDUCED), "accuracy then"),
    )
    for data, name in DATA.items():
        for architecture in (*architectures(rows, data), None):
            rival = baseline(rows, data, architecture)
            if rival is None:
                continue
            found = [no_loss(rows, data, kind, architecture) for kind in REDUCED]
            ours = found[REDUCED.index("all")]
            table.add_row(
                *(name, architecture or "all", rival, f"{accuracy(rows[rival]):.2%}"),
                *("none" if one is None else f"{one.removed:.1%}" for one in found),
                "" if ours is None else f"{ours.accuracy:.2%} ({ours.network})",
            )
    return [
        *section("### At no loss of accuracy", table),
        "The largest share of connections removed from a network trained with l1 that, reduced, is"
        " at least as accurate on the test set as the best one trained without: of the same"
        " architecture, or of all that were trained. The share is that of its own connections"
        " before reducing. With 10,000 test images, one standard error is 0.5 points on CIFAR-10"
        " and 0.15 on MNIST, and there are few seeds.",
    ]


def compression_section(results: Entry) -> list[str]:
    """What is removed, and what that gains."""
    rows: Rows = {n: e for n, e in results["rows"].items() if "kinds" in e}
    return [
        "## Compression",
        "The same verdicts for all. `published` are the reductions of the papers, `all` is the"
        " default of this tool, `split` lets what stably active units compute go around the ReLU"
        " (`--form split`); onnxslim and onnxsim work alone on the original. Latency is that of"
        " onnxruntime on one thread, in microseconds, the least of many turns taken one after"
        " another.",
        *section("### Connections and accuracy", _connections(rows)),
        *section("### File size and latency", _latencies(rows)),
        _others(rows),
    ]


def _connections(rows: Rows) -> Table:
    table = new_table(
        ("network", "widths", "after"),
        ("accuracy", "after", "answers changed", *(f"removed, {kind}" for kind in REDUCED)),
    )
    for name, entry in sorted(rows.items()):
        kinds = entry["kinds"]
        table.add_row(
            name,
            *("-".join(map(str, kinds[kind]["widths"])) for kind in (ORIGINAL, "all")),
            *(f"{kinds[kind]['accuracy']:.2%}" for kind in (ORIGINAL, "all")),
            str(kinds["all"]["answers_changed"]),
            *(f"{removed(entry, kind):.1%}" for kind in REDUCED),
        )
    return table


def _latencies(rows: Rows) -> Table:
    kinds = (ORIGINAL, *REDUCED, "onnxslim", "onnxsim")
    table = new_table(
        ("network",), (*("kB", "kB, all"), *(f"{k}, {b}" for b in ("1", "256") for k in kinds))
    )
    for name, entry in sorted(rows.items()):
        found = entry["kinds"]
        table.add_row(
            name,
            *(f"{found[kind]['bytes'] / 1e3:.0f}" for kind in (ORIGINAL, "all")),
            *(
                _number(found.get(kind, {}).get("latency_us", {}).get(batch))
                for batch in ("1", "256")
                for kind in kinds
            ),
        )
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _others(rows: Rows) -> str:
    """What the other tools removed, and why one is missing."""
    lines = []
    for tool in ("onnxslim", "onnxsim"):
        shares = [removed(entry, tool) for entry in rows.values() if tool in entry["kinds"]]
        if shares:
            most = max(shares)
            what = f"at most {most:.1%} of the connections" if most else "no connection"
            lines.append(f"{tool} alone removed {what} of {len(shares)} networks.")
        missing = {e["missing"][tool] for e in rows.values() if tool in e["missing"]}
        lines += [f"{tool} is missing: {reason}." for reason in sorted(missing)]
    return " ".join(lines)


def scaling_section(series: dict[str, Sequence[Grown]], words: dict[str, str]) -> list[str]:
    """How time and memory grow."""
    fits = new_table(("quantity", "the rest"), ("time grows like", "memory grows like", "over"))
    points = new_table(
        ("quantity",), ("value", "units", "open", "seconds", "MB beyond the start", "most time")
    )
    for name, found in series.items():
        done = [point for point in found if not point.open]
        powers = slopes(found)
        if powers is not None:
            cells = [f"{name}^{power:.2f}" for power in powers]
            fits.add_row(name, words[name], *cells, f"{len(done)} of {len(found)} points")
        for p in found:
            points.add_row(
                name,
                f"{p.value:g}",
                *(str(p.units), str(p.open), f"{p.seconds:.3g}", f"{p.memory:.0f}"),
                f"{p.stage} ({p.share:.0%})",
            )
    return [
        *section("## Scaling", fits),
        "Slopes of straight lines through the logarithms of the points where every unit was"
        " decided. Random networks with Kaiming-normal weights, and biases that put a third of the"
        " units of each layer far above zero, a third far below and the others anywhere between;"
        " seconds are the processor's.",
        *section("### Points", points),
    ]
