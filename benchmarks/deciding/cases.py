"""The cases that deciding is measured on: a network, a domain, and the time it may take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.training.networks import MODELS, NETWORKS, NetworkSpec, find

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"

# A range, a file of `SHARED`, or lower and upper side; None for the domain in the file's metadata.
DomainText = str | list[list[float]] | None


@dataclass(frozen=True)
class Case:
    """A network over a domain.

    Attributes:
        name: short, unique, without spaces.
        file: the network; may be absent.
        domain: see `DomainText`.
        seconds: within which every unit should be decided; None where nothing is asked for.
        all_units: whether every unit should be decided by then, or only as many as can be.
        quick: whether it takes no more than a few seconds.
    """

    name: str
    file: Path
    domain: DomainText = None
    seconds: float | None = None
    all_units: bool = True
    quick: bool = False

    @property
    def present(self) -> bool:
        """Whether the network, and the file of its domain if it has one, are there."""
        domain = self.domain_file
        return self.file.exists() and (domain is None or domain.exists())

    @property
    def domain_file(self) -> Path | None:
        """The file that holds the domain, where one does."""
        if isinstance(self.domain, str) and self.domain.endswith((".vnnlib", ".npz")):
            return SHARED / "domains" / self.domain
        return None

    @property
    def domain_spec(self) -> Any:
        """The domain as `onnx_exact.domains.resolve_domain` takes it."""
        if isinstance(self.domain, list):
            return (self.domain[0], self.domain[1])
        return self.domain_file or self.domain

    @property
    def domain_words(self) -> str:
        """The domain in a few characters."""
        if isinstance(self.domain, list):
            return "full box"
        return self.domain_file.stem if self.domain_file else "[0,1]"

    def to_json(self) -> dict[str, Any]:
        """What a process of its own needs to know."""
        return {"name": self.name, "file": str(self.file), "domain": self.domain}


def case_from_json(entry: dict[str, Any]) -> Case:
    """The inverse of `Case.to_json`."""
    return Case(entry["name"], Path(entry["file"]), entry["domain"])


def _trained(*specs: NetworkSpec) -> Path:
    """The file of the first of several networks that was trained; where it would be if none was."""
    found = (find(spec) for spec in specs)
    return next((path for path in found if path), NETWORKS / f"{specs[0].name}.onnx")


def _wide(data: str, width: int, l1: float) -> Path:
    """A network of two hidden layers; half the epochs will do."""
    hidden = (width, width)
    return _trained(NetworkSpec(data, hidden, l1), NetworkSpec(data, hidden, l1, epochs=60))


ACASXU_BOX = [[-0.298552812, *[-0.5] * 4], [0.679857769, *[0.5] * 4]]


def cases() -> list[Case]:
    """All cases, those that are over soonest first."""
    shared = SHARED / "models"
    unit_box = "0:1"
    own = [
        Case("digits_2x32", MODELS / "digits_2x32.onnx", quick=True),
        Case("digits_2x32_l1", MODELS / "digits_2x32_l1.onnx", quick=True),
        Case("mnist_2x100", MODELS / "mnist_2x100.onnx", quick=True),
        Case("mnist_2x100_l1", MODELS / "mnist_2x100_l1.onnx", quick=True),
        Case("mnist_2x400_l1", MODELS / "mnist_2x400_l1.onnx", quick=True),
        Case("cifar10_2x100_l1", MODELS / "cifar10_2x100_l1.onnx", quick=True),
        Case("cifar10_2x400_l1", _wide("cifar10", 400, 0.000175), seconds=5, quick=True),
        Case("cifar10_2x800_l1", _wide("cifar10", 800, 0.000175), seconds=10),
        Case("mnist_2x800_l1", _wide("mnist", 800, 0.0002), seconds=10),
        Case("cifar10_5x100_l1", MODELS / "cifar10_5x100_l1.onnx", seconds=60),
        Case("mnist_5x100_l1", MODELS / "mnist_5x100_l1.onnx", seconds=60),
    ]
    others = [
        Case(name, shared / f"{file}.onnx", unit_box, seconds=3, quick=True)
        for name, file in (
            ("serra_cifar10", "serra_cifar10_400-400_l1_pruned"),
            ("serra_cifar100", "serra_cifar100_400-400_l1_pruned"),
            ("serra_mnist", "serra_mnist_100-100"),
            ("mnist-net_256x2", "mnist-net_256x2"),
        )
    ]
    acasxu = [
        Case(f"acasxu_{net}_{words}", shared / f"ACASXU_run2a_{net}_batch_2000.onnx", box, 120)
        for net in ("1_1", "3_3")
        for words, box in (
            ("box", ACASXU_BOX),
            ("prop_1", "acasxu_prop_1.vnnlib"),
            ("prop_3", "acasxu_prop_3.vnnlib"),
        )
    ]
    deep = shared / "mnist-net_256x4.onnx"
    long = [
        Case("mnist_relu_9_200", shared / "mnist_relu_9_200.onnx", unit_box, 300),
        Case("mnist-net_256x4_prop_0", deep, "mnistfc_prop_0_0.03.vnnlib", 300),
        Case("mnist-net_256x4_prop_1", deep, "mnistfc_prop_1_0.05.vnnlib", 300),
        Case("mnist-net_256x4", deep, unit_box, 600, all_units=False),
    ]
    return [*own, *others, *acasxu, *long]
