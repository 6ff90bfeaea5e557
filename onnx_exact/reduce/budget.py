"""What a rewrite may move a pre-activation by, and the record of what was refused.

The stored weights of a merged or folded layer are rounded to the model's dtype, with unit roundoff
u. A rewrite is admitted where that moves no pre-activation of the layer it changes by more than

    u (|V| H + |c|),

one rounding of the terms that the original layer V h + c adds up (H an upper bound on |h|): less
than what the model's own arithmetic may add in evaluating them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from onnx_exact.network.affine import Affine, Array

# float16, float32 or float64: what a model stores its weights in.
FloatType: TypeAlias = "np.dtype[np.floating[Any]]"


@dataclass(frozen=True)
class Refusal:
    """A rewrite that the verdicts allow and that was not made.

    Attributes:
        what: the reduction.
        layer: index of the layer of the original chain.
        reason: in words.
        numbers: what the decision rests on.
    """

    what: str
    layer: int
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)


def own_rounding(affine: Affine, input_magnitude: Array, dtype: FloatType) -> Array:
    """u (|V| H + |c|) for each pre-activation, shape (units,)."""
    unit_roundoff = 0.5 * float(np.finfo(dtype).eps)
    return unit_roundoff * (reach(affine.weight, input_magnitude) + np.abs(affine.bias))


def reach(matrix: Array, magnitude: Array) -> Array:
    """|matrix| @ magnitude, where an infinite magnitude counts only if its entry is not 0."""
    infinite = np.isinf(magnitude)
    absolute = np.abs(matrix)
    hit = (absolute[:, infinite] > 0.0).any(axis=1)
    return np.where(hit, np.inf, absolute @ np.where(infinite, 0.0, magnitude))
