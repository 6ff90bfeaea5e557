"""The trained networks on record as cases: those of `models/` and of the papers' grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.deciding.cases import ROOT, Case
from benchmarks.training.networks import NETWORKS, NetworkSpec, grid, read_record


@dataclass(frozen=True)
class TrainedNetwork:
    """A network on record.

    Attributes:
        spec: what fixes it.
        file: where it lies, or would.
        accuracy: share of the test set that it gets right, as trained.
        sha256: of the file.
    """

    spec: NetworkSpec
    file: Path
    accuracy: float
    sha256: str

    @property
    def name(self) -> str:
        """Its name on record."""
        return self.spec.name

    @property
    def case(self) -> Case:
        """The network over the domain in its metadata."""
        return Case(self.name, self.file)

    def to_json(self) -> dict[str, Any]:
        """What the tables need to know."""
        return {
            "data": self.spec.data,
            "architecture": self.spec.architecture,
            "l1": self.spec.l1,
            "seed": self.spec.seed,
            "epochs": self.spec.epochs,
            "accuracy": self.accuracy,
            "sha256": self.sha256,
        }


def trained_networks() -> list[TrainedNetwork]:
    """All networks on record, whether or not their files are there."""
    return [_of(name, entry) for name, entry in read_record().items()]


def quick_networks() -> list[TrainedNetwork]:
    """Those of the grid that trains in minutes."""
    names = {job.spec.name for job in grid("quick")}
    return [network for network in trained_networks() if network.name in names]


def _of(name: str, entry: dict[str, Any]) -> TrainedNetwork:
    hidden = tuple(int(width) for width in entry["hidden"])
    spec = NetworkSpec(entry["data"], hidden, entry["l1"], entry["seed"], entry["epochs"])
    file = ROOT / entry["file"] if entry["file"] else NETWORKS / f"{name}.onnx"
    return TrainedNetwork(spec, file, entry["test_accuracy"], entry["sha256"])
