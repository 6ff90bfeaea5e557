"""Writes a layer anew in its normal form (`onnx_exact.reduce.form`), within its reader's budget.

Deciding and doing are two things: a proposal is a layer, its reader and what it moves; the first
one with fewer units, or fewer entries where the layer is folded into its reader, that the budget
admits is taken, and what stood against the others is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from onnx_exact.decide.verdict import Status
from onnx_exact.network.affine import Array
from onnx_exact.network.operator import entries_by_blocks
from onnx_exact.reduce.bounds import functional_bounds
from onnx_exact.reduce.budget import Refusal, allowance, figures
from onnx_exact.reduce.form import NormalForm
from onnx_exact.reduce.kept import kept_layer, kept_units
from onnx_exact.reduce.ledger import Ledger, Units
from onnx_exact.reduce.negligible import drop
from onnx_exact.reduce.orient import MOST_READERS
from onnx_exact.reduce.overflow import overflowing
from onnx_exact.reduce.realise import DIRECTIONS, Linear, Map, realisations
from onnx_exact.reduce.state import Decided, State
from onnx_exact.reduce.units import GONE

FOLD = "fold"


@dataclass(frozen=True, eq=False)
class Edit:
    """What a reduction did to a network.

    Attributes:
        state: the network.
        counts: how many units went, by the layer of the original and by what they count as.
        rounds: whether anything but removal was done.
        refused: what was not done.
    """

    state: State
    counts: Mapping[tuple[int, str], int] = field(default_factory=dict)
    rounds: bool = False
    refused: tuple[Refusal, ...] = ()


@dataclass(frozen=True, eq=False)
class _Proposal:
    """Layers in the place of a layer and its reader."""

    what: str
    layers: tuple[Decided, ...]
    moved: Array
    entries: int
    counts: Mapping[str, int]
    unusable: str = ""
    lost: Decided | None = None

    def terms(self, new: State, index: int) -> Array:
        """What evaluating the reader adds up in the new network."""
        if self.lost is None:
            return new.terms(index + 1)
        # The layers before it are what they were.
        return new.terms(index, alone=True)


def prune(state: State, index: int, *, unread: bool = True) -> Edit:
    """Removes the units of a layer that are stably inactive, or that its reader does not read.

        h_i = 0 on the domain, or V_i = 0:    V h + c = V_K h_K + c     with K the other units

    Nothing is rounded. A layer that loses all its units is left to `collapse`.
    """
    decided, after = state.layers[index], state.layers[index + 1]
    kept = (decided.status != Status.INACTIVE) | (not decided.layer.relu)
    if unread:
        kept &= after.layer.affine.reads.any(axis=0)
    if kept.all() or not kept.any() or not state.may_drop_units(index):
        return Edit(state)
    new = state.with_layers(index, index + 2, decided.keep(kept), after.reading(kept))
    return Edit(new, {(decided.source, "removed"): int((~kept).sum())})


def rewrite(
    state: State,
    index: int,
    max_deviation: float | None,
    kinds: tuple[str, ...],
    negligible: bool = True,
) -> Edit:
    """Writes layer `index` anew, or leaves it as it is.

    Args:
        state: the network with verdicts.
        index: of the layer; it has a reader.
        max_deviation: see `onnx_exact.reduce.budget`; 0 where nothing may be rounded, None where
            nothing that rounds is looked for either.
        kinds: of realisations, see `onnx_exact.reduce.realise`.
        negligible: whether what costs next to nothing is dropped.
    """
    decided, after = state.layers[index], state.layers[index + 1]
    # A layer that reads nothing is `collapse`'s.
    if not (state.may_drop_units(index) and after.layer.affine.reads.any()):
        return Edit(state)
    refused: list[Refusal] = []
    for form in _forms(state, index, max_deviation, negligible):
        for proposal in _proposals(state, index, form, kinds):
            old = state
            if proposal.lost is not None:
                # For where its units have gone to be known.
                old = state.with_layers(index, index + 1, proposal.lost)
            new = old.with_layers(index, index + 2, *proposal.layers)
            refusal = _against(state, new, index, proposal, max_deviation or 0.0)
            if refusal is None:
                new = new if proposal.lost is None else new.rebased(index)
                counts = {(decided.source, what): n for what, n in proposal.counts.items()}
                return Edit(new, counts, True, () if max_deviation is None else tuple(refused))
            refused.append(refusal)
    # What nobody looked for is not refused.
    return Edit(state, refused=() if max_deviation is None else tuple(refused))


def _forms(
    state: State, index: int, max_deviation: float | None, negligible: bool
) -> Iterator[NormalForm]:
    """The layer's normal form as far as it may go; then with nothing dropped, or rounded at all."""
    decided, after = state.layers[index], state.layers[index + 1]
    affine, budget = after.layer.affine, after.budget
    limit, nothing = max_deviation or 0.0, np.zeros(affine.n_out)
    # Where nothing may be rounded, what could be done is looked for all the same, and refused.
    attempts = [] if max_deviation is None else [(budget.left(limit or 1.0), limit, False)]
    for room, own, fixed in [*attempts, (nothing, 0.0, False), (nothing, 0.0, True)]:
        units = Units(
            decided.layer.affine,
            state.input_magnitude(index),
            decided.lower,
            decided.upper,
            (decided.status == Status.ACTIVE) | (not decided.layer.relu),
            decided.status != Status.UNDECIDED,
            decided.budget.left(own),
        )
        for dropping in (True, False) if negligible and own > 0.0 else (False,):
            ledger = Ledger(room.copy(), affine.bias, state.dtype, fixed=fixed)
            form = NormalForm(units, affine.linear, ledger)
            if dropping:
                sizes = np.where(np.isfinite(decided.magnitude), decided.magnitude, 0.0)
                blocks = entries_by_blocks(affine.linear)
                largest = np.concatenate([(np.abs(rows) * sizes).max(axis=1) for _, rows in blocks])
                half = ledger.roundoff * np.maximum(largest, np.abs(affine.bias))
                drop(form, allowance(min(limit, 1.0), half))
            if form.negligible or not dropping:
                if own > 0.0 and len(room) <= MOST_READERS:
                    ledger = Ledger(room.copy(), affine.bias, state.dtype, fixed=fixed)
                    oriented = NormalForm(units, affine.linear, ledger)
                    if oriented.orient():
                        yield oriented
                yield form


def _proposals(
    state: State, index: int, form: NormalForm, kinds: tuple[str, ...]
) -> Iterator[_Proposal]:
    """Layers that are smaller, the smallest first."""
    decided, after = state.layers[index], state.layers[index + 1]
    n_in, n_out = decided.layer.affine.n_in, after.layer.width
    before = decided.layer.width * (n_in + n_out)

    def bounds(rows: Array) -> tuple[Array, Array]:
        return functional_bounds(state, index, rows)

    found = (
        _written(state, index, form, linear)
        for linear in realisations(form, decided.layer.relu, bounds, kinds)
    )
    folding = not form.kink.any()
    # What passes its inputs on, each by itself, leaves its reader as it was.
    passing = all(
        (np.count_nonzero(rows, axis=1) <= 1).all()
        for _, rows in entries_by_blocks(form.units.affine.linear)
    )
    for proposal in found:
        entries = before if passing else min(before, proposal.entries)
        if folding and n_in * n_out <= entries:
            folding = False
            yield _folded(state, index, form)
        if proposal.entries < before:
            yield proposal


def _folded(state: State, index: int, form: NormalForm) -> _Proposal:
    """A layer without kinks as a part of its reader: V h + c = L h + (c' + o)."""
    decided, after = state.layers[index], state.layers[index + 1]
    linear, ledger = Map.of(form), form.ledger
    constant = ledger.constant + linear.offset
    weight, bias = ledger.stored(linear.weight.value), ledger.stored(constant.value)
    moved = ledger.moved + ledger.rounding(constant)
    moved = moved + ledger.reached(linear.weight, form.units.size)
    dropped = min(form.negligible, len(form.kink))
    counts = {"negligible": dropped, "folded": len(form.kink) - dropped}
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        why = f"the product does not fit {state.dtype}"
        return _Proposal(FOLD, (), moved, weight.size, counts, why)
    reader = replace(after.with_affine(weight, bias), budget=after.budget.spend(moved))
    place = np.where(form.units.active, GONE, GONE - 1 - form.place)
    lost = replace(decided, origin=decided.origin.then(place, form.factor))
    return _Proposal(FOLD, (reader,), moved, weight.size, counts, lost=lost)


def _written(state: State, index: int, form: NormalForm, linear: Linear) -> _Proposal:
    """The layer with the kinks of the form and linear units, and its reader."""
    decided, after, ledger = state.layers[index], state.layers[index + 1], form.ledger
    kept = kept_units(form, linear)
    fresh = 0 if linear.how == DIRECTIONS else linear.count
    width = kept.units.size + fresh
    heights = np.where(kept.turned, -decided.lower[kept.units], decided.upper[kept.units])
    constant = ledger.constant + linear.added
    weight, bias = ledger.in_its_type(kept.columns.value), ledger.stored(constant.value)
    moved = ledger.moved + linear.moved + ledger.rounding(constant)
    moved = moved + ledger.reached(kept.columns, np.maximum(heights, 0.0))
    gone = decided.layer.width - width
    # A unit may stay, or a linear one come in, where all were constant or dropped.
    folded = min(form.constants, max(gone, 0))
    dropped = min(form.negligible, max(gone, 0) - folded)
    counts = {"folded": folded, "negligible": dropped, "merged": gone - folded - dropped}
    entries = width * (decided.layer.affine.n_in + after.layer.width)
    what = f"{width} units for {decided.layer.width} (linear part: {linear.how})"
    numbers = (weight, bias, linear.bias, linear.weight, linear.read, linear.lower)
    if not all(np.isfinite(v).all() for v in numbers[: 6 if fresh else 2]):
        why = f"their numbers are not bounded, or do not fit {state.dtype}"
        return _Proposal(what, (), moved, entries, counts, why)
    if fresh:
        weight = np.hstack([weight, ledger.in_its_type(linear.read)])
    layer = kept_layer(decided, kept, linear if fresh else None)
    reader = replace(after.with_affine(weight, bias), budget=after.budget.spend(moved))
    if fresh:
        new = state.with_layers(index, index + 2, layer, reader).new_budget(index)
        own = np.arange(width) < kept.units.size
        layer = replace(layer, budget=layer.budget.where(own, new))
    return _Proposal(what, (layer, reader), moved, entries, counts)


def _against(
    state: State, new: State, index: int, proposal: _Proposal, max_deviation: float
) -> Refusal | None:
    """What speaks against a proposal."""
    source, budget = state.layers[index].source, state.layers[index + 1].budget
    if proposal.unusable:
        return Refusal(proposal.what, source, proposal.unusable)
    overflow = overflowing(state, new)
    if overflow is not None:
        return overflow
    with np.errstate(over="ignore", invalid="ignore"):
        more = np.maximum(proposal.terms(new, index) - budget.terms, 0.0)
        found = proposal.moved + state.unit_roundoff * more
        allowed = budget.left(max_deviation)
        if not (found <= allowed).all():
            reason = "it would deviate by more than is allowed"
            return Refusal(proposal.what, source, reason, figures(found, allowed))
    return None
