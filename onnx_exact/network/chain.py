"""A chain of affine maps and ReLUs, and its forward pass in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_exact.network.affine import Affine, Array


@dataclass(frozen=True, eq=False)
class Layer:
    """An affine map and, where `relu`, the ReLU that follows it."""

    affine: Affine
    relu: bool

    @property
    def width(self) -> int:
        """Number of units."""
        return self.affine.n_out

    def activate(self, values: Array) -> Array:
        """What the layer gives out for pre-activations, or at most or at least for bounds on them.

        A ReLU never falls, so that bounds on its input lead to those on its output.
        """
        return np.maximum(values, 0.0) if self.relu else values


@dataclass(frozen=True, eq=False)
class Chain:
    """Layers applied one after another: h^0 = x, g^l = W^l h^(l-1) + b^l, h^l = max(g^l, 0).

    A layer without ReLU is linear (h^l = g^l); the last layer usually is one.

    Raises:
        ValueError: no layer, or layers whose widths do not fit.
    """

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise ValueError("a chain has at least one layer")
        for before, after in zip(self.layers, self.layers[1:], strict=False):
            if before.width != after.affine.n_in:
                raise ValueError(f"{before.width} outputs feed {after.affine.n_in} inputs")

    @staticmethod
    def of(affines: Sequence[Affine], relu_at_end: bool = False) -> Chain:
        """The chain with a ReLU between neighbours and, if asked for, one at the end."""
        last = len(affines) - 1
        return Chain(tuple(Layer(a, i < last or relu_at_end) for i, a in enumerate(affines)))

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
    def is_constant(self) -> bool:
        """Whether it is a constant already: one linear layer with zero weights."""
        only = self.layers[0]
        return len(self.layers) == 1 and not only.relu and not only.affine.reads.any()

    @property
    def connections(self) -> int:
        """Number of entries of all weight matrices; a constant needs none."""
        return 0 if self.is_constant else sum(layer.affine.linear.size for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Number of entries of all weight matrices and biases."""
        return self.connections + sum(layer.width for layer in self.layers)

    @property
    def input_read(self) -> Array:
        """All weights by which the inputs are read, shape (readers, inputs)."""
        return self.layers[0].affine.weight

    def up_to(self, layer: int, unit: int, positive: bool) -> Chain:
        """The chain that ends in one pre-activation, or in its negative, with no ReLU after it."""
        last = self.layers[layer].affine.signed(np.array([unit]), 1.0 if positive else -1.0)
        return Chain((*self.layers[:layer], Layer(last, relu=False)))

    def forward(self, x: Array) -> Array:
        """Outputs at the points `x`, shape (points, in) -> (points, out)."""
        return self.activations(x)[-1]

    def activations(self, x: Array) -> list[Array]:
        """Outputs h^l of every layer at the points `x`, each of shape (points, width)."""
        return [
            layer.activate(g) for layer, g in zip(self.layers, self.preactivations(x), strict=True)
        ]

    def preactivations(self, x: Array) -> list[Array]:
        """Pre-activations g^l of every layer at the points `x`, each of shape (points, width)."""
        values = []
        h = np.atleast_2d(np.asarray(x, dtype=np.float64))
        for layer in self.layers:
            g = layer.affine.apply(h)
            values.append(g)
            h = layer.activate(g)
        return values
