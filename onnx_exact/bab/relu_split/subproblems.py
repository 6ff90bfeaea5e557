"""Upper bounds on one functional where the signs of some units are assumed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bab.question import in_bytes
from onnx_exact.bounds.alpha_crown import Optimized, optimize
from onnx_exact.bounds.cases import SLOPE_STEPS, Cases, better_start, bounds_of, default_cases
from onnx_exact.bounds.crown import Relaxation, Signs
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box


class Functional:
    """One functional of the output of the last of some layers.

    Attributes:
        free: the units whose lower slope is a choice, numbered through all layers.

    Args:
        row: the functional, one row.
        below: the relaxations of the layers, first to last, at least one.
        box: the domain, finite.
    """

    def __init__(self, row: Affine, below: Sequence[Relaxation], box: Box) -> None:
        self._row, self._below, self._box = row, below, box
        self.free = np.flatnonzero(np.concatenate([r.unstable for r in below]))
        self._starts = np.cumsum([r.affine.n_out for r in below])[:-1]

    def fresh(self, signs: Sequence[Signs]) -> Cases:
        """Cases with the slopes of the relaxations and without multipliers."""
        return default_cases(self._below, len(signs[0]), signs)

    def root(self) -> Cases:
        """One case without assumptions, with the better slopes of those to start from."""
        nothing = [np.zeros((1, r.affine.n_out), dtype=np.int8) for r in self._below]
        return better_start(self._row, self._below, self._box, nothing)

    def given(
        self,
        signs: Signs,
        slopes: tuple[NDArray[np.intp], NDArray[np.uint8]],
        multipliers: Array,
    ) -> Cases:
        """Cases with what has been kept of them.

        Args:
            signs, multipliers: as in `Cases`, of all layers side by side.
            slopes: units that have one, and theirs, as in `trees.Leaves`.
        """
        flat = np.tile(np.concatenate([r.lower_slope for r in self._below]), (len(signs), 1))
        flat[:, slopes[0]] = slopes[1] / SLOPE_STEPS
        given = (np.split(v, self._starts, axis=1) for v in (signs, flat, multipliers))
        return Cases(*(tuple(layers) for layers in given))

    def kept(self, cases: Cases) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Slopes of the free units and multipliers of all, of all layers side by side."""
        multipliers = np.concatenate(cases.multipliers, axis=1)
        return in_bytes(cases)[:, self.free], multipliers.astype(np.float32)

    def improve(self, cases: Cases, steps: int) -> Optimized:
        """The best bounds within some steps, starting with what the cases bring along."""
        return optimize(self._row, self._below, self._box, steps, cases)

    def bounds(self, cases: Cases) -> Array:
        """Sound upper bounds with the slopes and multipliers at hand, shape (cases,)."""
        return bounds_of(self._row, self._below, self._box, cases)[0]

    def values(self, points: Array) -> Array:
        """The functional at points, shape (points, inputs); not rounded with care."""
        h = points[:, self._below[0].read]
        for layer in self._below:
            g = layer.core.apply(h)
            h = np.where(layer.unstable[layer.live], np.maximum(g, 0.0), g)
        return self._row.reading(self._below[-1].live).apply(h)[:, 0]
