"""What a certificate holds of one chain: verdicts, and what it takes to check each of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnx_exact.certify.bounds import Bounds
from onnx_exact.decide.verdict import Status

# Slopes are kept as whole multiples of 1 / SLOPE_STEPS.
SLOPE_STEPS = 255


class Proof(IntEnum):
    """What a verdict rests on."""

    NONE = 0  # undecided
    BOUNDS = 1  # interval bounds, or linear bounds with the slopes everybody starts from
    SLOPES = 2  # a linear bound with slopes that are given
    TREE = 3  # a splitting that is given
    WITNESS = 5  # points that are given
    UNSHOWN = 6  # unstable, by points that are not given


@dataclass(frozen=True, eq=False)
class Slopes:
    """Linear bounds with slopes of their own, one a row.

    Attributes:
        unit: whose pre-activation is bounded, shape (rows,).
        positive: from above, or else from below; shape (rows,).
        values: slopes in units of 1 / SLOPE_STEPS, shape (rows, loose units of the layers before).
    """

    unit: NDArray[np.int32]
    positive: NDArray[np.bool_]
    values: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class LayerProof:
    """The units of one ReLU layer.

    Attributes:
        status: of `Status`, shape (units,).
        proof: of `Proof`, shape (units,).
        slopes: linear bounds of units of this layer, None where there are none.
    """

    status: NDArray[np.int8]
    proof: NDArray[np.int8]
    slopes: Slopes | None = None

    @property
    def loose(self) -> NDArray[np.intp]:
        """Units that have a slope in linear bounds of later layers."""
        stable = (self.status == Status.INACTIVE) | (self.status == Status.ACTIVE)
        return np.flatnonzero(~stable)

    def count(self, *kinds: Proof) -> int:
        """Number of units whose verdict rests on one of `kinds`."""
        return int(np.isin(self.proof, kinds).sum())


@dataclass(frozen=True, eq=False)
class BoxTreeProof:
    """A splitting of the input box, as `onnx_exact.bab.trees.BoxTree` has it."""

    layer: int
    units: NDArray[np.int32]
    positive: NDArray[np.bool_]
    nodes: NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class ReluTreeProof:
    """A splitting on ReLUs, as `onnx_exact.bab.trees.ReluTree` has it, with its leaves.

    Attributes:
        slopes: of each leaf, as in `Slopes`, shape (leaves, loose units of the layers before).
        multipliers: of the units fixed on the way to each leaf, leaf by leaf, from the root; not
            negative.
    """

    layer: int
    units: NDArray[np.int32]
    positive: NDArray[np.bool_]
    nodes: NDArray[np.int32]
    slopes: NDArray[np.uint8]
    multipliers: NDArray[np.float32]


TreeProof: TypeAlias = BoxTreeProof | ReluTreeProof


@dataclass(frozen=True, eq=False)
class ChainProof:
    """The units of a chain.

    Attributes:
        layers: None for a layer without ReLU.
        trees: splittings, in the order of their layers.
        witnesses: points of the domain, shape (points, inputs), float32 or float64.
        bounds: what all that proves; not written.
    """

    layers: tuple[LayerProof | None, ...]
    trees: tuple[TreeProof, ...]
    witnesses: NDArray[np.floating[Any]]
    bounds: Bounds

    def count(self, *kinds: Proof) -> int:
        """Number of units of the chain whose verdict rests on one of `kinds`."""
        return sum(layer.count(*kinds) for layer in self.layers if layer is not None)
