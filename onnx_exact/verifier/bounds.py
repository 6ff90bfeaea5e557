"""Bounds on pre-activations: intervals, and linear functionals pulled back to the input.

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
from onnx_exact.verifier.rounding import (
    Array,
    add_up,
    exact_maximum,
    maximum,
    mul_up,
    outward,
    sum_up,
)

# A float64 sum this small in comparison with its terms may be 0 but for rounding.
TIE = 1e-11


class Arithmetic(Protocol):
    """How products of matrices are enclosed."""

    layers: tuple[Layer, ...]

    def pull_back(self, k: int, through: Array, low: Array, high: Array) -> tuple[Array, ...]:
        """A, ..., and an upper bound on T (W h + b) - A h; see `balls` and `batches`."""
        ...


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
    relu: tuple[bool, ...]

    def outputs(self, k: int) -> tuple[Array, Array]:
        """Bounds on the outputs of layer k; the box for k = -1."""
        if k < 0:
            return self.box
        low, high = self.lower[k], self.upper[k]
        return (np.maximum(low, 0.0), np.maximum(high, 0.0)) if self.relu[k] else (low, high)

    def magnitude(self, k: int) -> Array:
        """An upper bound on the magnitudes of the outputs of layer k."""
        low, high = self.outputs(k)
        return np.maximum(np.abs(low), np.abs(high))


@dataclass(frozen=True, eq=False)
class Branch:
    """What a leaf or a record chooses for one layer, in shapes that broadcast against A.

    Attributes:
        slope: below 0, in place of the default.
        extra: added to T (signed multipliers).
    """

    slope: Array | None = None
    extra: Array | None = None


def upper_bounds(
    weight: Array,
    bias: Array,
    ranges: Ranges,
    arithmetic: Arithmetic,
    branches: Sequence[Branch] | None = None,
) -> Array:
    """Upper bounds on weight h + bias, h the outputs of the last layer of `ranges`.

    The least of what the intervals of every layer on the way down give.

    Args:
        weight, bias: shapes (..., rows, units) and (..., rows); for a tree of ReLUs (leaves, units)
            and (leaves,), with ranges of shape (leaves, units).
        ranges: of the layers below, which broadcast against `weight`.
        arithmetic: of the chain.
        branches: one a layer.
    """
    best = np.full(bias.shape, np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(len(ranges.lower) - 1, -1, -1):
            best = np.fmin(best, maximum(weight, bias, *ranges.outputs(k)))
            branch = Branch() if branches is None else branches[k]
            through, offset = _relaxed(weight, ranges, k, branch)
            weight, *_, left = arithmetic.pull_back(k, through, *ranges.outputs(k - 1))
            bias = add_up(add_up(bias, offset), left)
        return np.asarray(np.fmin(best, maximum(weight, bias, *ranges.box)))


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
        exact: settle in rationals what is within its rounding of 0; for a single box.
    """
    off = layer.off(np.maximum(np.abs(low), np.abs(high)))
    sides = []
    for sign in (-1.0, 1.0):
        weight, bias = sign * layer.weight, sign * layer.bias
        # Broadcast over boxes where there are many.
        value = maximum(weight, bias, low, high)
        if exact and layer.weight_error is None:
            reach = maximum(
                np.abs(weight), np.abs(bias), *[np.maximum(np.abs(low), np.abs(high))] * 2
            )
            close = np.flatnonzero((value > 0.0) & (value <= TIE * reach) & np.isfinite(reach))
            for i in close:
                value[i] = outward(exact_maximum(weight[i], float(bias[i]), low, high), up=True)
        sides.append(add_up(value, off.reshape(value.shape)))
    return -sides[0], sides[1]
