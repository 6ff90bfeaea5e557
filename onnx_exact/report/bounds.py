"""Bounds on every unit for whoever embeds or verifies a network: a file `.npz` or `.json`.

    original/TENSOR/lower, upper    bounds on the entries of TENSOR, unit by unit
    original/TENSOR/status          inactive, active, unstable or undecided, where a ReLU reads it
    original/TENSOR/evidence        what that rests on
    new/TENSOR/...                  the same for the network that was made of it
    about                           what they are about and cover, as JSON

In JSON these are nested objects, and an infinite bound is null. TENSOR holds the pre-activations of
a layer with ReLU, or the outputs of a chain; units are its feature entries in row-major order, the
same for every row of a batch.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact._version import __version__
from onnx_exact.errors import UsageError
from onnx_exact.report.json import strict
from onnx_exact.report.report import LayerReport, Report
from onnx_exact.runtime.outputs import Outputs, reported

FORMAT, FORMAT_VERSION = "onnx-exact bounds", 1
COVERS = (
    "each entry of the named tensors in real arithmetic, with the weights as stored in the file,"
    " for every input in the domain; the ends are rounded outward. What a runtime rounds when it"
    " runs the network is not covered."
)
ON_SOLVER = " Some verdicts rest on what a solver says (--trust-solver), and with them all of this."


def check_bounds_path(path: Path) -> None:
    """Raises unless bounds can be written in the format that the name asks for.

    Raises:
        UsageError: as said.
    """
    if path.suffix.lower() not in (".npz", ".json"):
        raise UsageError(f"--bounds {path}: neither .npz nor .json")


def write_bounds(path: Path, original: Report, new: Report | None, outputs: Outputs) -> None:
    """Writes the bounds that two reports hold.

    Args:
        path: `.npz` or `.json`.
        original: of the network as it was.
        new: an analysis of what was made of it; None where it was only analyzed.
        outputs: what the file appears with.

    Raises:
        UsageError: another suffix.
        OutputError: it cannot be written.
    """
    check_bounds_path(path)
    networks = {"original": original} if new is None else {"original": original, "new": new}
    about = _about(networks)
    tensors = {name: _tensors(report) for name, report in networks.items()}
    if path.suffix.lower() == ".json":
        data = strict({**about, **tensors})
        content = (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()
    else:
        arrays = {
            f"{network}/{tensor}/{name}": np.array(values)
            for network, found in tensors.items()
            for tensor, entries in found.items()
            for name, values in entries.items()
        }
        text = json.dumps(strict(about), allow_nan=False)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, about=np.array(text), **arrays)
        content = buffer.getvalue()
    with reported(path):
        outputs.place(path).write_bytes(content)


def _about(networks: dict[str, Report]) -> dict[str, Any]:
    original = networks["original"]
    on_solver = any(report.totals.by_solver for report in networks.values())
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "version": __version__,
        "covers": COVERS + (ON_SOLVER if on_solver else ""),
        "domain": original.domain,
        "sha256": {name: report.source_sha256 for name, report in networks.items()},
    }


def _tensors(report: Report) -> dict[str, dict[str, Any]]:
    return {
        layer.tensor: _entries(layer)
        for chain in report.chains
        for layer in chain.layers
        if layer.lower is not None
    }


def _entries(layer: LayerReport) -> dict[str, NDArray[Any] | tuple[str, ...]]:
    assert layer.lower is not None
    assert layer.upper is not None
    found: dict[str, NDArray[Any] | tuple[str, ...]] = {"lower": layer.lower, "upper": layer.upper}
    if layer.relu:
        found |= {"status": layer.status, "evidence": layer.evidence}
    return found
