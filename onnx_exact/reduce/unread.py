"""Units that the next layer does not read are removed.

    V_i = 0   hence   V h + c = V_K h_K + c     with K the other units

whatever the verdict on them. Nothing is rounded.
"""

from __future__ import annotations

import numpy as np

from onnx_exact.reduce.state import State


def unread(state: State) -> State:
    """The state without units that nobody reads, or `state` itself where there are none.

    From the last layer to the first: a unit that only such units read goes as well. A layer that
    reads nothing at all is left to `collapse`; the outputs keep their width.
    """
    for index in range(len(state.layers) - 2, -1, -1):
        after = state.layers[index + 1]
        kept = np.asarray(after.layer.affine.reads.any(axis=0))
        if kept.all() or not kept.any() or not state.may_drop_units(index):
            continue
        narrowed = after.reading(kept)
        state = state.with_layers(index, index + 2, state.layers[index].keep(kept), narrowed)
    return state
