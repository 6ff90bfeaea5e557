"""Runs the reductions on a chain, one after another, until nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnx_exact.deadline import Deadline
from onnx_exact.decide.verdict import Stability
from onnx_exact.methods import CHAIN_FORM, DEFAULT_MAX_DEVIATION, FORMS, REDUCTIONS
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.network.split import SplitChain
from onnx_exact.reduce.budget import FloatType, Refusal
from onnx_exact.reduce.collapse import collapse
from onnx_exact.reduce.constant import constant
from onnx_exact.reduce.fold import fold
from onnx_exact.reduce.merge import merge
from onnx_exact.reduce.needed import needed
from onnx_exact.reduce.opposite import opposite
from onnx_exact.reduce.overflow import overflowing
from onnx_exact.reduce.prune import prune
from onnx_exact.reduce.runs import fold_runs
from onnx_exact.reduce.scale import scale
from onnx_exact.reduce.split import FormChoice, Split, split
from onnx_exact.reduce.state import State
from onnx_exact.reduce.store import store, unstorable
from onnx_exact.reduce.units import UnitMap
from onnx_exact.reduce.unread import unread
from onnx_exact.threads import one_thread


@dataclass(frozen=True)
class LayerReduction:
    """What became of the units of one layer of the original chain.

    Attributes:
        units: how many there were.
        removed: stably inactive, or read by nobody.
        merged: multiples of others, positive or negative, or stably active and now combinations of
            others or of fewer linear units that took their place, or went around the ReLU.
        folded: constant, or in a layer that went into the next, or into the constant that the
            network is.
        units_after: how many are left.
    """

    units: int
    removed: int = 0
    merged: int = 0
    folded: int = 0
    units_after: int = 0


@dataclass(frozen=True, eq=False)
class Reduction:
    """The result of reducing one chain.

    Attributes:
        chain: the new chain in the chain form, its weights as the model's dtype stores them; the
            original object where nothing changed.
        split: how the same is written in the split form, where that was asked for and pays.
        forms: which layers have which form and why, where both were weighed.
        changed: whether anything changed.
        removal_only: nothing but units were removed, so that no value is rounded.
        layers: one entry a layer of the original chain.
        origins: for each layer of `chain`, the layer of the original that it stands for and
            where the units of that one live on.
        refused: rewrites that were allowed by the verdicts and not made.
    """

    chain: Chain
    changed: bool
    removal_only: bool
    layers: tuple[LayerReduction, ...]
    origins: tuple[UnitMap, ...]
    refused: tuple[Refusal, ...]
    split: Split | None = None
    forms: tuple[FormChoice, ...] = ()

    @staticmethod
    def none(chain: Chain, reason: str) -> Reduction:
        """Nothing at all, and why."""
        widths = [layer.width for layer in chain.layers]
        return Reduction(
            chain,
            changed=False,
            removal_only=True,
            layers=tuple(LayerReduction(width, units_after=width) for width in widths),
            origins=tuple(UnitMap.identity(k, width) for k, width in enumerate(widths)),
            refused=(Refusal("anything at all", 0, reason),),
        )

    @property
    def network(self) -> Chain | SplitChain:
        """What is to be written, in its form."""
        return self.chain if self.split is None else self.split.chain


@dataclass(frozen=True)
class ReduceOptions:
    """How a chain is reduced.

    Attributes:
        reductions: of `onnx_exact.methods.REDUCTIONS`.
        max_deviation: how far a rewrite may move a pre-activation or round it off further, in
            units of the model's own rounding (see `onnx_exact.reduce.budget`); 0 refuses every
            rewrite that rounds anything.
        form: of `onnx_exact.methods.FORMS`.
        exact: layers in which no rewrite may round anything.
        removal: units are removed, and nothing else is done.
    """

    reductions: str = REDUCTIONS[0]
    max_deviation: float = DEFAULT_MAX_DEVIATION
    form: str = FORMS[0]
    exact: frozenset[int] = frozenset()
    removal: bool = False


@dataclass(frozen=True)
class _Step:
    """A reduction: what it counts as, what it does, and whether it computes new numbers."""

    counts_as: str
    apply: Callable[[State], tuple[State, tuple[Refusal, ...]]]
    rounds: bool = True


def _steps(options: ReduceOptions) -> tuple[_Step, ...]:
    """The reductions in their order: first those that round nothing or least."""
    most = options.max_deviation
    pruning = _Step("removed", lambda state: (prune(state), ()), rounds=False)
    unreading = _Step("removed", lambda state: (unread(state), ()), rounds=False)
    if options.removal:
        return pruning, unreading
    collapsing = _Step("folded", lambda state: collapse(state, most))
    merging = _Step("merged", lambda state: merge(state, most))
    if options.reductions == "published":
        return pruning, collapsing, merging, _Step("folded", lambda state: fold(state, most))
    return (
        pruning,
        unreading,
        collapsing,
        _Step("folded", lambda state: constant(state, most)),
        _Step("merged", lambda state: scale(state, most)),
        _Step("folded", lambda state: fold_runs(state, most)),
        # The next layer never needs more than linear independence leaves: merging comes last.
        _Step("merged", lambda state: needed(state, most)),
        _Step("merged", lambda state: opposite(state, most)),
        merging,
    )


def reduce_chain(
    chain: Chain,
    stability: Stability,
    box: Box,
    dtype: FloatType,
    options: ReduceOptions | None = None,
    folded: Sequence[bool] | None = None,
    deadline: Deadline | None = None,
) -> Reduction:
    """Reduces a chain by the verdicts on its units; nothing rests on an UNDECIDED one.

    Args:
        chain: the original.
        stability: verdicts over `box`.
        box: shape (inputs,).
        dtype: float16, float32 or float64, in which the model stores its weights.
        options: which reductions and how much rounding.
        folded: for each layer, whether it is a product that has fewer entries than its factors in
            the model; None for none.
        deadline: rewrites that are left when it passes are not made; None for no end.

    Returns:
        The reduction; equal to the original over the reals on the box, up to the rounding of
        weights that had to be computed (see `onnx_exact.reduce.budget`).
    """
    # What overflows is not admitted.
    with one_thread(), np.errstate(over="ignore", invalid="ignore"):
        start = State.of(chain, stability, box, dtype)
        options = options or ReduceOptions()
        staying = unstorable(start, options.max_deviation)
        strict = unstorable(start, 0.0) if options.exact else {}
        staying |= {index: strict[index] for index in options.exact & strict.keys()}
        start = replace(start, frozen=frozenset(staying), exact=options.exact)
        state, reduction = _reduce(
            start,
            _steps(options),
            folded or [False] * len(chain.layers),
            options.max_deviation,
            deadline or Deadline(),
        )
        known = {(r.layer, r.reason) for r in reduction.refused}
        more = (r for r in staying.values() if (r.layer, r.reason) not in known)
        reduction = replace(reduction, refused=(*more, *reduction.refused))
        if state is start:
            reduction = replace(reduction, chain=chain)
        # A layer that cannot be written keeps its nodes, which a split network may not leave it.
        asked = CHAIN_FORM if unstorable(state, 0.0) else options.form
        form, forms = split(state, asked, options.max_deviation)
        reduction = replace(reduction, forms=forms)
        return reduction if form is None else _in_split_form(reduction, state, form)


def _in_split_form(reduction: Reduction, state: State, form: Split) -> Reduction:
    """The reduction with its units counted as the split form has them."""
    layers = list(reduction.layers)
    for decided, around in zip(state.layers, form.around, strict=True):
        tally, moved = layers[decided.source], int(around.sum())
        left = tally.units_after - moved
        layers[decided.source] = replace(tally, merged=tally.merged + moved, units_after=left)
    return replace(reduction, split=form, changed=True, removal_only=False, layers=tuple(layers))


def _reduce(
    start: State,
    steps: Sequence[_Step],
    folded: Sequence[bool],
    max_deviation: float,
    deadline: Deadline,
) -> tuple[State, Reduction]:
    state = start
    none = dict.fromkeys(("removed", "merged", "folded"), 0)
    counts = [none.copy() for _ in start.layers]
    refused: dict[tuple[str, int, str], Refusal] = {}
    rounded = False
    while True:
        before = state
        for step in steps:
            if deadline.passed:
                break
            new, refusals = step.apply(state)
            overflow = overflowing(state, new)
            if overflow is not None:
                new, refusals = state, (*refusals, overflow)
            if state.thaws(new):
                new = state
            _count(counts, step.counts_as, state, new)
            rounded |= step.rounds and _shape(new) != _shape(state)
            refused |= {(r.what, r.layer, r.reason): r for r in refusals}
            state = new
        if state is before or deadline.passed:
            break
    reduced = state
    state, refusals = store(start, state, folded, max_deviation)
    refused |= {(r.what, r.layer, r.reason): r for r in refusals}
    rounded |= any(
        not a.layer.affine.equals(b.layer.affine)
        for a, b in zip(state.layers, reduced.layers, strict=False)
    )
    if state is start:
        rounded, counts = False, [none.copy() for _ in start.layers]
    widths = _widths(state, len(start.layers))
    layers = tuple(
        LayerReduction(decided.layer.width, **count, units_after=width)
        for decided, count, width in zip(start.layers, counts, widths, strict=True)
    )
    return state, Reduction(
        state.chain,
        state is not start,
        not rounded,
        layers,
        tuple(decided.origin for decided in state.layers),
        tuple(refused.values()),
    )


def _shape(state: State) -> tuple[int, ...]:
    """The widths of the layers."""
    return tuple(decided.layer.width for decided in state.layers)


def _widths(state: State, layers: int) -> list[int]:
    """How many units of each original layer are left; none of a constant's hidden layers."""
    widths = [0] * layers
    for decided in state.layers:
        widths[decided.source] = decided.layer.width
    return widths


def _count(counts: list[dict[str, int]], what: str, before: State, after: State) -> None:
    """Adds the units that a reduction took to the tally of their original layers."""
    if after is before:
        return
    had, has = _widths(before, len(counts)), _widths(after, len(counts))
    for count, units_before, units_after in zip(counts, had, has, strict=True):
        count[what] += units_before - units_after
