"""Runs the reductions on a chain, one after another, until nothing changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from onnx_exact.decide.verdict import Stability, Status
from onnx_exact.methods import DEFAULT_MAX_DEVIATION, GOALS, REDUCTIONS, SIZE, VERIFY
from onnx_exact.network.chain import Chain, Layer
from onnx_exact.network.domain import Box
from onnx_exact.network.split import SplitChain
from onnx_exact.reduce.budget import FloatType, Refusal
from onnx_exact.reduce.collapse import collapse
from onnx_exact.reduce.constant_inputs import absorb
from onnx_exact.reduce.layer import Edit, prune, rewrite
from onnx_exact.reduce.overflow import overflowing
from onnx_exact.reduce.places import with_places
from onnx_exact.reduce.published import fold, merge
from onnx_exact.reduce.realise import ALL_KINDS, COLUMNS
from onnx_exact.reduce.shift import shifted
from onnx_exact.reduce.split import FormChoice, Split, split
from onnx_exact.reduce.state import Decided, State
from onnx_exact.reduce.store import store, unstorable
from onnx_exact.reduce.units import UnitMap
from onnx_exact.runtime.deadline import Deadline
from onnx_exact.runtime.threads import one_thread

Rewrite = Callable[[State], Edit]
# By a layer that was tried: all that this looked at, the layers up to the second behind it.
Tried = dict[int, tuple[Decided, ...]]
# What a unit that goes counts as.
WAYS = ("removed", "negligible", "merged", "folded")


@dataclass(frozen=True)
class LayerReduction:
    """What became of the units of one layer of the original chain.

    Attributes:
        units: how many there were.
        removed: stably inactive, or unread.
        negligible: dropped, since they cost every reader next to nothing.
        merged: multiples of others, positive or negative, or stably active and now combinations of
            others or of fewer linear units that took their place, or went around the ReLU.
        folded: constant, or in a layer that went into the next, or into the constant that the
            network is.
        units_after: how many are left.
    """

    units: int
    removed: int = 0
    negligible: int = 0
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
        gone: the same for other layers, where there is anything to say of their units.
        refused: rewrites that were allowed by the verdicts and not made.
    """

    chain: Chain
    changed: bool
    removal_only: bool
    layers: tuple[LayerReduction, ...]
    origins: tuple[UnitMap, ...]
    refused: tuple[Refusal, ...]
    gone: tuple[UnitMap, ...] = ()
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
        goal: of `onnx_exact.methods.GOALS`.
        exact: layers in which no rewrite may round anything.
        removal: units are removed, and nothing else is done.
        simplify: nothing is done but what is exact and makes no new unit.
    """

    reductions: str = REDUCTIONS[0]
    max_deviation: float = DEFAULT_MAX_DEVIATION
    goal: str = GOALS[0]
    exact: frozenset[int] = frozenset()
    removal: bool = False
    simplify: bool = False


def _rewrites(
    state: State, options: ReduceOptions, exactly: bool, tried: Tried
) -> Iterator[Rewrite]:
    """The reductions in their order, each of what the ones before it have left."""
    hidden = range(len(state.layers) - 2, -1, -1)
    published = options.reductions == "published" and not options.removal
    if not (published or options.removal):
        yield partial(absorb, max_deviation=None if exactly else options.max_deviation)
    for index in hidden:
        yield partial(prune, index=index, unread=not published)
    most = options.max_deviation
    if not options.removal:
        yield lambda now: _edit(now, "folded", collapse(now, most))
    if published:
        yield lambda now: _edit(now, "merged", merge(now, most))
        yield lambda now: _edit(now, "folded", fold(now, most))
    elif not options.removal:
        yield lambda now: Edit(without_last_relu(now))
        for index in hidden:
            yield partial(_rewrite, index=index, options=options, exactly=exactly, tried=tried)


def _rewrite(state: State, index: int, options: ReduceOptions, exactly: bool, tried: Tried) -> Edit:
    seen = state.layers[: index + 3]
    if index + 1 >= len(state.layers) or tried.get(index) == seen:
        # The network is constant by now, or nothing has changed.
        return Edit(state)
    tried[index] = seen
    limit = state.limit(index, options.max_deviation)
    kinds = (COLUMNS,) if options.goal == VERIFY else ALL_KINDS
    return rewrite(state, index, None if exactly else limit, () if exactly else kinds)


def without_last_relu(state: State) -> State:
    """The state without the ReLU of the outputs where they are all stably active."""
    last = state.layers[-1]
    if not last.layer.relu or (last.status != Status.ACTIVE).any():
        return state
    linear = last.anew(Layer(last.layer.affine, relu=False))
    return state.with_layers(len(state.layers) - 1, len(state.layers), linear)


def _edit(before: State, what: str, done: tuple[State, tuple[Refusal, ...]]) -> Edit:
    """What a reduction of several layers at a time did."""
    state, refused = done
    width = {decided.source: decided.layer.width for decided in state.layers}
    counts = {
        (decided.source, what): decided.layer.width - width.get(decided.source, 0)
        for decided in before.layers
    }
    return Edit(state, counts, rounds=_shape(state) != _shape(before), refused=refused)


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
            *(start, options),
            *(folded or [False] * len(chain.layers), deadline or Deadline()),
        )
        known = {(r.layer, r.reason) for r in reduction.refused}
        said = (*staying.values(), *_dead_outputs(start))
        more = (r for r in said if (r.layer, r.reason) not in known)
        reduction = replace(reduction, refused=(*more, *reduction.refused))
        if not state.edits:
            reduction = replace(reduction, chain=chain)
        # A layer that cannot be written keeps its nodes, which a split network may not leave it.
        if options.goal != SIZE or unstorable(state, 0.0):
            return reduction
        form, forms = split(state, options.max_deviation)
        reduction = replace(reduction, forms=forms)
        return reduction if form is None else _in_split_form(reduction, state, form)


def _dead_outputs(start: State) -> tuple[Refusal, ...]:
    """What stays of a last layer since more than layers read it."""
    last = start.layers[-1]
    dead = int((last.status == Status.INACTIVE).sum()) if last.layer.relu else 0
    if not dead:
        return ()
    reason = "they are outputs of the chain, of which others know how many there are"
    return (Refusal("removing stably inactive units", last.source, reason, {"units": float(dead)}),)


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
    options: ReduceOptions,
    folded: Sequence[bool],
    deadline: Deadline,
) -> tuple[State, Reduction]:
    state, rounded = start, False
    counts: Counter[tuple[int, str]] = Counter()
    refused: dict[tuple[str, int, str], Refusal] = {}
    # First what is exact: what cancels is no part of any budget.
    exactly = options.reductions != "published" and not options.removal
    tried: Tried = {}
    while True:
        before = state
        for apply in _rewrites(state, options, exactly, tried):
            if deadline.passed:
                break
            edit = apply(state)
            refused |= {(r.what, r.layer, r.reason): r for r in edit.refused}
            if edit.state.edits == state.edits or state.thaws(edit.state):
                continue
            overflow = overflowing(state, edit.state)
            if overflow is not None:
                refused[overflow.what, overflow.layer, overflow.reason] = overflow
                continue
            state, rounded = edit.state, rounded or edit.rounds
            counts.update(edit.counts)
            # Layers that are no more are not to be kept in memory.
            for index in [i for i, seen in tried.items() if state.layers[: i + 3] != seen]:
                del tried[index]
        same = state.edits == before.edits
        if deadline.passed or (same and (options.simplify or not exactly)):
            break
        if same:
            exactly, state, tried = False, state.budgeted() if state.edits else state, {}
    if options.goal == VERIFY and state.edits and not (options.removal or deadline.passed):
        lifted = shifted(state, options.max_deviation)
        rounded, state = rounded or lifted.edits > state.edits, lifted
    reduced = state
    state, refusals = store(start, state, folded, options.max_deviation)
    refused |= {(r.what, r.layer, r.reason): r for r in refusals}
    rounded |= any(
        not a.layer.affine.equals(b.layer.affine)
        for a, b in zip(state.layers, reduced.layers, strict=False)
    )
    if not state.edits:
        rounded, counts = False, Counter()
    origins = [decided.origin for decided in state.layers]
    if rounded:
        sizes = (start.input_magnitude(origin.source) for origin in origins)
        origins = [
            with_places(origin, start.layers[origin.source], size, start.unit_roundoff)
            for origin, size in zip(origins, sizes, strict=True)
        ]
    widths = {decided.source: decided.layer.width for decided in state.layers}
    layers = tuple(
        LayerReduction(
            decided.layer.width,
            **{what: counts[index, what] for what in WAYS},
            units_after=widths.get(index, 0),
        )
        for index, decided in enumerate(start.layers)
    )
    return state, Reduction(
        state.chain,
        state.edits > 0,
        not rounded,
        layers,
        tuple(origins),
        tuple(refused.values()),
        state.gone,
    )


def _shape(state: State) -> tuple[int, ...]:
    """The widths of the layers."""
    return tuple(decided.layer.width for decided in state.layers)
