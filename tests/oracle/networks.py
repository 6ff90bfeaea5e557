"""Small random networks with the structure that reductions look for.

What is random comes from a `Source`, so that seeded generators and hypothesis build the same kinds
of networks. Everything is a float32 number; in the dyadic family sums and products are exact, which
makes ties (a pre-activation whose maximum is exactly 0) common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from onnx_exact.network import Affine, Box, Chain, Layer
from onnx_exact.network.affine import Array
from tests.oracle.regions import enumerate_regions

T = TypeVar("T")

MAX_INPUTS, MAX_HIDDEN, MAX_WIDTH, MAX_OUTPUTS = 3, 3, 6, 3
QUARTER = 0.25
TINY_SIDE = 2.0**-10

# The simplest come first: that is where shrinking ends. More often named, more often chosen.
UNITS = (
    *["ordinary"] * 6,
    "barely inactive",
    "barely active",
    "inactive",
    "active",
    "duplicate",
    "multiple",
    "dependent",
    "dead",
    "constant",
    "unread",
)
LAYERS = (
    *["ordinary"] * 10,
    *["mixed"] * 14,
    "active",
    "linear",
    "inactive",
    "zero",
)
BOXES = (*["unit", "symmetric", "asymmetric"] * 4, "degenerate", "degenerate", "tiny", "point")
MULTIPLES = (2.0, 0.5, 3.0, 1.25)


class Source(Protocol):
    """Where random choices come from."""

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high]."""

    def number(self) -> float:
        """A weight or a bias, of magnitude around 1."""

    def gap(self) -> float:
        """How far a shifted unit stays away from 0; not negative."""


class Normal:
    """Standard normal numbers; gaps are well beyond any solver's tolerance."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        return int(self._rng.integers(low, high, endpoint=True))

    def number(self) -> float:
        return float(np.float32(self._rng.standard_normal()))

    def gap(self) -> float:
        return float(10.0 ** self._rng.uniform(-4.0, 0.0))


class Dyadic:
    """Multiples of 1/4 in [-2, 2]; gaps are often exactly 0."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        return int(self._rng.integers(low, high, endpoint=True))

    def number(self) -> float:
        return QUARTER * self.integer(-8, 8)

    def gap(self) -> float:
        return QUARTER * self.integer(0, 2)


SOURCES: dict[str, type[Normal] | type[Dyadic]] = {"normal": Normal, "dyadic": Dyadic}


@dataclass(frozen=True, eq=False)
class Case:
    """A network, a domain, and what was put into the network, in words."""

    chain: Chain
    box: Box
    structure: str

    def __repr__(self) -> str:
        lines = [f"{self.structure}", f"box {self.box.lower.tolist()} {self.box.upper.tolist()}"]
        for layer in self.chain.layers:
            lines.append(f"  {'relu' if layer.relu else 'linear'}")
            rows = zip(layer.affine.entries.tolist(), layer.affine.bias.tolist(), strict=True)
            lines += [f"    {row} + {bias}" for row, bias in rows]
        return "\n".join(lines)


def random_case(family: str, seed: int) -> Case:
    """The network of a family ("normal", "dyadic") with that seed; the same every time."""
    return build(SOURCES[family](seed))


def build(source: Source) -> Case:
    """A random network with a random domain."""
    n_in = source.integer(2, MAX_INPUTS)
    box = _box(source, n_in)
    structure = [box.source]
    layers: list[Layer] = []
    low, high = box.lower, box.upper
    unread: list[int] = []
    for _ in range(source.integer(1, MAX_HIDDEN)):
        kind = _pick(source, LAYERS)
        units, affine = _hidden(source, kind, unread, low, high)
        affine = _shift_barely(source, units, layers, affine, box)
        layers.append(Layer(affine, kind != "linear"))
        low, high = _interval(affine, low, high)
        if kind != "linear":
            low, high = np.maximum(low, 0.0), np.maximum(high, 0.0)
        unread = [i for i, unit in enumerate(units) if unit == "unread"]
        structure.append(f"{kind}({', '.join(units)})")
    last = _random_affine(source, source.integer(1, MAX_OUTPUTS), low.size)
    relu_at_end = source.integer(0, 4) == 4
    layers.append(Layer(_without_columns(last, unread), relu_at_end))
    return Case(Chain(tuple(layers)), box, " ".join(structure))


def _pick(source: Source, options: Sequence[T]) -> T:
    return options[source.integer(0, len(options) - 1)]


def _box(source: Source, n: int) -> Box:
    kind = _pick(source, BOXES)
    low, high = np.zeros(n), np.ones(n)
    if kind != "unit":
        low = -high
    if kind in ("asymmetric", "degenerate", "tiny", "point"):
        low = np.array([source.number() for _ in range(n)])
        high = low + [QUARTER + abs(source.number()) for _ in range(n)]
    if kind == "tiny":
        high = low + TINY_SIDE
    if kind == "degenerate":
        high[source.integer(0, n - 1)] = np.inf
        high = np.where(np.isinf(high), low, high)
    if kind == "point":
        high = low
    return Box(low, high, kind)


def _hidden(
    source: Source, kind: str, unread: list[int], low: Array, high: Array
) -> tuple[list[str], Affine]:
    """The kinds of the units of a hidden layer, and its affine map."""
    width = max(source.integer(1, MAX_WIDTH), source.integer(1, MAX_WIDTH))
    units = [_pick(source, UNITS) if kind == "mixed" else "ordinary" for _ in range(width)]
    affine = _without_columns(_random_affine(source, width, low.size), unread)
    weight, bias = affine.entries.copy(), affine.bias.copy()
    if kind == "zero":
        weight[:] = 0.0
    for i, unit in enumerate(units):
        _shape(source, unit, i, weight, bias)
        wanted = kind if kind in ("active", "inactive") else unit
        wanted = "active" if unit == "dependent" and source.integer(0, 3) else wanted
        _shift(source, wanted, i, weight, bias, low, high)
    return units, _float32(weight, bias)


def _shape(source: Source, unit: str, i: int, weight: Array, bias: Array) -> None:
    """Makes row i what its kind says: a copy, a multiple or a sum of rows before it, or zero."""
    if unit in ("dead", "constant"):
        weight[i] = 0.0
        bias[i] = -abs(bias[i]) if unit == "dead" else abs(bias[i]) + QUARTER
    if i == 0 or unit not in ("duplicate", "multiple", "dependent"):
        return
    first, second = source.integer(0, i - 1), source.integer(0, i - 1)
    if unit == "dependent":
        weight[i] = weight[first] - weight[second] * _pick(source, MULTIPLES)
        return
    factor = _pick(source, MULTIPLES) if unit == "multiple" else 1.0
    weight[i], bias[i] = factor * weight[first], factor * bias[first]


def _shift(
    source: Source, wanted: str, i: int, weight: Array, bias: Array, low: Array, high: Array
) -> None:
    """Moves the bias so that the unit is stable by its interval."""
    if wanted not in ("active", "inactive"):
        return
    row = Affine(weight[i : i + 1], bias[i : i + 1])
    least, greatest = (float(v[0]) for v in _interval(row, low, high))
    bias[i] += source.gap() - least if wanted == "active" else -source.gap() - greatest


def _shift_barely(
    source: Source, units: list[str], before: list[Layer], affine: Affine, box: Box
) -> Affine:
    """Moves biases so that units are stable by their exact range, which intervals may not show."""
    places = [i for i, unit in enumerate(units) if unit.startswith("barely")]
    if not places:
        return affine
    ranges = enumerate_regions(Chain((*before, Layer(affine, False))), box).ranges[-1]
    bias = affine.bias.copy()
    for i in places:
        least, greatest = (float(v) for v in ranges[i])
        active = units[i] == "barely active"
        bias[i] += source.gap() - least if active else -source.gap() - greatest
    return _float32(affine.entries, bias)


def _random_affine(source: Source, n_out: int, n_in: int) -> Affine:
    weight = np.array([[source.number() for _ in range(n_in)] for _ in range(n_out)])
    return _float32(weight, np.array([source.number() for _ in range(n_out)]))


def _without_columns(affine: Affine, columns: list[int]) -> Affine:
    weight = affine.entries.copy()
    weight[:, columns] = 0.0
    return Affine(weight, affine.bias)


def _float32(weight: Array, bias: Array) -> Affine:
    return Affine(weight.astype(np.float32), bias.astype(np.float32))


def _interval(affine: Affine, low: Array, high: Array) -> tuple[Array, Array]:
    positive, negative = np.maximum(affine.entries, 0.0), np.minimum(affine.entries, 0.0)
    return (
        positive @ low + negative @ high + affine.bias,
        positive @ high + negative @ low + affine.bias,
    )
