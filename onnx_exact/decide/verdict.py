"""Verdicts on ReLU units and the evidence each rests on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bab.trees import Tree
from onnx_exact.network.affine import Array, frozen


class Status(IntEnum):
    """What is known of a unit over the domain; UNDECIDED never permits a change."""

    UNDECIDED = 0
    INACTIVE = 1  # g <= 0 everywhere
    ACTIVE = 2  # g >= 0 everywhere (and not INACTIVE)
    UNSTABLE = 3  # both signs have a witness


class Evidence(IntEnum):
    """How a verdict was reached."""

    NONE = 0
    WITNESS = 1  # points of the domain, confirmed by a forward pass
    INTERVAL = 2  # interval arithmetic (exact for the first layer over a box)
    LINEAR = 3  # backward linear bounds
    SOLVER = 4  # what SCIP says, where the user trusts it, and what follows from that alone


@dataclass(frozen=True, eq=False)
class LayerVerdicts:
    """The verdicts on the units of one ReLU layer, all arrays of shape (units,).

    Attributes:
        status: of `Status`.
        evidence: of `Evidence`.
        lower, upper: sound bounds on the pre-activations over the domain.
        seen_positive, seen_negative: a witness shows g > 0, g < 0.
    """

    status: NDArray[np.int8]
    evidence: NDArray[np.int8]
    lower: Array
    upper: Array
    seen_positive: NDArray[np.bool_]
    seen_negative: NDArray[np.bool_]

    def __post_init__(self) -> None:
        for name in ("lower", "upper"):
            object.__setattr__(self, name, frozen(getattr(self, name)))
        for name in ("status", "evidence", "seen_positive", "seen_negative"):
            array = getattr(self, name).copy()
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @property
    def units(self) -> int:
        """Number of units."""
        return int(self.status.size)

    def count(self, status: Status) -> int:
        """Number of units with that status."""
        return int((self.status == status).sum())

    def where(self, status: Status) -> NDArray[np.intp]:
        """Indices of the units with that status."""
        return np.flatnonzero(self.status == status)


@dataclass(frozen=True, eq=False)
class Narrowed:
    """Linear bounds of units of one layer with slopes of their own, which later layers rest on.

    Attributes:
        layer: of the units.
        units: shape (rows,).
        positive: whether it is the upper bound, or the lower one; shape (rows,).
        slopes: of all units of the layers below, in units of 1 / `bounds.cases.SLOPE_STEPS`,
            shape (rows, units).
    """

    layer: int
    units: NDArray[np.intp]
    positive: NDArray[np.bool_]
    slopes: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Stability:
    """The verdicts on one chain over one box.

    Attributes:
        layers: one entry a layer of the chain, None for a layer without ReLU.
        witnesses: shape (points, inputs), the points of the domain that witnesses stand on.
        output_lower, output_upper: sound bounds on the chain's outputs.
        interrupted: the user ended the deciding with Ctrl-C.
        trees: the splittings that verdicts rest on.
        narrowed: bounds on layers below that they rest on as well.
    """

    layers: tuple[LayerVerdicts | None, ...]
    witnesses: Array
    output_lower: Array
    output_upper: Array
    interrupted: bool = False
    trees: tuple[Tree, ...] = ()
    narrowed: tuple[Narrowed, ...] = ()

    def count(self, status: Status) -> int:
        """Number of units of the whole chain with that status."""
        return sum(layer.count(status) for layer in self.layers if layer is not None)
