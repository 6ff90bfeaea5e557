"""Verdicts as a file, and two of them compared unit by unit."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact.decide.verdict import Stability, Status


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What was decided of every ReLU unit of a chain; by the index of its layer, (units,) each.

    Attributes:
        status: of `Status`.
        lower, upper: the bounds that are claimed to hold over the domain.
        searched: steps that the tool's own searches spent on each unit, of layers searched at all.
    """

    status: dict[int, NDArray[np.int8]]
    lower: dict[int, NDArray[np.float64]]
    upper: dict[int, NDArray[np.float64]]
    searched: dict[int, NDArray[np.int64]] = field(default_factory=dict)

    @staticmethod
    def of(stability: Stability, searched: dict[int, NDArray[np.int64]] | None = None) -> Verdicts:
        """Those of an analysis, and what was searched for them."""
        layers = {i: layer for i, layer in enumerate(stability.layers) if layer is not None}
        return Verdicts(
            {i: layer.status for i, layer in layers.items()},
            {i: layer.lower for i, layer in layers.items()},
            {i: layer.upper for i, layer in layers.items()},
            searched or {},
        )

    def save(self, path: Path) -> None:
        """Writes them to an .npz file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        kinds: dict[str, dict[int, Any]] = {
            "status": self.status,
            "lower": self.lower,
            "upper": self.upper,
            "searched": self.searched,
        }
        arrays: dict[str, Any] = {
            f"{kind}_{i}": values for kind, layers in kinds.items() for i, values in layers.items()
        }
        np.savez_compressed(path, **arrays)

    @staticmethod
    def read(path: Path) -> Verdicts:
        """The inverse of `save`."""
        with np.load(path) as file:
            parts = {
                kind: {
                    int(name.removeprefix(f"{kind}_")): file[name]
                    for name in file.files
                    if name.startswith(f"{kind}_")
                }
                for kind in ("status", "lower", "upper", "searched")
            }
        return Verdicts(**parts)


@dataclass(frozen=True)
class Disagreement:
    """A unit that two methods decided differently: at least one of them is wrong."""

    layer: int
    unit: int
    verdicts: tuple[str, str]


def disagreements(one: Verdicts, other: Verdicts) -> list[Disagreement]:
    """The units that both decided, and not alike.

    Raises:
        ValueError: the verdicts are not on the same network.
    """
    if {i: s.size for i, s in one.status.items()} != {i: s.size for i, s in other.status.items()}:
        raise ValueError("verdicts on different networks")
    found = []
    for layer, first in one.status.items():
        second = other.status[layer]
        decided = (first != Status.UNDECIDED) & (second != Status.UNDECIDED)
        for unit in np.flatnonzero(decided & (first != second)):
            pair = (Status(first[unit]).name, Status(second[unit]).name)
            found.append(Disagreement(layer, int(unit), pair))
    return found
