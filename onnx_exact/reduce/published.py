"""The published reductions, to compare with: merging and folding (Serra et al. 2020, section 4).

*Merging.* With W_D = K W_B for stably active units D and B of one layer,

    h_D = W_D x + b_D = K h_B + (b_D - K b_B),      hence
    V_D h_D + V_B h_B + c = (V_B + V_D K) h_B + c + V_D (b_D - K b_B).

K comes from float64 arithmetic. A unit counts as dependent if what K leaves over, R = W_D - K W_B,
is within one rounding of the unit's own terms, |R| X <= u (|W_D| X + |b_D|): rows that are nearly
dependent are not the same function. R and the rounding of the stored weights then move the next
pre-activations by at most |V_D| |R| X + |delta V_B| H_B + |delta c|; dependent units for which that
exceeds the budget stay, with the reason.

*Folding.* A layer whose units are all stably active is folded into the next,

    h = W x + b on the domain,  hence  V h + c = (V W) x + (V b + c),

where the product has no more entries than its factors. The rounding of the stored product is at
most u |V| |W| |x| and so within one rounding of the model's own terms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_exact.decide.verdict import Status
from onnx_exact.methods import DEFAULT_MAX_DEVIATION
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.approximate import Approximate, numbers_of
from onnx_exact.network.chain import Layer
from onnx_exact.network.rounding import gamma
from onnx_exact.reduce.basis import split_rows
from onnx_exact.reduce.budget import Refusal, allowance, figures, own_rounding, reach
from onnx_exact.reduce.state import Decided, State
from onnx_exact.reduce.units import NEW

# A pivot this much smaller than the first is looked at as dependent. Only a proposal: whether the
# unit may go is decided by the bound on what its removal moves.
PIVOT_TOLERANCE = 1e-6
# Entries of K below this share of the largest of their row are tried as zero.
NEGLIGIBLE = 1e-9


@dataclass(frozen=True, eq=False)
class _Dependence:
    """Units `dependent` as combinations `factor` of units `basis`, up to at most `residual`."""

    basis: NDArray[np.intp]
    dependent: NDArray[np.intp]
    factor: Array
    residual: Array

    def without(self, place: int | NDArray[np.intp]) -> _Dependence:
        """The same without some dependent units; they stay in the network, in no role."""
        left = np.delete(np.arange(self.dependent.size), place)
        return _Dependence(self.basis, self.dependent[left], self.factor[left], self.residual[left])


def merge(
    state: State, max_deviation: float = DEFAULT_MAX_DEVIATION
) -> tuple[State, tuple[Refusal, ...]]:
    """The state with dependent units merged, or `state` itself, and what was refused.

    Args:
        state: the network with verdicts.
        max_deviation: in units of the model's own rounding, see `onnx_exact.reduce.budget`.
    """
    refused: list[Refusal] = []
    for index in range(len(state.layers) - 1):
        decided = state.layers[index]
        active = np.flatnonzero(decided.status == Status.ACTIVE)
        if not decided.layer.relu or active.size == 0:
            continue
        dependence = _dependence(decided.layer.affine, active)
        if dependence.dependent.size == decided.layer.width:
            # All rows are zero, and the constant was refused: a layer keeps a unit.
            dependence = dependence.without(0)
        if dependence.dependent.size:
            limit = state.limit(index, max_deviation)
            state, refusal = _merge_layer(state, index, dependence, limit)
            refused += refusal
    return state, tuple(refused)


def _dependence(affine: Affine, active: NDArray[np.intp]) -> _Dependence:
    """Splits the active units into a well-conditioned basis and combinations of it."""
    rows = affine.weight[active]
    basis, dependent = split_rows(rows, PIVOT_TOLERANCE)
    rank = basis.size
    if dependent.size == 0 or rank == 0:
        factor: Array = np.zeros((dependent.size, rank))
    else:
        factor = np.asarray(
            np.linalg.lstsq(rows[basis].T, rows[dependent].T, rcond=None)[0].T, dtype=np.float64
        )
    factor = _simplest(factor, rows[basis], rows[dependent])
    with np.errstate(over="ignore", invalid="ignore"):
        residual = Approximate(rows[dependent]) + -(Approximate(factor) @ Approximate(rows[basis]))
        left_over = np.abs(residual.value) + residual.off
    return _Dependence(active[basis], active[dependent], factor, left_over)


def _simplest(factor: Array, basis: Array, dependent: Array) -> Array:
    """Replaces rows of the factor by short ones that leave nothing over (duplicates, multiples)."""
    if factor.size == 0:
        return factor
    largest = np.abs(factor).max(axis=1, keepdims=True)
    short = np.where(np.abs(factor) < NEGLIGIBLE * largest, 0.0, factor)
    # What overflows float32 leaves something over.
    with np.errstate(over="ignore", invalid="ignore"):
        short = short.astype(np.float32).astype(np.float64)
        left_over = np.abs(dependent - short @ basis).max(axis=1, keepdims=True)
    return np.where(left_over == 0.0, short, factor)


def _merge_layer(
    state: State, index: int, dependence: _Dependence, max_deviation: float
) -> tuple[State, list[Refusal]]:
    """Merges as many of the dependent units as the budget admits."""
    decided, after = state.layers[index], state.layers[index + 1]
    affine = after.layer.affine
    computed = decided.layer.width + decided.layer.affine.n_in
    budget = own_rounding(affine, decided.magnitude, state.dtype, computed)
    budget = allowance(max_deviation, budget)
    dependence, refused = _truly_dependent(state, index, dependence, max_deviation)
    while dependence.dependent.size:
        weight, bias, moved = _merged(state, index, dependence)
        if np.isfinite(moved).all() and (moved <= budget).all():
            kept = np.ones(decided.layer.width, dtype=bool)
            kept[dependence.dependent] = False
            merged = after.with_affine(weight[:, kept], bias)
            return state.with_layers(index, index + 2, decided.keep(kept), merged), refused
        place = int(np.argmax(_cost(state, index, dependence)))
        unit = int(decided.units[dependence.dependent[place]])
        which = "a linear unit" if unit == NEW else f"unit {unit}"
        reason = f"merging {which} would move the next layer by more than its own rounding"
        with np.errstate(over="ignore", invalid="ignore"):
            row = int(np.argmax(moved / np.maximum(budget, np.finfo(np.float64).tiny)))
        numbers = {"moved": float(moved[row]), "allowed": float(budget[row])}
        # Over an unbounded domain, or where a weight overflows, there is no figure to tell.
        finite = {name: number for name, number in numbers.items() if np.isfinite(number)}
        refused.append(Refusal("merge", decided.source, reason, finite))
        dependence = dependence.without(place)
    return state, refused


def _truly_dependent(
    state: State, index: int, dependence: _Dependence, max_deviation: float
) -> tuple[_Dependence, list[Refusal]]:
    """Leaves out the units that the basis gives only nearly."""
    own = state.layers[index].layer.affine.rows(dependence.dependent)
    inputs = state.input_magnitude(index)
    computed = own.n_in + state.layers[index].layer.width
    allowed = allowance(max_deviation, own_rounding(own, inputs, state.dtype, computed))
    with np.errstate(over="ignore", invalid="ignore"):
        left_over = reach(dependence.residual, inputs)
    nearly = np.flatnonzero(~(left_over <= allowed))
    if not nearly.size:
        return dependence, []
    reason = f"{nearly.size} units are combinations of others, but not to within their rounding"
    refusal = Refusal(
        "merge", state.layers[index].source, reason, figures(left_over[nearly], allowed[nearly])
    )
    return dependence.without(nearly), [refusal]


def _merged(state: State, index: int, dependence: _Dependence) -> tuple[Array, Array, Array]:
    """The next layer's stored weight and bias, and how far its pre-activations move at most."""
    decided = state.layers[index]
    first, second = decided.layer.affine, state.layers[index + 1].layer.affine
    basis, dependent = dependence.basis, dependence.dependent
    outgoing, factor = Approximate(second.weight[:, dependent]), Approximate(dependence.factor)
    weight = second.weight.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        columns = Approximate(second.weight[:, basis]) + outgoing @ factor
        shift = Approximate(first.bias[dependent]) + -(factor @ Approximate(first.bias[basis]))
        exact_bias = Approximate(second.bias) + outgoing @ shift
        weight[:, basis] = state.stored(columns.value)
        bias = state.stored(exact_bias.value)
        rounding = reach(
            np.abs(weight[:, basis] - columns.value) + columns.off, decided.magnitude[basis]
        )
        rounding = rounding + np.abs(bias - exact_bias.value) + exact_bias.off
        left_over = reach(dependence.residual, state.input_magnitude(index))
        left_over = left_over + first.off(state.input_magnitude(index))[dependent]
        return weight, bias, rounding + reach(outgoing.value, left_over)


def _cost(state: State, index: int, dependence: _Dependence) -> Array:
    """How much each dependent unit contributes to what a merge moves, up to a common factor."""
    second = state.layers[index + 1].layer.affine
    outgoing = np.abs(second.weight[:, dependence.dependent]).max(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        left_over = reach(dependence.residual, state.input_magnitude(index))
        spread = reach(dependence.factor, state.layers[index].magnitude[dependence.basis])
        return np.asarray(outgoing * (left_over + np.finfo(np.float32).eps * spread))


def fold(
    state: State, max_deviation: float = DEFAULT_MAX_DEVIATION
) -> tuple[State, tuple[Refusal, ...]]:
    """The state with one stably active layer less, or `state` itself, and what was refused.

    Args:
        state: the network with verdicts.
        max_deviation: in units of the model's own rounding, see `onnx_exact.reduce.budget`.
    """
    refused: list[Refusal] = []
    for index, decided in enumerate(state.layers):
        if not decided.layer.relu or (decided.status != Status.ACTIVE).any():
            continue
        if index == len(state.layers) - 1:
            linear = decided.anew(Layer(decided.layer.affine, relu=False))
            return state.with_layers(index, index + 1, linear), tuple(refused)
        first, second = decided.layer.affine, state.layers[index + 1].layer.affine
        after = first.n_in * second.n_out
        before = first.weight.size + second.weight.size
        numbers = {"connections_folded": float(after), "connections": float(before)}
        if after > before:
            reason = "the product would have more connections than its factors"
            refused.append(Refusal("fold", decided.source, reason, numbers))
            continue
        folded = product(state, index, index + 1, max_deviation)
        if isinstance(folded, Refusal):
            refused.append(replace(folded, numbers={**numbers, **folded.numbers}))
            continue
        return state.with_layers(index, index + 2, folded), tuple(refused)
    return state, tuple(refused)


def product(state: State, first: int, last: int, max_deviation: float) -> Decided | Refusal:
    """Layers [first, last], all but the last of them linear, as one, or why not.

    What the float64 product rounds, and what its factors are off by, counts as moved.
    """
    layers = state.layers[first : last + 1]
    max_deviation = min(state.limit(i, max_deviation) for i in range(first, last + 1))
    if len(layers) == 1:
        return layers[0]
    size = state.input_magnitude(first)
    affines = [decided.layer.affine for decided in layers]
    weight, bias = numbers_of(affines[0])
    terms = reach(weight.value, size) + np.abs(bias.value)
    with np.errstate(over="ignore", invalid="ignore"):
        for affine in affines[1:]:
            terms = reach(affine.linear, terms) + np.abs(affine.bias)
            factor, shift = numbers_of(affine)
            weight, bias = factor @ weight, factor @ bias + shift
        stored = state.stored(weight.value), state.stored(bias.value)
        if not all(np.isfinite(values).all() for values in stored):
            return Refusal("fold", layers[0].source, f"the product does not fit {state.dtype}")
        moved = reach(np.abs(stored[0] - weight.value) + weight.off, size)
        moved = moved + np.abs(stored[1] - bias.value) + bias.off
        # What float64 itself rounds is allowed for: a model of that type rounds as much.
        unit = state.unit_roundoff + sum(gamma(affine.n_in) for affine in affines)
        allowed = allowance(max_deviation, unit * terms)
    if (moved <= allowed).all():
        return layers[-1].with_affine(*stored)
    reason = "rounding the product would deviate by more than is allowed"
    return Refusal("fold", layers[0].source, reason, figures(moved, allowed))
