"""What a rewrite may move a pre-activation by, and the record of what was refused.

The stored weights of a merged or folded layer are rounded to the model's dtype, with unit roundoff
u. A rewrite is admitted where that moves no pre-activation of the layer it changes by more than

    u (|V| H + |c|),

one rounding of the terms that the original layer V h + c adds up (H an upper bound on |h|): less
than what the model's own arithmetic may add in evaluating them (the published reductions). The
normal form changes what is added up on the way as well; there each pre-activation of the original
has one budget for all that is ever done to it, the roundings of its layer and of the one before it,

    u (|V| (|W| X + |b|) + |V| H + |c|),

out of which what moves it is paid, and what evaluating the new layers may round off more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.operator import Operator, entries_by_blocks
from onnx_exact.network.rounding import gamma

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
    return unit_roundoff * (reach(affine.linear, input_magnitude) + np.abs(affine.bias))


def allowance(max_deviation: float, rounding: Array) -> Array:
    """max_deviation times `rounding`; 0 times an infinite rounding allows nothing."""
    return max_deviation * rounding if max_deviation > 0.0 else np.zeros_like(rounding)


def reach(matrix: Array | Operator, magnitude: Array) -> Array:
    """|matrix| @ magnitude, where an infinite magnitude counts only if its entry is not 0."""
    infinite = np.isinf(magnitude)
    finite = np.where(infinite, 0.0, magnitude)
    found = []
    for _, block in entries_by_blocks(matrix):
        absolute = np.abs(block)
        hit = (absolute[:, infinite] > 0.0).any(axis=1)
        found.append(np.where(hit, np.inf, absolute @ finite))
    return found[0] if len(found) == 1 else np.concatenate([np.zeros(0), *found])


@dataclass(frozen=True, eq=False)
class Budget:
    """What the pre-activations of a layer may be moved by, altogether; shape (units,).

    Attributes:
        allowed: by how much, if the user allows one rounding of the model's own terms.
        moved: by how much they are.
        terms: the sums that `allowed` is one rounding of.
    """

    allowed: Array
    moved: Array
    terms: Array

    @staticmethod
    def of(terms: Array, roundoff: float) -> Budget:
        """A budget that nothing is taken of yet."""
        return Budget(roundoff * terms, np.zeros_like(terms), terms)

    def left(self, max_deviation: float) -> Array:
        """How far each may still be moved."""
        return np.maximum(allowance(max_deviation, self.allowed) - self.moved, 0.0)

    def select(self, units: NDArray[np.intp] | NDArray[np.bool_]) -> Budget:
        """That of some units."""
        return Budget(self.allowed[units], self.moved[units], self.terms[units])

    def widened(self, more: int) -> Budget:
        """That of these units and others that have none."""
        return Budget(
            *(np.append(v, np.zeros(more)) for v in (self.allowed, self.moved, self.terms))
        )

    def where(self, own: NDArray[np.bool_], new: Budget) -> Budget:
        """That of these units where they are a layer's own, and a new one elsewhere."""
        pairs = ((self.allowed, new.allowed), (self.moved, new.moved), (self.terms, new.terms))
        return Budget(*(np.where(own, *pair) for pair in pairs))

    def spend(self, moved: Array) -> Budget:
        """After the pre-activations have been moved."""
        return replace(self, moved=self.moved + moved)


def evaluation_terms(layers: Sequence[Affine], magnitudes: Sequence[Array]) -> Array:
    """|V| (|W| X + |b|) + |V| H + |c| of the last of two layers, or |W| X + |b| of one alone.

    Args:
        layers: the layer, with the one that it reads before it where there is one.
        magnitudes: bounds on the magnitudes of the inputs of each.
    """
    first, last = layers[0], layers[-1]
    terms = reach(last.linear, magnitudes[-1]) + np.abs(last.bias)
    if len(layers) == 1:
        return terms
    return terms + reach(last.linear, reach(first.linear, magnitudes[0]) + np.abs(first.bias))


def stored(values: Array, dtype: FloatType) -> Array:
    """`values` as a type holds them; inf where they do not fit."""
    with np.errstate(over="ignore"):
        return np.asarray(values.astype(dtype), dtype=np.float64)


def stored_above(values: Array, dtype: FloatType) -> Array:
    """The least numbers of a type that are not below `values`."""
    with np.errstate(over="ignore"):
        nearest = values.astype(dtype)
        above = np.nextafter(nearest, np.array(np.inf, dtype=dtype))
    return np.asarray(np.where(nearest < values, above, nearest), dtype=np.float64)
