"""A chain of which some layers also read what the layer before them reads: not a plain chain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_exact.network.affine import Array
from onnx_exact.network.chain import Layer


@dataclass(frozen=True, eq=False)
class SplitChain:
    """Layers with bypasses: g^l = W^l h^(l-1) + M^l h^(l-2) + b^l, with h^0 = x.

    Attributes:
        layers: W^l, b^l and whether a ReLU follows.
        bypasses: M^l, shape (units of layer l, inputs of layer l - 1), None for none; one entry a
            layer, the first None.

    Raises:
        ValueError: numbers or widths that do not fit.
    """

    layers: tuple[Layer, ...]
    bypasses: tuple[Array | None, ...]

    def __post_init__(self) -> None:
        if len(self.layers) != len(self.bypasses) or self.bypasses[0] is not None:
            raise ValueError("a bypass leads around the layer before the one that reads it")
        for index in range(1, len(self.layers)):
            before, layer, bypass = *self.layers[index - 1 : index + 1], self.bypasses[index]
            if before.width != layer.affine.n_in:
                raise ValueError(f"{before.width} outputs feed {layer.affine.n_in} inputs")
            if bypass is not None and bypass.shape != (layer.width, before.affine.n_in):
                raise ValueError(f"a bypass of shape {bypass.shape} around layer {index - 1}")

    @property
    def n_in(self) -> int:
        """Number of inputs."""
        return self.layers[0].affine.n_in

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return self.layers[-1].width

    @property
    def relu_units(self) -> int:
        """Number of ReLU units, those at the output included."""
        return sum(layer.width for layer in self.layers if layer.relu)

    @property
    def connections(self) -> int:
        """Number of entries of all weight matrices, those of the bypasses included."""
        around = sum(bypass.size for bypass in self.bypasses if bypass is not None)
        return around + sum(layer.affine.linear.size for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Number of entries of all weight matrices and biases."""
        return self.connections + sum(layer.width for layer in self.layers)

    @property
    def input_read(self) -> Array:
        """All weights by which the inputs are read, shape (readers, inputs)."""
        around = self.bypasses[1] if len(self.bypasses) > 1 else None
        first = self.layers[0].affine.weight
        return first if around is None else np.vstack([first, around])

    def forward(self, x: Array) -> Array:
        """Outputs at the points `x`, shape (points, in) -> (points, out)."""
        before = h = np.atleast_2d(np.asarray(x, dtype=np.float64))
        for layer, bypass in zip(self.layers, self.bypasses, strict=True):
            g = layer.affine.apply(h)
            if bypass is not None:
                g = g + before @ bypass.T
            before, h = h, layer.activate(g)
        return h
