"""Bounds on the pre-activations of every layer of a chain, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bounds.interval import interval_bounds
from onnx_exact.decide.verdict import Stability
from onnx_exact.network.affine import Array, frozen
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box


@dataclass(frozen=True, eq=False)
class Bounds:
    """Sound bounds on the pre-activations of a chain, one array of shape (units,) a layer.

    Attributes:
        chain: the chain.
        lower, upper: may be infinite.
    """

    chain: Chain
    lower: tuple[Array, ...]
    upper: tuple[Array, ...]

    def __post_init__(self) -> None:
        for name in ("lower", "upper"):
            object.__setattr__(self, name, tuple(frozen(v) for v in getattr(self, name)))

    @staticmethod
    def of(chain: Chain, stability: Stability, box: Box) -> Bounds:
        """Those of the verdicts; of layers without ReLU by interval arithmetic."""
        lower: list[Array] = []
        upper: list[Array] = []
        before = box.lower, box.upper
        for layer, verdicts in zip(chain.layers, stability.layers, strict=True):
            if verdicts is None:
                low, high = interval_bounds(layer.affine, *before)
                before = low, high
            else:
                low, high = verdicts.lower, verdicts.upper
                before = np.maximum(low, 0.0), np.maximum(high, 0.0)
            lower.append(low)
            upper.append(high)
        return Bounds(chain, tuple(lower), tuple(upper))

    def outputs(self, layer: int) -> tuple[Array, Array]:
        """Bounds on the outputs of a layer."""
        made = self.chain.layers[layer]
        return made.activate(self.lower[layer]), made.activate(self.upper[layer])

    def magnitude(self, layer: int) -> Array:
        """Bounds on the magnitudes of the outputs of a layer."""
        low, high = self.outputs(layer)
        return np.maximum(np.abs(low), np.abs(high))

    def linear(self, layer: int) -> NDArray[np.bool_]:
        """The units of a layer whose output is their pre-activation."""
        return (self.lower[layer] >= 0.0) | (not self.chain.layers[layer].relu)
