"""The words of a picture for verdicts and for what became of units, and the units of each."""

from __future__ import annotations

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
