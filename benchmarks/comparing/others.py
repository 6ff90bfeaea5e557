"""Networks of others that ways to decide are compared on, where the files are there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.deciding.cases import Case, cases

# Names of cases.
COMPARED = (
    "serra_mnist",
    "serra_cifar10",
    "serra_cifar100",
    "mnist-net_256x2",
    "mnist_relu_9_200",
    "acasxu_1_1_prop_1",
    "acasxu_1_1_prop_3",
    "acasxu_3_3_prop_1",
    "acasxu_3_3_prop_3",
)


@dataclass(frozen=True)
class OthersNetwork:
    """A network of others over a domain; how it was trained is not on record."""

    case: Case

    @property
    def name(self) -> str:
        """The name of its case."""
        return self.case.name

    @property
    def file(self) -> Path:
        """Where it lies."""
        return self.case.file

    def to_json(self) -> dict[str, Any]:
        """What the tables need to know."""
        return {"domain": self.case.domain_words}


def others_networks() -> list[OthersNetwork]:
    """Those that are there."""
    named = {case.name: case for case in cases()}
    return [OthersNetwork(named[name]) for name in COMPARED if named[name].present]
