"""The words of a report for verdicts and for what became of units, and how bounds are printed."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context

from onnx_exact.report.report import LayerReport

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
