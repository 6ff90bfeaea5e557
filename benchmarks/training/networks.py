"""Which networks there are: their names, their grids, where their files lie, and their record.

A network is fixed by its `NetworkSpec`; weights outside ``models/`` are not kept under version
control, their hashes and accuracies are, in ``networks.json``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from benchmarks.training.data import CACHE
from benchmarks.training.export import read_metadata, sha256

MODELS = Path(__file__).parents[2] / "models"
NETWORKS = CACHE / "networks"
RECORD = Path(__file__).parents[1] / "networks.json"
PAPER_EPOCHS = 120

_PAPER_HIDDEN: tuple[tuple[int, ...], ...] = (
    (100,) * 2,
    (200,) * 2,
    (400,) * 2,
    (800,) * 2,
    (100,) * 3,
    (100,) * 4,
    (100,) * 5,
)
_PAPER_SEEDS = range(5)
_PAPER_L1_STEP = Decimal("0.000025")
_PAPER_L1_MAX = {"mnist": Decimal("0.0004"), "cifar10": Decimal("0.0002")}


@dataclass(frozen=True)
class NetworkSpec:
    """What fixes a trained network: data, hidden widths, l1 penalty, seed and epochs."""

    data: str
    hidden: tuple[int, ...]
    l1: float
    seed: int = 0
    epochs: int = PAPER_EPOCHS

    @property
    def architecture(self) -> str:
        """The hidden widths as the papers write them: 2x400, or 100-50 where they differ."""
        if len(set(self.hidden)) == 1:
            return f"{len(self.hidden)}x{self.hidden[0]}"
        return "-".join(str(width) for width in self.hidden)

    @property
    def name(self) -> str:
        """The name of the file, such as ``mnist_2x400_l1-0.0002_s0``."""
        suffix = "" if self.epochs == PAPER_EPOCHS else f"_e{self.epochs}"
        return f"{self.data}_{self.architecture}_l1-{plain(self.l1)}_s{self.seed}{suffix}"

    def command(self, out: str) -> str:
        """The command that trains this network into the file ``out``."""
        hidden = " ".join(str(width) for width in self.hidden)
        return (
            f"python -m benchmarks.train --data {self.data} --hidden {hidden} "
            f"--l1 {plain(self.l1)} --seed {self.seed} --epochs {self.epochs} --out {out}"
        )


@dataclass(frozen=True)
class Job:
    """A network to train and the file that it goes to."""

    spec: NetworkSpec
    path: Path


def plain(value: float) -> str:
    """A number in plain decimals, never in exponents: 2.5e-05 is 0.000025, 0.0 is 0."""
    return format(Decimal(repr(value)).normalize(), "f")


_MODELS: dict[str, NetworkSpec] = {
    # So small a data set needs more epochs for as many steps.
    "digits_2x32": NetworkSpec("digits", (32, 32), 0.0, epochs=1200),
    "digits_2x32_l1": NetworkSpec("digits", (32, 32), 0.001, epochs=1200),
    "mnist_2x100_l1": NetworkSpec("mnist", (100, 100), 0.0002),
    "cifar10_2x100_l1": NetworkSpec("cifar10", (100, 100), 0.000175),
    "mnist_2x100": NetworkSpec("mnist", (100, 100), 0.0),
    "mnist_5x100_l1": NetworkSpec("mnist", (100,) * 5, 0.0002),
    "cifar10_5x100_l1": NetworkSpec("cifar10", (100,) * 5, 0.000175),
    "mnist_2x400_l1": NetworkSpec("mnist", (400, 400), 0.0002),
}

_QUICK: tuple[NetworkSpec, ...] = (
    NetworkSpec("mnist", (100, 100), 0.0),
    NetworkSpec("mnist", (100, 100), 0.0001),
    NetworkSpec("mnist", (100, 100), 0.0002),
    NetworkSpec("mnist", (100, 100), 0.0004),
    NetworkSpec("mnist", (200, 200), 0.0002),
    NetworkSpec("cifar10", (100, 100), 0.0001),
    NetworkSpec("cifar10", (100, 100), 0.000175),
)


def _paper_specs() -> Iterable[NetworkSpec]:
    """Every network of the papers' tables, one seed after the other."""
    for seed in _PAPER_SEEDS:
        for data, most in _PAPER_L1_MAX.items():
            for hidden in _PAPER_HIDDEN:
                for step in range(int(most / _PAPER_L1_STEP) + 1):
                    yield NetworkSpec(data, hidden, float(step * _PAPER_L1_STEP), seed)


def grid(name: str) -> list[Job]:
    """The jobs of the grid ``name``, one of `GRIDS`, in the order to train them.

    A network that ``models/`` has is not trained again for another grid.
    """
    if name == "models":
        return [Job(spec, MODELS / f"{file}.onnx") for file, spec in _MODELS.items()]
    specs = _QUICK if name == "quick" else _paper_specs()
    return [Job(spec, find(spec) or NETWORKS / f"{spec.name}.onnx") for spec in specs]


GRIDS = ("models", "quick", "paper")


def find(spec: NetworkSpec) -> Path | None:
    """The file of the network ``spec``, in ``models/`` or in the cache, or None."""
    places = [MODELS / f"{file}.onnx" for file, known in _MODELS.items() if known == spec]
    places.append(NETWORKS / f"{spec.name}.onnx")
    return next((path for path in places if path.exists()), None)


def read_record() -> dict[str, dict[str, object]]:
    """What is on record of each trained network, by its name; empty where nothing is."""
    if not RECORD.exists():
        return {}
    record: dict[str, dict[str, object]] = json.loads(RECORD.read_text(encoding="utf-8"))
    return record


def record(job: Job) -> None:
    """Put the hash and the accuracy of a trained network on record, from its file."""
    entries = read_record()
    entries[job.spec.name] = {
        "data": job.spec.data,
        "hidden": list(job.spec.hidden),
        "l1": job.spec.l1,
        "seed": job.spec.seed,
        "epochs": job.spec.epochs,
        "test_accuracy": float(read_metadata(job.path)["training.test_accuracy"]),
        "sha256": sha256(job.path),
        "file": f"models/{job.path.name}" if job.path.parent == MODELS else None,
    }
    text = json.dumps(dict(sorted(entries.items())), indent=2) + "\n"
    temporary = RECORD.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, RECORD)
