"""Runs the reductions on a chain, one after another, until nothing changes."""

from __future__ import annotations

from dataclasses import dataclass

from threadpoolctl import threadpool_limits

from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.reduce.budget import FloatType, Refusal
from onnx_exact.reduce.collapse import collapse
from onnx_exact.reduce.fold import fold
from onnx_exact.reduce.merge import merge
from onnx_exact.reduce.prune import prune
from onnx_exact.reduce.state import State
from onnx_exact.stability.verdict import Stability


@dataclass(frozen=True)
class LayerReduction:
    """What became of the units of one layer of the original chain.

    Attributes:
        units: how many there were.
        removed: stably inactive.
        merged: stably active, now combinations of others.
        folded: in a layer that went into the next, or into the constant that the network is.
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
        chain: the new chain, its weights as the model's dtype stores them; the original object
            where nothing changed.
        changed: whether anything changed.
        removal_only: nothing but units were removed, so that no value is rounded.
        layers: one entry a layer of the original chain.
        refused: rewrites that were allowed by the verdicts and not made.
    """

    chain: Chain
    changed: bool
    removal_only: bool
    layers: tuple[LayerReduction, ...]
    refused: tuple[Refusal, ...]


def reduce_chain(chain: Chain, stability: Stability, box: Box, dtype: FloatType) -> Reduction:
    """Reduces a chain by the verdicts on its units; UNDECIDED ones are never touched.

    Args:
        chain: the original.
        stability: verdicts over `box`.
        box: shape (inputs,).
        dtype: float16, float32 or float64, in which the model stores its weights.

    Returns:
        The reduction; equal to the original over the reals on the box, up to the rounding of
        weights that had to be computed (see `onnx_exact.reduce.budget`).
    """
    with threadpool_limits(limits=1):  # see `analyze_chain`
        return _reduce(chain, stability, box, dtype)


def _reduce(chain: Chain, stability: Stability, box: Box, dtype: FloatType) -> Reduction:
    start = state = State.of(chain, stability, box, dtype)
    counts = [dict.fromkeys(("removed", "merged", "folded"), 0) for _ in chain.layers]
    refused: dict[tuple[str, int, str], Refusal] = {}
    rounded = False
    while True:
        pruned = prune(state)
        _count(counts, "removed", state, pruned)
        collapsed, collapse_refused = collapse(pruned)
        _count(counts, "folded", pruned, collapsed)
        merged, merge_refused = merge(collapsed)
        _count(counts, "merged", collapsed, merged)
        folded, fold_refused = fold(merged)
        _count(counts, "folded", merged, folded)
        rounded |= merged is not pruned or len(folded.layers) < len(merged.layers)
        for refusal in (*collapse_refused, *merge_refused, *fold_refused):
            refused[refusal.what, refusal.layer, refusal.reason] = refusal
        if folded is state:
            break
        state = folded
    changed = state is not start
    widths = _widths(state, len(chain.layers))
    layers = tuple(
        LayerReduction(layer.width, **count, units_after=width)
        for layer, count, width in zip(chain.layers, counts, widths, strict=True)
    )
    new = state.chain if changed else chain
    return Reduction(new, changed, not rounded, layers, tuple(refused.values()))


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
