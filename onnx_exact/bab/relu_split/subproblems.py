"""Upper bounds on one functional where the signs of some units are assumed.

A unit assumed to be g >= 0 or g <= 0 has a linear ReLU, and the assumption itself enters by a
multiplier beta (beta-CROWN, Wang et al. 2021):

    max A h + c  s.t. s_i g_i >= 0   <=   max A h + c + sum_i beta_i s_i g_i,      beta >= 0.

Lower slopes alpha and multipliers beta are improved for many sets of assumptions at once, on values
that are not rounded with care (`ascent`); the bounds that come out are those of
`crown.upper_bounds` with the best slopes and multipliers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bab.relu_split.beta_crown import Ascent
from onnx_exact.bounds.crown import Relaxation, upper_bounds
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box

Signs = NDArray[np.int8]


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
        losses: how much the relaxation of each unit seems to cost, one array a layer, (cases,
            units).
        points: worth running forward, shape (cases, inputs).
    """

    bounds: Array
    cases: Cases
    losses: list[Array]
    points: Array


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
        self._ascent = Ascent(row, below, box)

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
        live = [r.live for r in self._below]
        signs = [v[:, units] for v, units in zip(cases.signs, live, strict=True)]
        slopes, multipliers = (
            [v[:, units] for v, units in zip(values, live, strict=True)]
            for values in (cases.slopes, cases.multipliers)
        )
        found = self._ascent.run(signs, slopes, multipliers, steps)
        wide = [_widened(a, r) for a, r in zip(found.slopes, self._below, strict=True)]
        better = Cases(
            cases.signs,
            tuple(_fixed(a, s) for a, s in zip(wide, cases.signs, strict=True)),
            tuple(_widened(b, r) for b, r in zip(found.multipliers, self._below, strict=True)),
        )
        losses = [_widened(loss, r) for loss, r in zip(found.losses, self._below, strict=True)]
        points = self._box.clip(found.points.astype(np.float64))
        return Bounded(self.bounds(better), better, losses, points)

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


def _widened(values: NDArray[Any], layer: Relaxation) -> Array:
    """Values of live units in the places that they have among all units, 0 elsewhere."""
    full = np.zeros((len(values), layer.affine.n_out))
    full[:, layer.live] = values
    return full
