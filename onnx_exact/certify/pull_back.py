"""Functionals of a layer's outputs as functionals of its inputs, and what that rounds off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.operator import entries_by_blocks
from onnx_exact.network.rounding import (
    SMALLEST,
    SMALLEST_NORMAL,
    gamma,
    slack,
    smallest_nonzero,
    total_terms,
)
from onnx_exact.reduce.budget import reach


@dataclass(frozen=True, eq=False)
class Rows:
    """Functionals weight h + bias of a layer's output, one a row."""

    weight: Array
    bias: Array


@dataclass(frozen=True, eq=False)
class SizedLayer:
    """An affine map, and how large what it adds up can be.

    Attributes:
        terms: an upper bound on the sum of absolute terms of each output.
        off: an upper bound on what each output is off by for the numbers being off.
        total: an upper bound on the sum of the magnitudes of the inputs.
    """

    affine: Affine
    terms: Array
    off: Array
    total: float

    @staticmethod
    def of(affine: Affine, size: Array) -> SizedLayer:
        """The map where inputs have at most the magnitudes `size`."""
        terms = (reach(affine.linear, size) + np.abs(affine.bias)) * (1.0 + gamma(affine.n_in))
        reading = affine.read_by_rows(np.ones(affine.n_in, dtype=np.bool_))
        terms = np.where(reading, terms + 2 * affine.n_in * SMALLEST, terms)
        return SizedLayer(affine, terms, affine.off(size), float(size.sum()))

    def back(self, weight: Array, bias: Array, cost: Array) -> tuple[Array, Rows]:
        """weight (W h + b) + bias as a functional of h, and `cost` with what that rounds off."""
        read = np.flatnonzero(weight.any(axis=0))
        if not read.size:
            return cost, Rows(np.zeros((len(weight), self.affine.n_in)), bias)
        part, terms = self.affine.rows(read), self.terms[read]
        weight = weight[:, read]
        n = part.n_in + part.n_out
        smallest = min(
            smallest_nonzero(np.append(part.bias, terms)),
            *(smallest_nonzero(rows) for _, rows in entries_by_blocks(part.linear)),
        )
        underflow = 0.0
        if smallest_nonzero(weight) * smallest < SMALLEST_NORMAL:
            underflow = 2 * n * SMALLEST * (1.0 + self.total + float(terms.sum()))
        rounded = slack(total_terms(reach(weight, terms), bias, underflow), n, underflow)
        cost = cost + np.where(weight.any(axis=1), rounded, 0.0)
        cost = cost + reach(weight, self.off[read])
        return cost * (1.0 + gamma(n)), Rows(
            part.linear.pull_back(weight), bias + weight @ part.bias
        )
