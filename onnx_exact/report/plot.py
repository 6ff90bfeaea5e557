"""The chains of a report as a figure of matplotlib: the units of each layer by verdict and fate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx_exact.errors import UsageError
from onnx_exact.report.report import ANALYZE, LayerReport, Report
from onnx_exact.report.words import FATES, VERDICTS, fates, verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Those of the HTML report.
COLOURS = {
    "stably_inactive": "#8a94a3",
    "stably_active": "#2f6fb7",
    "unstable": "#d9822b",
    "undecided": "#b3392f",
    "kept": "#2d7d5a",
    "removed": "#c3cad4",
    "negligible": "#e3cf9a",
    "merged": "#7f9fc9",
    "folded": "#b7a3cf",
}


def plot(report: Report) -> Figure:
    """A figure with a bar for each layer, beside it one of what became of the units.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UsageError(
            "a plot needs the package matplotlib: pip install 'onnx-exact[plot]'"
        ) from error
    layers = [
        (f"{chain.name}, {number}", layer)
        for chain in report.chains
        for number, layer in enumerate(chain.layers, start=1)
    ]
    figure = Figure(figsize=(9.0, 1.6 + 0.45 * max(len(layers), 1)), layout="constrained")
    what = [("verdicts", VERDICTS)]
    if report.command != ANALYZE:
        what.append(("what became of the units", FATES))
    for axes, (title, names) in zip(
        figure.subplots(1, len(what), squeeze=False, sharey=True)[0], what, strict=True
    ):
        _bars(axes, layers, names)
        axes.set_title(title)
        axes.set_xlabel("units")
    return figure


def _bars(axes: Any, layers: list[tuple[str, LayerReport]], names: dict[str, str]) -> None:
    """A stacked bar a layer, the first one on top."""
    counts = [(verdicts if names is VERDICTS else fates)(layer) for _, layer in layers]
    places, left = range(len(layers)), [0] * len(layers)
    for name, label in names.items():
        widths = [count.get(name, 0) for count in counts]
        axes.barh(places, widths, left=left, color=COLOURS[name], label=label)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    # A name from a file is no formula.
    labels = [name.replace("$", r"\$") for name, _ in layers]
    axes.set_yticks(list(places), labels)
    axes.invert_yaxis()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, frameon=False)
