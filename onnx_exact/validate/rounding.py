"""What rounding was seen to do to a chain, and what it is therefore expected to do to another."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnx_exact.network.affine import Array
from onnx_exact.validate.forward import FLOAT64

# What new and old may differ by, in units of the old chain's own rounding error: see
# docs/guarantees.md for what was measured.
ROUNDING_MULTIPLE = 8.0
# The same in units of the last place of an output's largest value, for outputs that happen to be
# rounded off by nothing.
LAST_PLACES = 8.0
# What nodes that were read as one layer may round off in float64, in units of what they were seen
# to in their own type times the ratio of the two precisions (2^-29 for float32): 1 but for chance.
FOLDED_MULTIPLE = 1024.0


class SeenRounding:
    """The rounding of a chain at some points, at most, each of shape (outputs,).

    Attributes:
        errors: what the chain is off from its own float64 value.
        bounds: what the running error analysis allows.
        sizes: magnitudes of its values.
    """

    def __init__(self, width: int, dtype: np.dtype[np.floating[Any]], folded: bool) -> None:
        """Starts with nothing seen.

        Args:
            width: number of outputs.
            dtype: of the chain.
            folded: whether nodes were read as one layer that a runtime rounds between.
        """
        self.errors, self.bounds, self.sizes = (np.zeros(width) for _ in range(3))
        self._dtype, self._folded = dtype, folded
        self._new_bounds = np.zeros(width)

    def add(self, errors: Array, bounds: Array, new_bounds: Array, sizes: Array) -> None:
        """Takes in what was seen at more points; `new_bounds` are those of the new chain."""
        # More than that would be another chain, not rounding.
        errors = errors if self._folded else np.minimum(errors, bounds)
        self.errors = np.maximum(self.errors, errors)
        self.bounds = np.maximum(self.bounds, bounds)
        self._new_bounds = np.maximum(self._new_bounds, new_bounds)
        self.sizes = np.maximum(self.sizes, sizes)

    @property
    def _likely(self) -> Array:
        """What it may do to each output at other points.

        Of what the running error analysis allows it for an output, rounding does at most the share
        that it was seen to do of any: outputs may be of any size, and a single one may by chance,
        or as the sum of few terms, have been rounded off by nothing.
        """
        known = (self.bounds > 0.0) & np.isfinite(self.bounds)
        share = (self.errors[known] / self.bounds[known]).max(initial=0.0)
        return np.asarray(np.maximum(self.errors, share * np.where(known, self.bounds, 0.0)))

    @property
    def expected(self) -> Array:
        """What it is expected to make two chains differ by at most.

        The float64 value of a float64 chain is rounded as much as what it would have to judge:
        there the analysis itself is what is expected, and in between nodes that were read as one
        what is seen on top of it.
        """
        if self._dtype == FLOAT64:
            between = ROUNDING_MULTIPLE * self.errors if self._folded else 0.0
            return np.asarray(self.bounds + self._new_bounds + between)
        last_place = float(np.finfo(self._dtype).eps) * self.sizes
        return np.asarray(ROUNDING_MULTIPLE * self._likely + LAST_PLACES * last_place)

    @property
    def between_nodes(self) -> Array:
        """What nodes that were read as one layer may round off in float64, beyond the layer."""
        if not self._folded:
            return np.zeros_like(self.errors)
        finer = float(np.finfo(np.float64).eps) / float(np.finfo(self._dtype).eps)
        return np.asarray(FOLDED_MULTIPLE * finer * self._likely)
