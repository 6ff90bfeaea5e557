"""Of what stably active units compute, only as much is kept as the next layer needs.

With S the stably active units of a layer and U the others, on the domain

    V h' + c = V_U h_U + V_S (W_S h + b_S) + c = V_U h_U + A (B h + d) + (c + V_S b_S - A d)

for any A B = V_S W_S (see `onnx_exact.reduce.need`). The rows of B h + d are new units in the place
of S; d is the least shift by which they are never negative, by a rigorous bound, so that they pass
the ReLU as they are. There are at most min(|S|, inputs, rows of V) of them. From the last hidden
layer to the first, each layer serves only what was kept after it.

Rounding may push such a unit below 0 where it is 0, but a ReLU never makes an error larger.
(The idea: Zhong, Wang, Khoo 2023, REDNet.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_exact.decide.verdict import Status
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.chain import Layer
from onnx_exact.network.rounding import gamma
from onnx_exact.reduce.budget import Refusal, allowance, evaluation_terms, figures, reach
from onnx_exact.reduce.need import SPANNING, Linear, Need, realisations
from onnx_exact.reduce.overflow import overflowing
from onnx_exact.reduce.state import Decided, State


@dataclass(frozen=True, eq=False)
class _Check:
    """Something that must not exceed a limit, row by row of the next layer."""

    what: str
    found: Array
    allowed: Array

    @property
    def passed(self) -> bool:
        """Whether no row exceeds its limit."""
        return bool(np.isfinite(self.found).all() and (self.found <= self.allowed).all())


def needed(state: State, max_deviation: float) -> tuple[State, tuple[Refusal, ...]]:
    """The state with fewer stably active units, or `state` itself, and what was refused.

    Args:
        state: the network with verdicts.
        max_deviation: see `onnx_exact.reduce.budget`.
    """
    refused: list[Refusal] = []
    for index in range(len(state.layers) - 2, -1, -1):
        state, refusal = narrow(state, index, state.limit(index, max_deviation))
        refused += refusal
    return state, tuple(refused)


def narrow(state: State, index: int, max_deviation: float) -> tuple[State, list[Refusal]]:
    """The state with the fewest linear units that the budget admits in one layer."""
    decided, after = state.layers[index], state.layers[index + 1]
    active = np.flatnonzero(decided.status == Status.ACTIVE)
    # A layer that reads nothing is `collapse`'s.
    if not (decided.layer.relu and active.size and after.layer.affine.reads.any()):
        return state, []
    need = Need.of(state, index, active)
    refused: list[Refusal] = []
    for linear in realisations(need):
        new, check = _realised(need, linear, max_deviation)
        overflow = None if new is None else overflowing(state, new)
        if new is not None and check.passed and overflow is None:
            return new, refused
        if overflow is not None:
            refused.append(overflow)
            continue
        what = f"{linear.units} linear for {need.active.size} stably active units ({linear.how})"
        units = {"units": float(need.active.size), "units_needed": float(linear.units)}
        numbers = figures(check.found, check.allowed, **units)
        refused.append(Refusal(what, decided.source, check.what, numbers))
    return state, refused


def _realised(need: Need, linear: Linear, max_deviation: float) -> tuple[State | None, _Check]:
    """The state with `linear` in place of the active units, and the check that decides on it.

    None where a number does not fit the dtype.
    """
    state, index = need.state, need.index
    after = state.layers[index + 1]
    shift = state.stored_above(np.maximum(-linear.lower, 0.0))
    with np.errstate(over="ignore", invalid="ignore"):
        exact = after.layer.affine.bias + need.offset - linear.read @ shift
        bias = state.stored(exact)
    unusable = ""
    if not all(np.isfinite(v).all() for v in (shift, bias, linear.weight, linear.read)):
        unusable = f"their numbers do not fit {state.dtype}"
    if not np.isfinite(linear.lower).all() and np.isfinite(linear.weight).all():
        unusable = "no bound says how far they would have to be shifted to stay active"
    if unusable:
        infinite = np.full(len(bias), np.inf)
        return None, _Check(unusable, infinite, infinite)
    kept = np.ones(state.layers[index].layer.width, dtype=bool)
    kept[need.active] = False
    weight = np.hstack([after.layer.affine.weight[:, kept], linear.read])
    narrowed = with_units(state.layers[index], kept, linear, shift)
    if narrowed is None:
        # The next layer needs nothing at all; `collapse` makes that a constant.
        narrowed = state.layers[index].keep(np.arange(kept.size) == 0)
        weight = np.zeros((len(bias), 1))
    new = state.with_layers(index, index + 2, narrowed, after.with_affine(weight, bias))
    rank = _rank_check(need, linear, max_deviation)
    if linear.how == SPANNING and not rank.passed:
        return new, rank
    return new, _evaluation_check(need, linear, shift, np.abs(bias - exact), new, max_deviation)


def with_units(
    decided: Decided, kept: NDArray[np.bool_], linear: Linear, shift: Array
) -> Decided | None:
    """The layer with the units `kept` and the linear ones; None where there would be none.

    Args:
        decided: the layer.
        kept: of its units, those that stay; shape (units,).
        linear: new units.
        shift: their biases, such that they are never negative; shape (new units,).
    """
    affine = decided.layer.affine
    width = int(kept.sum()) + linear.units
    if width == 0:
        return None
    low = np.maximum(np.nextafter(linear.lower + shift, -np.inf), 0.0)
    high = np.nextafter(linear.upper + shift, np.inf)
    active = np.full(linear.units, Status.ACTIVE, dtype=np.int8)
    weight = np.vstack([affine.weight[kept], linear.weight])
    return replace(
        decided,
        layer=Layer(Affine(weight, np.concatenate([affine.bias[kept], shift])), True),
        status=np.concatenate([decided.status[kept], active]),
        lower=np.concatenate([decided.lower[kept], low]),
        upper=np.concatenate([decided.upper[kept], np.maximum(high, low)]),
        origin=decided.origin.keep(kept),
    )


def _rank_check(need: Need, linear: Linear, max_deviation: float) -> _Check:
    """What a basis leaves over of M = V_S W_S, against one rounding of the terms of M."""
    unit = need.state.unit_roundoff + gamma(need.active.size)
    terms = reach(need.magnitude, need.state.input_magnitude(need.index))
    with np.errstate(over="ignore", invalid="ignore"):
        allowed = allowance(max_deviation, unit * terms)
    what = "their basis leaves over more of the product than rounding does"
    return _Check(what, linear.left_over, allowed)


def _evaluation_check(
    need: Need, linear: Linear, shift: Array, rounded: Array, new: State, max_deviation: float
) -> _Check:
    """All that the next pre-activations may deviate by in addition to what they did before.

    That is |A B - M| X, the rounding of the bias, and what evaluating the new layers may round off
    beyond what evaluating the old ones may; against the latter.
    """
    state, index = need.state, need.index
    size = state.input_magnitude(index)
    terms = evaluation_terms(state, index)
    with np.errstate(over="ignore", invalid="ignore"):
        found = reach(linear.read @ linear.weight - need.matrix, size) + need.rounding + rounded
        sums = reach(np.abs(linear.read) @ np.abs(linear.weight), size)
        found = found + gamma(linear.units) * (np.abs(linear.read) @ shift + sums)
        more = np.maximum(evaluation_terms(new, index) - terms, 0.0)
        unit = state.unit_roundoff + gamma(need.active.size)
        return _Check(
            "their shifts and weights would round off more than is allowed",
            found + state.unit_roundoff * more,
            allowance(max_deviation, unit * terms),
        )
