"""Bounds on the pre-activations of every layer of a chain over a box, as a value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.affine import Array, frozen
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box


@dataclass(frozen=True, eq=False)
class ChainBounds:
    """Sound bounds, one array of shape (units,) a layer; infinite where nothing is known.

    Attributes:
        chain, box: the network and the domain.
        lower, upper: on the pre-activations.
    """

    chain: Chain
    box: Box
    lower: tuple[Array, ...]
    upper: tuple[Array, ...]

    def __post_init__(self) -> None:
        for name in ("lower", "upper"):
            object.__setattr__(self, name, tuple(frozen(v) for v in getattr(self, name)))

    def outputs(self, layer: int) -> tuple[Array, Array]:
        """Bounds on the outputs h of a layer; of the box for layer -1."""
        if layer < 0:
            return self.box.lower, self.box.upper
        made = self.chain.layers[layer]
        return made.activate(self.lower[layer]), made.activate(self.upper[layer])

    def size(self, layer: int) -> Array:
        """Bounds on the magnitudes of the outputs of a layer."""
        low, high = self.outputs(layer)
        return np.maximum(np.abs(low), np.abs(high))

    def inactive(self, layer: int) -> NDArray[np.bool_]:
        """The units whose ReLU is 0 everywhere."""
        return (self.upper[layer] <= 0.0) & self.chain.layers[layer].relu

    def linear(self, layer: int) -> NDArray[np.bool_]:
        """The units whose output is their pre-activation everywhere, but for inactive ones."""
        relu = self.chain.layers[layer].relu
        return ((self.lower[layer] >= 0.0) & (self.upper[layer] > 0.0)) | (not relu)
