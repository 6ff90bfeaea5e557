"""A network that is constant over the domain becomes its constant.

If every unit of a layer is stably inactive, or a weight matrix is zero, everything after it is the
image of one point: h^l = 0 gives h^(l+1) = max(b^(l+1), 0) and so on.
"""

from __future__ import annotations

import numpy as np

from onnx_exact.methods import DEFAULT_MAX_DEVIATION
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.chain import Chain, Layer
from onnx_exact.reduce.budget import Refusal, allowance, figures
from onnx_exact.reduce.state import Decided, State
from onnx_exact.stability.verdict import Status


def constant_output(state: State) -> Array | None:
    """The output of a chain known to be constant, shape (outputs,), else None."""
    for index in range(len(state.layers) - 1, -1, -1):
        decided = state.layers[index]
        if decided.layer.relu and (decided.status == Status.INACTIVE).all():
            value = np.zeros(decided.layer.width)
        elif not decided.layer.affine.weight.any():
            bias = decided.layer.affine.bias
            value = np.maximum(bias, 0.0) if decided.layer.relu else bias
        else:
            continue
        rest = tuple(later.layer for later in state.layers[index + 1 :])
        return Chain(rest).forward(value)[0] if rest else value
    return None


def collapse(
    state: State, max_deviation: float = DEFAULT_MAX_DEVIATION
) -> tuple[State, tuple[Refusal, ...]]:
    """The constant as a single layer with zero weights, or `state` itself, and what was refused.

    Args:
        state: the network with verdicts.
        max_deviation: in roundings of the constant, as those of `onnx_exact.reduce.budget`.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        value = constant_output(state)
    if value is None or state.chain.is_constant:
        return state, ()
    width = value.size
    stored = state.stored(value)
    last = state.layers[-1]
    if not np.isfinite(stored).all():
        reason = f"the constant does not fit {state.dtype}"
        return state, (Refusal("collapse", last.source, reason),)
    smallest = float(np.finfo(state.dtype).smallest_subnormal)
    allowed = allowance(max_deviation, state.unit_roundoff * np.abs(value) + smallest)
    moved = np.abs(stored - value)
    if (moved > allowed).any():
        reason = "rounding the constant would deviate by more than is allowed"
        return state, (Refusal("collapse", last.source, reason, figures(moved, allowed)),)
    affine = Affine(np.zeros((width, state.layers[0].layer.affine.n_in)), stored)
    status = np.full(width, Status.ACTIVE, dtype=np.int8)
    single = Decided(Layer(affine, False), status, stored, stored, last.origin)
    return state.with_layers(0, len(state.layers), single), ()
