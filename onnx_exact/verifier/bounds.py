"""Bounds on pre-activations: intervals, and linear functionals taken back to the input.

For g in [l, u], any A, and *any* number T,

    A relu(g) <= T g + t,    t = max(0, (A - T) max(u, 0), -T min(l, 0)),

because A relu(g) - T g is linear on either side of 0. So the slopes and multipliers that a
certificate proposes need not be trusted: they choose T, and t follows. A unit whose sign is fixed
in a branch has l or u at 0. (The bound itself is CROWN's, Zhang et al. 2018; slopes that differ
from row to row are alpha-CROWN's, multipliers beta-CROWN's, Xu et al. and Wang et al. 2021.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onnx_exact.verifier.chain import Layer
from onnx_exact.verifier.products import Products
from onnx_exact.verifier.rounding import (
    Array,
    Flags,
    Units,
    add_up,
    maximum,
    mul_up,
    sum_of_products,
    sum_up,
)

# A float64 sum this small in comparison with its terms may be 0 but for rounding.
TIE = 1e-11


@dataclass(frozen=True, eq=False)
class Ranges:
    """Bounds on the pre-activations of the first layers over a box, and on its entries.

    Attributes:
        lower, upper: one array a layer.
        box: lower and upper sides.
        relu: which layers have a ReLU.
    """

    lower: list[Array]
    upper: list[Array]
    box: tuple[Array, Array]
    relu: Sequence[bool]

    def outputs(self, k: int) -> tuple[Array, Array]:
        """Bounds on the outputs of layer k; the box for k = -1."""
        if k < 0:
            return self.box
        low, high = self.lower[k], self.upper[k]
        return (np.maximum(low, 0.0), np.maximum(high, 0.0)) if self.relu[k] else (low, high)

    def magnitude(self, k: int) -> Array:
        """An upper bound on the magnitudes of the outputs of layer k."""
        return np.maximum(*map(np.abs, self.outputs(k)))

    def linear(self, k: int) -> Flags:
        """Which units of layer k are their pre-activation over the box."""
        return np.asarray((self.lower[k] >= 0.0) | (not self.relu[k]))

    def inactive(self, k: int) -> Flags:
        """Which units of layer k are 0 over the box."""
        return np.asarray((self.upper[k] <= 0.0) & self.relu[k])


@dataclass(frozen=True, eq=False)
class Branch:
    """What a leaf or a record chooses for one layer, in shapes that broadcast against A.

    Attributes:
        slope: below 0, in place of the default.
        extra: added to T (signed multipliers).
    """

    slope: Array | None = None
    extra: Array | None = None


class Level(Protocol):
    """Where functionals are on their way back to the input."""

    def bound(self, rows: Array, bias: Array) -> Array:
        """Upper bounds on rows h + bias by what is known of h here, inf for none."""
        ...

    def step(self, rows: Array) -> tuple[Array, Array]:
        """R and r with rows h <= R h' + r, h' what the level below has."""
        ...


def backward(levels: Sequence[Level], rows: Array, bias: Array) -> Array:
    """Upper bounds on rows h + bias: the least of what every level gives on the way back.

    Args:
        levels: from the outputs h down to the input; the last has no level below.
        rows, bias: shapes (..., rows, units) and (..., rows).
    """
    best = np.full(bias.shape, np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        for level in levels[:-1]:
            best = np.fmin(best, level.bound(rows, bias))
            rows, more = level.step(rows)
            bias = add_up(bias, more)
        return np.asarray(np.fmin(best, levels[-1].bound(rows, bias)))


@dataclass(frozen=True, eq=False)
class ChainLevel:
    """The outputs of layer k of a chain; those of layer -1 are its input."""

    products: Products
    ranges: Ranges
    k: int
    branch: Branch

    def bound(self, rows: Array, bias: Array) -> Array:
        """By intervals."""
        return maximum(rows, bias, *self.ranges.outputs(self.k))

    def step(self, rows: Array) -> tuple[Array, Array]:
        """Through the ReLUs and the weights."""
        through, offset = _relaxed(rows, self.ranges, self.k, self.branch)
        below = self.ranges.outputs(self.k - 1)
        rows, more = self.products.pull_back(self.k, through, *below)
        return rows, add_up(offset, more)


def upper_bounds(
    rows: Array,
    bias: Array,
    ranges: Ranges,
    products: Products,
    branches: Sequence[Branch] | None = None,
) -> Array:
    """Upper bounds on rows h + bias, h the outputs of the last layer of `ranges`.

    Args:
        rows, bias: shapes (..., rows, units) and (..., rows); for a tree of ReLUs (leaves, units)
            and (leaves,), with ranges of shape (leaves, units).
        ranges: of the layers below, which broadcast against `rows`.
        products: of the chain.
        branches: one a layer.
    """
    chosen = [Branch()] * len(ranges.lower) if branches is None else branches
    levels = [ChainLevel(products, ranges, k, b) for k, b in enumerate([Branch(), *chosen], -1)]
    return backward(levels[::-1], rows, bias)


def tighten(
    lower: Array,
    upper: Array,
    units: Units,
    positive: bool,
    branches: Sequence[Branch] | None,
    products: Products,
    ranges: Ranges,
) -> None:
    """Improves the upper bounds of units of the next layer in place, or their lower bounds.

    Args:
        lower, upper: shape (units,), or (boxes, units).
        units: which ones; a unit may be there several times.
        positive: whether the upper ones.
        branches: as for `upper_bounds`.
        products, ranges: of the chain, and of the layers before.
    """
    layer = products.layers[len(ranges.lower)]
    sign = 1.0 if positive else -1.0
    weight, bias = sign * layer.weight[units], sign * layer.bias[units]
    found = upper_bounds(weight, bias, ranges, products, branches)
    off = layer.off(ranges.magnitude(len(ranges.lower) - 1))[..., units]
    found = sign * add_up(found, off.reshape(found.shape))
    (np.fmin if positive else np.fmax).at((upper if positive else lower).T, units, found.T)


def _relaxed(weight: Array, ranges: Ranges, k: int, branch: Branch) -> tuple[Array, Array]:
    """T, and the sum of t, for one layer."""
    lower, upper = ranges.lower[k], ranges.upper[k]
    if not ranges.relu[k]:
        return weight, np.zeros(weight.shape[:-1])
    mixed = (lower < 0.0) & (upper > 0.0)
    steep = np.where(mixed, upper / np.where(mixed, upper - lower, 1.0), upper > 0.0)
    flat = (upper > -lower) if branch.slope is None else branch.slope
    flat = np.where(mixed, flat, steep)
    through = weight * np.where(weight > 0.0, steep, flat)
    if branch.extra is not None:
        through = through + branch.extra
        mixed = mixed | (branch.extra != 0.0)
    # For all others T is A or 0 as it should be, and t is 0.
    used = mixed.reshape(-1, mixed.shape[-1]).any(axis=0)
    a, t = weight[..., used], through[..., used]
    above = mul_up(add_up(a, -t), np.maximum(upper[..., used], 0.0))
    below = mul_up(-t, np.minimum(lower[..., used], 0.0))
    return through, sum_up(np.maximum(np.maximum(above, below), 0.0))


def intervals(layer: Layer, low: Array, high: Array, exact: bool) -> tuple[Array, Array]:
    """Bounds on the pre-activations of a layer from those on its inputs.

    Args:
        layer: the layer.
        low, high: shape (inputs,), or (boxes, 1, inputs).
        exact: settle without rounding what is within its rounding of 0; for a single box.
    """
    sides = []
    for sign in (-1.0, 1.0):
        weight, bias = sign * layer.weight, sign * layer.bias
        # Broadcast over boxes where there are many.
        value = maximum(weight, bias, low, high)
        if exact:
            reach = maximum(
                np.abs(weight), np.abs(bias), *[np.maximum(np.abs(low), np.abs(high))] * 2
            )
            close = np.flatnonzero((value > 0.0) & (value <= TIE * reach) & np.isfinite(reach))
            for i in close:
                ends = np.where(weight[i] > 0.0, high, low)
                value[i] = np.fmin(value[i], sum_of_products(weight[i], ends, float(bias[i])))
        sides.append(add_up(value, _attained(layer, weight, low, high).reshape(value.shape)))
    return -sides[0], sides[1]


def _attained(layer: Layer, weight: Array, low: Array, high: Array) -> Array:
    """How far errors of the weights raise the maximum: by those of the ends where it is attained.

    |W - w| <= e and w > e mean that W is positive too, and W x is at most W u, x <= u.
    """
    if layer.weight_error is None or layer.bias_error is None or low.ndim > 1:
        return layer.off(np.maximum(np.abs(low), np.abs(high)))
    sure = np.abs(weight) > layer.weight_error
    ends = np.abs(np.where(weight > 0.0, high, low))
    size = np.where(sure, ends, np.maximum(np.abs(low), np.abs(high)))
    return sum_up(np.column_stack([mul_up(layer.weight_error, size), layer.bias_error]))
