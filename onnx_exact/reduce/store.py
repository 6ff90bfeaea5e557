"""Numbers that reading a model computed are rounded to its dtype where their layer is rewritten.

A layer that is read from several nodes (a product of two matrices, a scale that follows one) has
weights in float64 that the file does not hold. To round each of them by u |w| at most moves a
pre-activation by no more than one rounding of its terms, u (|W| X + |b|). A layer that stays keeps
its nodes, and nothing of it is rounded; but a product with fewer entries than its factors in the
file is written in any case.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_exact.network.operator import Blocks
from onnx_exact.reduce.budget import Refusal, allowance, figures
from onnx_exact.reduce.state import Decided, State


def unstorable(start: State, max_deviation: float) -> dict[int, Refusal]:
    """The layers that cannot be written anew, and so have to stay as they are, with the reason.

    Args:
        start: what was read.
        max_deviation: in units of the model's own rounding, see `onnx_exact.reduce.budget`.
    """
    found = {index: _stored(start, index, max_deviation) for index in range(len(start.layers))}
    return {index: stored for index, stored in found.items() if isinstance(stored, Refusal)}


def store(
    start: State, state: State, folded: Sequence[bool], max_deviation: float
) -> tuple[State, tuple[Refusal, ...]]:
    """The state with every layer that is written anew in numbers of the dtype; `start` if refused.

    Args:
        start: what was read.
        state: what it was reduced to.
        folded: for each layer of `start`, whether it is the product of larger factors in the file.
        max_deviation: in units of the model's own rounding, see `onnx_exact.reduce.budget`.
    """
    refused: list[Refusal] = []
    # The very layers that were read, and those of them that are written anew all the same.
    read = _staying(state, [False] * len(folded), len(start.layers))
    staying = _staying(state, folded, len(start.layers))
    for index, decided in enumerate(state.layers):
        if index in staying:
            continue
        limit = 0.0 if decided.source in state.frozen else max_deviation
        stored = _stored(state, index, limit)
        if isinstance(stored, Decided):
            state = state.with_layers(index, index + 1, stored)
        elif index in read and len(state.layers) == len(start.layers):
            refused.append(stored)
        else:
            return start, (stored,)
    return state, tuple(refused)


def _staying(state: State, folded: Sequence[bool], before: int) -> set[int]:
    """The layers of `state` that keep their nodes.

    Those that are the very layers that were read, products with fewer entries than their factors
    aside unless they may not be written; where there are fewer layers now than `before`, only in
    front of everything that changed and behind it.
    """
    count = len(state.layers)
    same = [
        decided.is_as_read and (not folded[decided.source] or decided.source in state.frozen)
        for decided in state.layers
    ]
    if count == before:
        return {index for index in range(count) if same[index]}
    front = next((index for index in range(count) if not same[index]), count)
    back = next((index for index in range(count) if not same[count - 1 - index]), count)
    return {*range(front), *range(count - back, count)}


def _stored(state: State, index: int, max_deviation: float) -> Decided | Refusal:
    """A layer in numbers of the dtype, as an object of its own, or why not."""
    decided = state.layers[index]
    affine = decided.layer.affine
    what = "store weights that reading computed"
    if isinstance(affine.linear, Blocks) and affine.error is None and state.dtype != np.float16:
        bias = state.stored(affine.bias)
        if np.array_equal(bias, affine.bias):
            # Nothing is rounded.
            return decided.with_affine(affine.linear, bias)
    weight, bias = state.stored(affine.weight), state.stored(affine.bias)
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        return Refusal(what, decided.source, f"a weight does not fit {state.dtype}")
    exact = np.column_stack([affine.weight, affine.bias]).ravel()
    off = np.zeros_like(exact)
    if affine.error is not None:
        off = np.column_stack([affine.error.weight, affine.error.bias]).ravel()
    moved = np.abs(np.column_stack([weight, bias]).ravel() - exact) + off
    # Entry by entry, whatever the inputs are. Subnormal numbers lie further apart. What reading has
    # rounded is bounded in the certified deviation.
    tiny = 0.5 * float(np.finfo(state.dtype).smallest_subnormal)
    allowed = allowance(max_deviation, state.unit_roundoff * np.abs(exact) + tiny + off)
    if (moved <= allowed).all():
        return decided.with_affine(weight, bias)
    reason = "rounding them would deviate by more than is allowed"
    return Refusal(what, decided.source, reason, figures(moved, allowed))
