"""The certificate: a file with all that is needed to check a result without trusting the optimizer.

`docs/certificate.md` describes the format.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact._version import __version__
from onnx_exact.bab.trees import LEAF, Tree
from onnx_exact.certify.proof import ChainProof, LayerProof
from onnx_exact.errors import OutputError
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.reduce import UnitMap

FORMAT = "onnx-exact certificate"
VERSION = 2

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class FileMark:
    """By what a file is recognised: the SHA-256 of its bytes in hexadecimal, and their number."""

    sha256: str
    nbytes: int


@dataclass(frozen=True, eq=False)
class ChainRecord:
    """One chain, before and after.

    Attributes:
        input, output: the tensors that it reads and makes, in both models.
        before, after: the chain; weights are those of the models and not written.
        proof: of the verdicts on the units before.
        origins: for each layer after, where the units of the original live on.
        gone: the same for other layers, where some are gone together.
        box: of its input, where that is not the domain itself.
    """

    input: str
    output: str
    before: Chain
    after: Chain
    proof: ChainProof
    origins: Sequence[UnitMap]
    gone: Sequence[UnitMap] = ()
    box: Box | None = None


@dataclass(frozen=True, eq=False)
class Certificate:
    """Everything that is written.

    Attributes:
        original, result: the files it is about.
        domain: `Domain.to_json`.
        certified_max_abs: the bound on |new - old| over the outputs of all chains.
        chains: in the order of the graph.
        channels: of tensors that lost some, along one axis which entries stay.
    """

    original: FileMark
    result: FileMark
    domain: Mapping[str, Any]
    certified_max_abs: float
    chains: tuple[ChainRecord, ...]
    channels: Mapping[str, Mapping[int, NDArray[np.bool_]]] = field(default_factory=dict)


def write_certificate(certificate: Certificate, path: Path) -> None:
    """Writes a certificate, by way of a temporary file in the same folder.

    Raises:
        OutputError: the file cannot be written; none is left behind.
    """
    arrays: Arrays = {}
    header = _header(certificate)
    text = json.dumps(header, allow_nan=False, separators=(",", ":"))
    arrays["header"] = np.frombuffer(text.encode("utf-8"), dtype=np.uint8)
    for number, chain in enumerate(certificate.chains):
        for name, array in _arrays(chain).items():
            arrays[f"c{number}_{name}"] = np.ascontiguousarray(array)
    for number, cuts in enumerate(certificate.channels.values()):
        (arrays[f"k{number}_kept"],) = cuts.values()
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"the certificate {path} cannot be written: {error.strerror}") from error


def _header(certificate: Certificate) -> dict[str, Any]:
    channels = [
        {"tensor": tensor, "axis": axis}
        for tensor, cuts in certificate.channels.items()
        for axis in cuts
    ]
    return {
        "format": FORMAT,
        "version": VERSION,
        "written_by": f"onnx_exact {__version__}",
        "original": _mark(certificate.original),
        "result": _mark(certificate.result),
        "domain": dict(certificate.domain),
        "deviation": {"certified_max_abs": certificate.certified_max_abs},
        "chains": [_chain(chain) for chain in certificate.chains],
        **({"channels": channels} if channels else {}),
    }


def _mark(mark: FileMark) -> dict[str, Any]:
    return {"sha256": mark.sha256, "bytes": mark.nbytes}


def _chain(chain: ChainRecord) -> dict[str, Any]:
    return {
        "input": chain.input,
        "output": chain.output,
        "widths": [layer.width for layer in chain.before.layers],
        "relu": [layer.relu for layer in chain.before.layers],
        "result_widths": [layer.width for layer in chain.after.layers],
        "result_relu": [layer.relu for layer in chain.after.layers],
        "sources": [origin.source for origin in chain.origins],
        "trees": [
            {"kind": "box" if tree.leaves is None else "relu", "layer": tree.layer}
            for tree in chain.proof.trees
        ],
    }


def _arrays(chain: ChainRecord) -> Arrays:
    arrays: Arrays = {"witnesses": chain.proof.witnesses}
    if chain.box is not None:
        arrays["box"] = np.array([chain.box.lower, chain.box.upper])
    for index, layer in enumerate(chain.proof.layers):
        if layer is not None:
            arrays |= {f"l{index}_{name}": array for name, array in _layer(layer).items()}
    for number, tree in enumerate(chain.proof.trees):
        found = arrays_of_tree(tree, chain.before)
        arrays |= {f"t{number}_{name}": array for name, array in found.items()}
    maps = {f"m{number}": origin for number, origin in enumerate(chain.origins)}
    maps |= {f"g{origin.source}": origin for origin in chain.gone}
    for name, origin in maps.items():
        arrays[f"{name}_unit"] = origin.place.astype(np.int32)
        if (origin.factor != 1.0).any():
            arrays[f"{name}_factor"] = origin.factor
    return arrays


def _layer(layer: LayerProof) -> Arrays:
    arrays: Arrays = {"status": layer.status, "proof": layer.proof}
    if layer.slopes is not None:
        arrays["slopes_unit"] = layer.slopes.unit
        arrays["slopes_positive"] = layer.slopes.positive
        arrays["slopes"] = layer.slopes.values
    return arrays


def arrays_of_tree(tree: Tree, chain: Chain) -> Arrays:
    """What is written of a tree; units are named by layer and index there."""
    arrays: Arrays = {"units": tree.units.astype(np.int32), "positive": tree.positive}
    if tree.leaves is None:
        return arrays | {"nodes": tree.splits.astype(np.int16)}
    starts = np.cumsum([0, *(layer.width for layer in chain.layers)])
    layer = np.searchsorted(starts, tree.splits, side="right") - 1
    nodes = np.column_stack([layer, tree.splits - starts[np.maximum(layer, 0)]])
    nodes[tree.splits == LEAF] = LEAF
    arrays["nodes"] = nodes.astype(np.int32)
    return arrays | {"slopes": tree.leaves.slopes, "multipliers": tree.leaves.multipliers}
