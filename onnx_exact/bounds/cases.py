"""Sets of assumptions on signs with slopes and multipliers, and the bounds that these give.

A unit assumed to be g >= 0 or g <= 0 has a linear ReLU, and the assumption itself enters by a
multiplier beta (beta-CROWN, Wang et al. 2021):

    max A h + c  s.t. s_i g_i >= 0   <=   max A h + c + sum_i beta_i s_i g_i,      beta >= 0.

Slopes and multipliers that are whole multiples of 1 / `SLOPE_STEPS` and numbers of float32 can be
kept in few bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bounds.crown import Functionals, Lines, Relaxation, Signs, backward, flat_slopes
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box

# Slopes are whole multiples of 1 / SLOPE_STEPS.
SLOPE_STEPS = 255


@dataclass(frozen=True, eq=False)
class Cases:
    """Sets of assumptions, and slopes and multipliers for each; one array a layer, (cases, units).

    Attributes:
        signs: 1 for g >= 0, -1 for g <= 0, 0 for no assumption; empty where there is none at all.
        slopes: lower slopes; those of units without a choice of slopes do not count.
        multipliers: of signs * g, >= 0; empty where `signs` is.
    """

    signs: tuple[Signs, ...]
    slopes: tuple[Array, ...]
    multipliers: tuple[Array, ...]

    def __len__(self) -> int:
        """Number of cases."""
        return len(self.slopes[0])

    def rows(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Cases:
        """Some of the cases."""
        return Cases(
            tuple(s[index] for s in self.signs),
            tuple(a[index] for a in self.slopes),
            tuple(b[index] for b in self.multipliers),
        )

    def rounded(self) -> Cases:
        """The cases with slopes and multipliers as they can be kept."""
        with np.errstate(over="ignore"):
            return Cases(
                self.signs,
                tuple(np.rint(a * SLOPE_STEPS) / SLOPE_STEPS for a in self.slopes),
                tuple(b.astype(np.float32).astype(np.float64) for b in self.multipliers),
            )


def default_cases(layers: Sequence[Relaxation], count: int, signs: Sequence[Signs] = ()) -> Cases:
    """Cases with the slopes that the relaxations bring along, and no multipliers.

    Args:
        layers: the relaxations.
        count: of cases; relaxations of several boxes have one for each.
        signs: what is assumed.
    """
    slopes = (np.broadcast_to(r.lower_slope, (count, r.affine.n_out)) for r in layers)
    return Cases(tuple(signs), tuple(slopes), tuple(np.zeros(s.shape) for s in signs))


def better_start(
    rows: Affine, layers: Sequence[Relaxation], box: Box, signs: Sequence[Signs] = ()
) -> Cases:
    """One case for each functional: with default slopes or with slopes of 0, whichever is better.

    From there optimising goes further in the same number of steps.
    """
    plain = default_cases(layers, rows.n_out, signs)
    pairs = zip(flat_slopes(layers), plain.slopes, strict=True)
    flat = replace(plain, slopes=tuple(np.broadcast_to(a, b.shape) for a, b in pairs))
    bounds, others = (bounds_of(rows, layers, box, cases)[0] for cases in (plain, flat))
    better, both = (others < bounds)[:, None], zip(flat.slopes, plain.slopes, strict=True)
    return replace(plain, slopes=tuple(np.where(better, a, b) for a, b in both))


def joined(parts: Sequence[Cases]) -> Cases:
    """All cases of the parts, at least one, in their order."""
    return Cases(
        tuple(np.concatenate(layer) for layer in zip(*(p.signs for p in parts), strict=True)),
        tuple(np.concatenate(layer) for layer in zip(*(p.slopes for p in parts), strict=True)),
        tuple(np.concatenate(layer) for layer in zip(*(p.multipliers for p in parts), strict=True)),
    )


@dataclass(frozen=True, eq=False)
class Assumed:
    """Signs and multipliers of the live units of a layer, shape (cases, 1, units)."""

    signs: Signs
    multipliers: Array


@dataclass(frozen=True, eq=False)
class Passage:
    """A layer as it is for each case: live units alone.

    Attributes:
        lines: under the assumptions.
        free: units with a choice of slopes, shape (cases, 1, units), or (1, 1, units) for all.
        slopes: lower slopes, 0 or 1 where there is no choice; shape (cases, 1, units).
        assumed: None where nothing is.
    """

    lines: Lines
    free: NDArray[np.bool_]
    slopes: Array
    assumed: Assumed | None


def passages(layers: Sequence[Relaxation], cases: Cases) -> list[Passage]:
    """The layers, first to last."""
    found = []
    for k, layer in enumerate(layers):
        lines, assumed = layer.lines, None
        free = layer.unstable.reshape(-1, 1, layer.affine.n_out)[..., layer.live]
        if cases.signs:
            signs = cases.signs[k][:, None, layer.live]
            multipliers = cases.multipliers[k][:, None, layer.live]
            assumed = Assumed(signs, np.where(signs == 0, 0.0, multipliers))
            lines, free = lines.assuming(signs[:, 0]), free & (signs == 0)
        slopes = np.where(free, cases.slopes[k][:, None, layer.live], lines.lower)
        found.append(Passage(lines, free, slopes, assumed))
    return found


def bounds_of(
    rows: Affine, layers: Sequence[Relaxation], box: Box, cases: Cases
) -> tuple[Array, Array]:
    """Sound upper bounds with the slopes and multipliers of cases.

    Args:
        rows, layers, box: as for `onnx_exact.bounds.alpha_crown.optimize`.
        cases: as they are.

    Returns:
        The bounds, shape (cases,), and the coefficients of the last functionals of the input,
        shape (cases, inputs).
    """
    ways = passages(layers, cases)
    lines, read = [way.lines for way in ways], layers[0].read
    if not cases.signs and box.lower.ndim == 1:
        # Cases that share their lines are rows of one functional.
        start = Functionals.of(rows, layers, box)
        return backward(start, lines, read, box, [way.slopes[:, 0] for way in ways])
    assumed = [way.assumed for way in ways if way.assumed is not None]
    multipliers = [a.multipliers * a.signs for a in assumed] or None
    boxes = Box(np.atleast_2d(box.lower), np.atleast_2d(box.upper))
    slopes, pairs = [way.slopes for way in ways], Functionals.paired(rows, layers)
    bounds, coefficients = backward(pairs, lines, read, boxes, slopes, multipliers)
    return bounds[:, 0], coefficients[:, 0]
