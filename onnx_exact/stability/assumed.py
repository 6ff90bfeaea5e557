"""Upper bounds on one functional where the signs of some units are assumed.

A unit assumed to be g >= 0 or g <= 0 has a linear ReLU, and the assumption itself enters by a
multiplier beta (beta-CROWN, Wang et al. 2021):

    max A h + c  s.t. s_i g_i >= 0   <=   max A h + c + sum_i beta_i s_i g_i,      beta >= 0.

Lower slopes alpha and multipliers beta are improved by subgradient steps, for many sets of
assumptions at once, on values that are not rounded with care; the bounds that come out are those of
`crown.upper_bounds` with the best slopes and multipliers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box
from onnx_exact.stability.crown import Relaxation, upper_bounds

Signs = NDArray[np.int8]

SLOPE_STEP = 0.3
MULTIPLIER_STEP = 1.0
STEP_DECAY = 0.85


@dataclass(frozen=True, eq=False)
class Cases:
    """Sets of assumptions, and slopes and multipliers for each; one array a layer, (cases, units).

    Attributes:
        signs: 1 for g >= 0, -1 for g <= 0, 0 for no assumption.
        slopes: lower slopes.
        multipliers: of signs * g, >= 0.
    """

    signs: tuple[Signs, ...]
    slopes: tuple[Array, ...]
    multipliers: tuple[Array, ...]

    def __len__(self) -> int:
        """Number of sets of assumptions."""
        return len(self.signs[0])

    def rows(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Cases:
        """Some of them."""
        return Cases(
            tuple(s[index] for s in self.signs),
            tuple(a[index] for a in self.slopes),
            tuple(b[index] for b in self.multipliers),
        )

    @property
    def signed(self) -> list[Array]:
        """What each g is multiplied with."""
        return [b * s for b, s in zip(self.multipliers, self.signs, strict=True)]


def joined(parts: Sequence[Cases]) -> Cases:
    """All cases of the parts, at least one, in their order."""
    return Cases(
        tuple(np.concatenate(layer) for layer in zip(*(p.signs for p in parts), strict=True)),
        tuple(np.concatenate(layer) for layer in zip(*(p.slopes for p in parts), strict=True)),
        tuple(np.concatenate(layer) for layer in zip(*(p.multipliers for p in parts), strict=True)),
    )


@dataclass(frozen=True, eq=False)
class Bounded:
    """What a functional is at most.

    Attributes:
        bounds: sound upper bounds under the assumptions, shape (cases,).
        cases: with the slopes and multipliers that attain them.
        losses: how much the relaxation of each unit costs, one array a layer, (cases, units).
        points: the maximiser of each linear bound over the box, shape (cases, inputs).
    """

    bounds: Array
    cases: Cases
    losses: list[Array]
    points: Array

    def rows(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Bounded:
        """Some of the cases."""
        losses = [loss[index] for loss in self.losses]
        return Bounded(self.bounds[index], self.cases.rows(index), losses, self.points[index])


class Functional:
    """One functional of the output of the last of some layers.

    Args:
        row: the functional, one row.
        below: the relaxations of the layers, first to last, at least one.
        box: the domain, finite.
    """

    def __init__(self, row: Affine, below: Sequence[Relaxation], box: Box) -> None:
        self._row, self._below, self._box = row, below, box
        self._relu = [(r.upper_slope > 0.0) & (r.upper_slope < 1.0) for r in below]

    def fresh(self, signs: Sequence[Signs]) -> Cases:
        """Cases with the slopes of the relaxations and without multipliers."""
        slopes = [np.tile(r.lower_slope, (len(signs[0]), 1)) for r in self._below]
        return Cases(
            tuple(signs),
            tuple(_fixed(a, s) for a, s in zip(slopes, signs, strict=True)),
            tuple(np.zeros(s.shape) for s in signs),
        )

    def improve(self, cases: Cases, steps: int) -> Bounded:
        """The best bounds within some steps, starting with what the cases bring along."""
        layers = self.relaxations(cases.signs)
        slopes = [_fixed(a, s) for a, s in zip(cases.slopes, cases.signs, strict=True)]
        betas = list(cases.multipliers)
        cases = Cases(cases.signs, tuple(slopes), tuple(betas))
        best, kept = np.full(len(cases), np.inf), cases
        decay = 1.0
        for step in range(steps + 1):
            now = Cases(cases.signs, tuple(slopes), tuple(betas))
            value, coefficients, through, point = self._backward(layers, now)
            better = value < best
            best = np.where(better, value, best)
            kept = _choose(better, now, kept)
            if step == steps or (best <= 0.0).all():
                break
            forward = self._forward(layers, slopes, coefficients, point)
            for k, g in enumerate(forward):
                sign = cases.signs[k]
                free = self._relu[k] & (sign == 0)
                gradient = np.where(free, np.minimum(coefficients[k + 1], 0.0) * g, 0.0)
                slopes[k] = np.clip(slopes[k] - decay * SLOPE_STEP * _scaled(gradient), 0.0, 1.0)
                # A step for beta is a share of the coefficient that it has to make up for.
                size = np.abs(through[k]).max(axis=-1, keepdims=True)
                descent = _scaled(np.where(sign != 0, sign * g, 0.0))
                betas[k] = np.maximum(betas[k] - decay * MULTIPLIER_STEP * size * descent, 0.0)
            decay *= STEP_DECAY
        _, coefficients, _, point = self._backward(layers, kept)
        losses = self._losses(layers, cases.signs, coefficients)
        return Bounded(self.bounds(kept, layers), kept, losses, point)

    def bounds(self, cases: Cases, layers: list[Relaxation] | None = None) -> Array:
        """Sound upper bounds with the slopes and multipliers at hand, shape (cases,)."""
        layers = layers or self.relaxations(cases.signs)
        box = Box(self._box.lower[None, :], self._box.upper[None, :])
        slopes = [a[:, None] for a in cases.slopes]
        multipliers = [b[:, None] for b in cases.signed]
        return upper_bounds(self._row, layers, box, slopes, multipliers)[0][:, 0]

    def values(self, points: Array) -> Array:
        """The functional at points, shape (points, inputs); not rounded with care."""
        h = points
        for layer, unstable in zip(self._below, self._relu, strict=True):
            g = layer.apply(h)
            h = np.where(unstable, np.maximum(g, 0.0), np.where(layer.upper_slope == 1.0, g, 0.0))
        return self._row.apply(h)[:, 0]

    def relaxations(self, signs: Sequence[Signs]) -> list[Relaxation]:
        """The relaxations of the layers under each set of assumptions, shape (cases, units)."""
        return [_under(base, sign) for base, sign in zip(self._below, signs, strict=True)]

    def _backward(
        self, layers: list[Relaxation], cases: Cases
    ) -> tuple[Array, list[Array], list[Array], Array]:
        """Values, coefficients on x, h^1, ... and on g^1, ..., and the maximisers over the box."""
        coefficients = [np.broadcast_to(self._row.weight, (len(cases), self._row.n_in))]
        constant = np.full(len(cases), self._row.bias[0])
        throughs = []
        for layer, slope, extra in zip(
            reversed(layers), reversed(cases.slopes), reversed(cases.signed), strict=True
        ):
            positive, negative = np.maximum(coefficients[-1], 0), np.minimum(coefficients[-1], 0)
            through = positive * layer.upper_slope + negative * slope + extra
            throughs.append(through)
            constant = constant + (positive * layer.upper_offset).sum(axis=-1)
            constant = constant + through @ layer.affine.bias
            coefficients.append(layer.pull_back(through))
        point = np.where(coefficients[-1] > 0.0, self._box.upper, self._box.lower)
        value = constant + (coefficients[-1] * point).sum(axis=-1)
        return value, coefficients[::-1], throughs[::-1], point

    @staticmethod
    def _forward(
        layers: list[Relaxation], slopes: list[Array], coefficients: list[Array], point: Array
    ) -> list[Array]:
        """Pre-activations of the relaxed network at the maximisers, shape (cases, units)."""
        values = []
        for k, layer in enumerate(layers):
            value = layer.apply(point)
            values.append(value)
            above = layer.upper_slope * value + layer.upper_offset
            point = np.where(coefficients[k + 1] > 0.0, above, slopes[k] * value)
        return values

    def _losses(
        self, layers: list[Relaxation], signs: Sequence[Signs], coefficients: list[Array]
    ) -> list[Array]:
        """How much the relaxation of each unit without assumption loses; above 0 for each."""
        return [
            np.where(
                self._relu[k] & (signs[k] == 0),
                np.abs(coefficients[k + 1]) * layer.upper_offset + np.finfo(float).tiny,
                0.0,
            )
            for k, layer in enumerate(layers)
        ]


def _under(base: Relaxation, signs: Signs) -> Relaxation:
    """A relaxation of one box where signs are assumed, shape (cases, units)."""
    on, off = signs == 1, signs == -1
    slope = np.where(on, 1.0, np.where(off, 0.0, base.upper_slope))
    return replace(
        base,
        upper_slope=slope,
        upper_offset=np.where(signs != 0, 0.0, base.upper_offset),
        lower_slope=np.where(signs != 0, slope, base.lower_slope),
        low=np.where(off, 0.0, base.low),
        high=np.where(off, 0.0, base.high),
    )


def _fixed(slopes: Array, signs: Signs) -> Array:
    """Slopes of which those of units with an assumption are what the ReLU is there."""
    return np.where(signs == 1, 1.0, np.where(signs == -1, 0.0, slopes))


def _choose(first: NDArray[np.bool_], one: Cases, other: Cases) -> Cases:
    """The cases of `one` where `first`, of `other` elsewhere."""
    at = first[:, None]
    return Cases(
        one.signs,
        tuple(np.where(at, a, b) for a, b in zip(one.slopes, other.slopes, strict=True)),
        tuple(np.where(at, a, b) for a, b in zip(one.multipliers, other.multipliers, strict=True)),
    )


def _scaled(gradient: Array) -> Array:
    """The gradient with its largest entry of each case scaled to 1."""
    scale = np.abs(gradient).max(axis=-1, keepdims=True)
    return np.asarray(gradient / np.where(scale > 0.0, scale, 1.0))
