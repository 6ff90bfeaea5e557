"""The plots of the results, as small SVG files that are the same for the same figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.comparing.contestants import OURS
from benchmarks.comparing.summary import Runs, typical
from benchmarks.fuzzing.findings import Grown, Rows, accuracy, removed

SHOWN = (OURS, "isa", "per-unit")
COLOURS = {OURS: "tab:blue", "isa": "tab:orange", "per-unit": "tab:green"}


def _pyplot() -> Any:
    """Matplotlib without a display, and with nothing in a file that differs between two runs."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update(
        {"svg.hashsalt": "onnx-exact", "svg.fonttype": "none", "font.size": 8.0}
    )
    import matplotlib.pyplot as plt

    return plt


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    _pyplot().close(figure)


def plot_times(runs: Runs, path: Path) -> None:
    """The time of the three algorithms on every network; hollow where units were left open."""
    plt = _pyplot()
    found = {
        case: {name: typical(methods.get(name, ())) for name in SHOWN}
        for case, methods in runs.items()
    }
    ours = {case: of[OURS] for case, of in found.items()}
    order = sorted(
        (case for case, best in ours.items() if best is not None),
        key=lambda case: best.seconds if (best := ours[case]) is not None else 0.0,
    )
    figure, axes = plt.subplots(figsize=(7.5, 0.17 * len(order) + 1.2))
    for name in SHOWN:
        for hollow in (False, True):
            points = [
                (t.seconds, row)
                for row, case in enumerate(order)
                if (t := found[case][name]) is not None and bool(t.open) == hollow
            ]
            axes.scatter(
                [x for x, _ in points],
                [y for _, y in points],
                s=16,
                edgecolors=COLOURS[name],
                facecolors="none" if hollow else COLOURS[name],
                label=f"{name}{', not finished' if hollow else ''}" if points else None,
            )
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_yticks(range(len(order)), order)
    axes.set_xlabel("seconds of the processor")
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def plot_compression(rows: Rows, path: Path) -> None:
    """Accuracy against the share of connections removed, by data set."""
    plt = _pyplot()
    names = ("mnist", "cifar10")
    figure, panels = plt.subplots(1, len(names), figsize=(7.5, 3.2))
    for axes, data in zip(panels, names, strict=True):
        own = [entry for entry in rows.values() if entry["data"] == data and "kinds" in entry]
        for kind, colour in (("published", "tab:orange"), ("all", "tab:blue")):
            points = [(removed(entry, kind), accuracy(entry, kind)) for entry in own]
            xs, ys = [100 * x for x, _ in points], [100 * y for _, y in points]
            axes.scatter(xs, ys, s=14, color=colour, alpha=0.7, label=kind)
        plain = [accuracy(entry) for entry in own if entry["l1"] == 0.0]
        if plain:
            label = "best without l1"
            axes.axhline(100 * max(plain), color="grey", linewidth=0.8, label=label)
        axes.set_title(data)
        axes.set_xlabel("connections removed, %")
        axes.set_ylabel("test accuracy, %")
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, path)


def plot_scaling(series: dict[str, Sequence[Grown]], path: Path) -> None:
    """Time and memory against each quantity; hollow where units were left open."""
    plt = _pyplot()
    figure, panels = plt.subplots(2, len(series), figsize=(9.0, 4.4), squeeze=False)
    for column, (name, points) in enumerate(series.items()):
        measures = (
            ("seconds of the processor", [point.seconds for point in points]),
            ("MB beyond the start", [point.memory for point in points]),
        )
        for row, (words, values) in enumerate(measures):
            axes = panels[row][column]
            axes.plot([point.value for point in points], values, color="tab:blue", linewidth=0.8)
            for point, value in zip(points, values, strict=True):
                face = "white" if point.open else "tab:blue"
                axes.scatter([point.value], [value], s=16, facecolors=face, edgecolors="tab:blue")
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.minorticks_off()
            axes.grid(alpha=0.3)
            if row:
                axes.set_xlabel(name)
            if not column:
                axes.set_ylabel(words)
    _save(figure, path)
