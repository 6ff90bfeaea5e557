"""What a rewrite may move a pre-activation by, and the record of what was refused.

The stored weights of a merged or folded layer are rounded to the model's dtype, with unit roundoff
u. A rewrite is admitted where that moves no pre-activation of the layer it changes by more than

    u (|V| H + |c|),

one rounding of the terms that the original layer V h + c adds up (H an upper bound on |h|): less
than what the model's own arithmetic may add in evaluating them. A rewrite that changes what is
added up on the way is measured against the roundings of that layer and the one before it,

    u (|V| (|W| X + |b|) + |V| H + |c|),

and what it adds has to cover the roundings of its own evaluation as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.rounding import gamma

if TYPE_CHECKING:
    from onnx_exact.reduce.state import State

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


def figures(moved: Array, allowed: Array, **more: float) -> dict[str, float]:
    """The numbers of a refusal: of the row that exceeds what is allowed by most, finite ones only.

    Args:
        moved, allowed: shape (rows,).
        more: further numbers.
    """
    with np.errstate(invalid="ignore"):
        row = int(np.argmax(np.nan_to_num(moved - allowed, nan=np.inf)))
    numbers = {**more, "deviation": float(moved[row]), "allowed": float(allowed[row])}
    return {name: value for name, value in numbers.items() if np.isfinite(value)}


def own_rounding(
    affine: Affine, input_magnitude: Array, dtype: FloatType, computed: int = 0
) -> Array:
    """u (|V| H + |c|) for each pre-activation, shape (units,).

    Args:
        affine: the layer's map.
        input_magnitude: H.
        dtype: of which u is the unit roundoff.
        computed: number of terms of the float64 sums that the new numbers come from; what these may
            round is allowed for as well: in a float64 model they are as good as its own.
    """
    unit_roundoff = 0.5 * float(np.finfo(dtype).eps) + (gamma(computed) if computed else 0.0)
    return unit_roundoff * (reach(affine.weight, input_magnitude) + np.abs(affine.bias))


def allowance(max_deviation: float, rounding: Array) -> Array:
    """max_deviation times `rounding`; 0 times an infinite rounding allows nothing."""
    return max_deviation * rounding if max_deviation > 0.0 else np.zeros_like(rounding)


def reach(matrix: Array, magnitude: Array) -> Array:
    """|matrix| @ magnitude, where an infinite magnitude counts only if its entry is not 0."""
    infinite = np.isinf(magnitude)
    absolute = np.abs(matrix)
    hit = (absolute[:, infinite] > 0.0).any(axis=1)
    return np.where(hit, np.inf, absolute @ np.where(infinite, 0.0, magnitude))


def evaluation_terms(state: State, index: int) -> Array:
    """|V| (|W| X + |b|) + |V| H + |c| of layer `index` + 1 and the one before, shape (units,)."""
    decided, after = state.layers[index], state.layers[index + 1]
    first, second = decided.layer.affine, after.layer.affine
    inner = reach(first.weight, state.input_magnitude(index)) + np.abs(first.bias)
    return reach(second.weight, inner) + reach(second.weight, decided.magnitude) + abs(second.bias)
