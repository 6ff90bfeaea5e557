"""A network that is constant over the domain becomes its constant.

If every unit of a layer is stably inactive, or a weight matrix is zero, everything after it is the
image of one point: h^l = 0 gives h^(l+1) = max(b^(l+1), 0) and so on.
"""

from __future__ import annotations

import numpy as np

from onnx_exact.decide.verdict import Status
from onnx_exact.methods import DEFAULT_MAX_DEVIATION
from onnx_exact.network.affine import Affine
from onnx_exact.network.approximate import Approximate, numbers_of
from onnx_exact.network.chain import Layer
from onnx_exact.reduce.budget import Refusal, allowance, figures
from onnx_exact.reduce.state import State


def constant_output(state: State) -> Approximate | None:
    """The output of a chain known to be constant, shape (outputs,), else None."""
    for index in range(len(state.layers) - 1, -1, -1):
        decided = state.layers[index]
        if decided.layer.relu and (decided.status == Status.INACTIVE).all():
            value = Approximate(np.zeros(decided.layer.width))
        elif not decided.layer.affine.reads.any():
            _, bias = numbers_of(decided.layer.affine)
            value = bias.rectified if decided.layer.relu else bias
        else:
            continue
        for later in state.layers[index + 1 :]:
            weight, bias = numbers_of(later.layer.affine)
            value = weight @ value + bias
            value = value.rectified if later.layer.relu else value
        return value
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
    width = value.value.size
    stored = state.stored(value.value)
    last = state.layers[-1]
    if not np.isfinite(stored).all():
        reason = f"the constant does not fit {state.dtype}"
        return state, (Refusal("collapse", last.source, reason),)
    smallest = float(np.finfo(state.dtype).smallest_subnormal)
    # What float64 rounds is allowed for: a model of that type rounds as much.
    rounding = state.unit_roundoff * np.abs(value.value) + smallest + value.off
    limit = min(state.limit(index, max_deviation) for index in range(len(state.layers)))
    allowed = allowance(limit, rounding)
    moved = np.abs(stored - value.value) + value.off
    if (moved > allowed).any():
        reason = "rounding the constant would deviate by more than is allowed"
        return state, (Refusal("collapse", last.source, reason, figures(moved, allowed)),)
    affine = Affine(np.zeros((width, state.layers[0].layer.affine.n_in)), stored)
    status = np.full(width, Status.ACTIVE, dtype=np.int8)
    single = last.anew(Layer(affine, False), status=status, lower=stored, upper=stored)
    return state.with_layers(0, len(state.layers), single), ()
