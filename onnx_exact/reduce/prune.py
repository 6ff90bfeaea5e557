"""Stably inactive units are removed.

    h_i = max(g_i, 0) = 0 on the domain for i in I,  hence  W_next h + b = W_next[:, K] h_K + b

with K the other units. Nothing is rounded: the rows and columns that stay are as they were.
"""

from __future__ import annotations

from onnx_exact.decide.verdict import Status
from onnx_exact.reduce.state import State


def prune(state: State) -> State:
    """The state without stably inactive units, or `state` itself where there are none.

    A layer whose units are all inactive is left to `collapse`; the outputs keep their width.
    """
    for index in range(len(state.layers) - 1):
        decided = state.layers[index]
        kept = decided.status != Status.INACTIVE
        if not decided.layer.relu or kept.all() or not kept.any():
            continue
        if not state.may_drop_units(index):
            continue
        narrowed = state.layers[index + 1].reading(kept)
        state = state.with_layers(index, index + 2, decided.keep(kept), narrowed)
    return state
