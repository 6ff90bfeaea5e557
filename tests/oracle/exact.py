"""The forward pass of a chain in rational arithmetic: every float64 is a rational number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from onnx_exact.network import Affine, Chain
from tests.oracle.polytope import Point


@dataclass(frozen=True)
class ExactLayer:
    """weight / scale and bias / scale are the layer's numbers; `scale` is a power of two."""

    weight: tuple[tuple[int, ...], ...]
    bias: tuple[int, ...]
    scale: int
    relu: bool

    @staticmethod
    def of(affine: Affine, relu: bool) -> ExactLayer:
        rows = [*affine.entries.tolist(), affine.bias.tolist()]
        scale = max(value.as_integer_ratio()[1] for row in rows for value in row)
        *weight, bias = (tuple(int(Fraction(value) * scale) for value in row) for row in rows)
        return ExactLayer(tuple(weight), bias, scale, relu)


def exact_layers(chain: Chain) -> list[ExactLayer]:
    return [ExactLayer.of(layer.affine, layer.relu) for layer in chain.layers]


def preactivations(layers: Sequence[ExactLayer], point: Sequence[Fraction]) -> list[Point]:
    """The pre-activations of every layer at one rational point."""
    values = []
    h = tuple(point)
    for layer in layers:
        g = tuple(
            (sum((w * x for w, x in zip(row, h, strict=True)), Fraction(0)) + b) / layer.scale
            for row, b in zip(layer.weight, layer.bias, strict=True)
        )
        values.append(g)
        h = tuple(max(value, Fraction(0)) for value in g) if layer.relu else g
    return values


def outputs(layers: Sequence[ExactLayer], point: Sequence[Fraction]) -> Point:
    """The outputs at one rational point."""
    last = preactivations(layers, point)[-1]
    return tuple(max(value, Fraction(0)) for value in last) if layers[-1].relu else last
