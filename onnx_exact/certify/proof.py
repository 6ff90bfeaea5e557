"""What a certificate holds of one chain: verdicts, and what it takes to check each of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bab.trees import Tree
from onnx_exact.certify.bounds import Bounds
from onnx_exact.decide.verdict import Status


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
        values: slopes in units of 1 / 255, shape (rows, loose units of the layers before).
    """

    unit: NDArray[np.int32]
    positive: NDArray[np.bool_]
    values: NDArray[np.uint8]

    def and_(self, more: Slopes) -> Slopes:
        """These and more, of the same layer."""
        names = ("unit", "positive", "values")
        return Slopes(*(np.concatenate([getattr(self, n), getattr(more, n)]) for n in names))


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
class ChainProof:
    """The units of a chain.

    Attributes:
        layers: None for a layer without ReLU.
        trees: splittings, in the order of their layers; leaves have slopes for the loose units of
            the layers before.
        witnesses: points of the domain, shape (points, inputs), float32 or float64.
        bounds: what all that proves; not written.
    """

    layers: tuple[LayerProof | None, ...]
    trees: tuple[Tree, ...]
    witnesses: NDArray[np.floating[Any]]
    bounds: Bounds

    def count(self, *kinds: Proof) -> int:
        """Number of units of the chain whose verdict rests on one of `kinds`."""
        return sum(layer.count(*kinds) for layer in self.layers if layer is not None)
