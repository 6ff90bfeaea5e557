"""What a certificate says of one chain: arrays whose types, sizes and indices are as they must be.

Which there are follows from the header and the original chain; whether what they claim is true is
for others to check.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact.verifier.certificate import (
    ACTIVE,
    BOUNDS,
    INACTIVE,
    NONE,
    SLOPES,
    SOLVER,
    TREE,
    UNDECIDED,
    UNSHOWN,
    UNSTABLE,
    WITNESS,
    Certificate,
)
from onnx_exact.verifier.rounding import Flags

# Which proofs a status may have.
PROOFS = {
    UNDECIDED: (NONE,),
    INACTIVE: (BOUNDS, SLOPES, TREE, SOLVER),
    ACTIVE: (BOUNDS, SLOPES, TREE, SOLVER),
    UNSTABLE: (WITNESS, UNSHOWN),
}
MOST_TREES = 100_000
MOST_NODES = 1_000_000
MOST_MULTIPLIERS = 2**25
FEW_POINTS = 64


@dataclass(frozen=True, eq=False)
class Tree:
    """How a box or the signs of units were split to exclude signs of units of one layer."""

    kind: str
    layer: int
    units: NDArray[np.int32]
    positive: Flags
    nodes: NDArray[np.signedinteger[Any]]
    slopes: NDArray[np.uint8] | None
    multipliers: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class Claims:
    """What a certificate says of one chain; dicts by layer of the original."""

    status: dict[int, NDArray[np.int8]]
    proof: dict[int, NDArray[np.int8]]
    witnesses: NDArray[np.floating[Any]]
    slopes: dict[int, tuple[NDArray[np.int32], Flags, NDArray[np.uint8]]]
    trees: tuple[Tree, ...]
    sources: tuple[int, ...]
    places: tuple[NDArray[np.int32], ...]
    factors: tuple[NDArray[np.float64], ...]

    def loose(self, layer: int) -> Flags:
        """Units of a layer that a slope is given for."""
        return _loose(self.status[layer], self.proof[layer])


def _loose(status: NDArray[np.int8], proof: NDArray[np.int8]) -> Flags:
    return np.asarray(np.isin(status, (UNDECIDED, UNSTABLE)) | (proof == SOLVER))


def read_claims(
    certificate: Certificate, chain: int, widths: list[int], relu: list[bool], inputs: int
) -> Claims:
    """What the certificate says of its chain number `chain`, whose original has these layers."""
    return _Reader(certificate, chain, widths, relu, inputs).claims()


class _Reader:
    """Reads one chain."""

    def __init__(
        self, certificate: Certificate, chain: int, widths: list[int], relu: list[bool], inputs: int
    ) -> None:
        self.file, self.prefix = certificate, f"c{chain}_"
        self.head = certificate.entry(list, "chains")[chain]
        self.widths, self.relu, self.inputs = widths, relu, inputs
        # Slopes are given for this many units of the layers before each.
        self.total = [0]

    def claims(self) -> Claims:
        """All of it."""
        for key, value in (("widths", self.widths), ("relu", self.relu)):
            if self.file.entry(list, key, of=self.head) != value:
                self.file.refuse(f"its {key} are not those of the original")
        status, proof = self.verdicts()
        slopes = {
            layer: self.slopes(layer)
            for layer in range(len(self.widths))
            if self.file.has(f"{self.prefix}l{layer}_slopes")
        }
        heads = self.file.entry(list, "trees", of=self.head)
        if len(heads) > MOST_TREES:
            self.file.refuse("too many trees")
        trees = tuple(self.tree(i, head) for i, head in enumerate(heads))
        return Claims(status, proof, self.witnesses(), slopes, trees, *self.map())

    def array(self, name: str, kind: Any, *shape: int | None, **limit: int) -> NDArray[Any]:
        """An array of this chain."""
        return self.file.array(f"{self.prefix}{name}", kind, shape, **limit)

    def units(self, name: str, count: int | None, below: int, lowest: int = 0) -> NDArray[np.int32]:
        """Indices of units."""
        units = self.array(name, np.int32, count, most=4 * MOST_NODES)
        if ((units < lowest) | (units >= below)).any():
            self.file.refuse(f"{self.prefix}{name} names a unit that is not there")
        return units

    def verdicts(self) -> tuple[dict[int, NDArray[np.int8]], dict[int, NDArray[np.int8]]]:
        """Status and proof of the units of each layer that has a ReLU."""
        status, proof = {}, {}
        for layer, width in enumerate(self.widths):
            loose = 0
            if self.relu[layer]:
                status[layer] = self.array(f"l{layer}_status", np.int8, width)
                proof[layer] = self.array(f"l{layer}_proof", np.int8, width)
                pairs = set(zip(status[layer].tolist(), proof[layer].tolist(), strict=True))
                for one, by in pairs:
                    if by not in PROOFS.get(one, ()):
                        self.file.refuse(f"status {one} with proof {by} in layer {layer}")
                loose = int(_loose(status[layer], proof[layer]).sum())
            self.total.append(self.total[-1] + loose)
        return status, proof

    def slopes(self, layer: int) -> tuple[NDArray[np.int32], Flags, NDArray[np.uint8]]:
        """Units, signs and slopes of a layer's records."""
        width, total = self.widths[layer], self.total[layer]
        records = self.array(f"l{layer}_slopes", np.uint8, None, total, most=2 * width * total)
        count = len(records)
        units = self.units(f"l{layer}_slopes_unit", count, width)
        return units, self.array(f"l{layer}_slopes_positive", np.bool_, count), records

    def witnesses(self) -> NDArray[np.floating[Any]]:
        """The points; there is no need of more than one for each sign."""
        if not self.file.has(f"{self.prefix}witnesses"):
            return np.zeros((0, self.inputs))
        most = max(2 * sum(self.widths), FEW_POINTS) * self.inputs * 8
        kinds = np.float32, np.float64
        return self.array("witnesses", kinds, None, self.inputs, most=most)

    def tree(self, number: int, head: Any) -> Tree:
        """One tree."""
        name = f"t{number}_"
        kind = self.file.entry(str, "kind", of=head)
        layer = self.file.entry(int, "layer", of=head)
        if kind not in ("box", "relu") or not 0 <= layer < len(self.widths) or not self.relu[layer]:
            self.file.refuse(f"{name} is no tree of a layer with ReLUs")
        units = self.units(f"{name}units", None, self.widths[layer])
        positive = self.array(f"{name}positive", np.bool_, len(units))
        if kind == "box":
            nodes = self.array(f"{name}nodes", np.int16, None, most=2 * MOST_NODES)
            if ((nodes < -1) | (nodes >= self.inputs)).any():
                self.file.refuse(f"{name} splits an input that is not there")
            return Tree(kind, layer, units, positive, nodes, None, None)
        nodes = self.array(f"{name}nodes", np.int32, None, 2, most=8 * MOST_NODES)
        leaf = (nodes == -1).all(axis=1)
        for where, unit in set(map(tuple, nodes[~leaf].tolist())):
            there = 0 <= where < layer and self.relu[where]
            if not there or not 0 <= unit < self.widths[where]:
                self.file.refuse(f"{name} splits on unit {unit} of layer {where}")
        slopes = self.array(f"{name}slopes", np.uint8, int(leaf.sum()), self.total[layer])
        most = 4 * MOST_MULTIPLIERS
        multipliers = self.array(f"{name}multipliers", np.float32, None, most=most)
        if (multipliers < 0.0).any():
            self.file.refuse(f"{name} has a negative multiplier")
        return Tree(kind, layer, units, positive, nodes, slopes, multipliers)

    def map(
        self,
    ) -> tuple[tuple[int, ...], tuple[NDArray[np.int32], ...], tuple[NDArray[np.float64], ...]]:
        """The layers that those of the result stand for, where their units went, and how often."""
        sources = self.file.entry(list, "sources", of=self.head)
        after = self.file.entry(list, "result_widths", of=self.head)
        last = len(self.widths) - 1
        if not all(type(n) is int for n in (*sources, *after)) or len(after) != len(sources):
            self.file.refuse("its layers stand for none of the original")
        if sorted({s for s in sources if 0 <= s <= last}) != sources or sources[-1:] != [last]:
            self.file.refuse("its layers are not those of the original in their order")
        places, factors = [], []
        for k, source in enumerate(sources):
            width = self.widths[source]
            places.append(self.units(f"m{k}_unit", width, after[k], lowest=-1))
            factor = np.ones(width)
            if self.file.has(f"{self.prefix}m{k}_factor"):
                factor = self.array(f"m{k}_factor", np.float64, width)
            if not (factor > 0.0).all():
                self.file.refuse("a factor that is not positive")
            factors.append(factor)
        return tuple(sources), tuple(places), tuple(factors)
