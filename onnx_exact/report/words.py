"""The words of a report for verdicts, what became of units, sizes, and how bounds are printed."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context

from onnx_exact.report.report import LayerReport, Report

# The field of `LayerReport`, and the words for it.
VERDICTS = {
    "stably_inactive": "stably inactive",
    "stably_active": "stably active",
    "unstable": "unstable",
    "undecided": "undecided",
}
FATES = {
    "kept": "kept",
    "removed": "removed",
    "negligible": "negligible",
    "merged": "merged",
    "folded": "folded",
}


def verdicts(layer: LayerReport) -> dict[str, int]:
    """Units by verdict; empty without a ReLU."""
    return {name: getattr(layer, name) for name in VERDICTS} if layer.relu else {}


def fates(layer: LayerReport) -> dict[str, int]:
    """Units by what became of them."""
    gone = {name: getattr(layer, name) for name in FATES if name != "kept"}
    return {"kept": max(layer.units - sum(gone.values()), 0), **gone}


def at_most(value: float, digits: int = 3) -> str:
    """An upper bound in few digits, which is one as it is printed."""
    return _rounded(value, digits, ROUND_CEILING)


def at_least(value: float, digits: int = 3) -> str:
    """A lower bound in few digits, which is one as it is printed."""
    return _rounded(value, digits, ROUND_FLOOR)


def _rounded(value: float, digits: int, rounding: str) -> str:
    if not math.isfinite(value):
        return f"{value:g}"
    exact = Context(prec=digits, rounding=rounding).create_decimal(float(value))
    return f"{float(exact):.{digits}g}"


def sizes(report: Report) -> list[tuple[str, int, int | None]]:
    """What the model has of what counts, before and after; None where nothing was changed."""
    totals = report.totals
    found: list[tuple[str, int, int | None]] = []
    if report.parameters is not None:
        found.append(("parameters of the graph, by channels", *report.parameters))
    if report.chains:
        found += [
            ("ReLU units", totals.units_before, totals.units_after),
            ("connections", totals.connections_before, totals.connections_after),
            ("parameters", totals.parameters_before, totals.parameters_after),
        ]
    return [*found, ("file size in bytes", totals.bytes_before, totals.bytes_after)]
