"""A layer whose units are all stably active is folded into the next.

    h = W x + b on the domain,  hence  V h + c = (V W) x + (V b + c)

Done where the product has no more entries than its factors. The rounding of the stored product is
at most u |V| |W| |x| and so within one rounding of the model's own terms.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnx_exact.decide.verdict import Status
from onnx_exact.methods import DEFAULT_MAX_DEVIATION
from onnx_exact.network.approximate import numbers_of
from onnx_exact.network.chain import Layer
from onnx_exact.network.rounding import gamma
from onnx_exact.reduce.budget import Refusal, allowance, figures, reach
from onnx_exact.reduce.state import Decided, State


def fold(
    state: State, max_deviation: float = DEFAULT_MAX_DEVIATION
) -> tuple[State, tuple[Refusal, ...]]:
    """The state with one stably active layer less, or `state` itself, and what was refused.

    Args:
        state: the network with verdicts.
        max_deviation: in units of the model's own rounding, see `onnx_exact.reduce.budget`.
    """
    refused: list[Refusal] = []
    for index, decided in enumerate(state.layers):
        if not decided.layer.relu or (decided.status != Status.ACTIVE).any():
            continue
        if index == len(state.layers) - 1:
            linear = replace(decided, layer=Layer(decided.layer.affine, relu=False))
            return state.with_layers(index, index + 1, linear), tuple(refused)
        first, second = decided.layer.affine, state.layers[index + 1].layer.affine
        after = first.n_in * second.n_out
        before = first.weight.size + second.weight.size
        numbers = {"connections_folded": float(after), "connections": float(before)}
        if after > before:
            reason = "the product would have more connections than its factors"
            refused.append(Refusal("fold", decided.source, reason, numbers))
            continue
        folded = product(state, index, index + 1, max_deviation)
        if isinstance(folded, Refusal):
            refused.append(replace(folded, numbers={**numbers, **folded.numbers}))
            continue
        return state.with_layers(index, index + 2, folded), tuple(refused)
    return state, tuple(refused)


def product(state: State, first: int, last: int, max_deviation: float) -> Decided | Refusal:
    """Layers [first, last], all but the last of them linear, as one, or why not.

    What the float64 product rounds, and what its factors are off by, counts as moved.
    """
    layers = state.layers[first : last + 1]
    max_deviation = min(state.limit(i, max_deviation) for i in range(first, last + 1))
    if len(layers) == 1:
        return layers[0]
    size = state.input_magnitude(first)
    affines = [decided.layer.affine for decided in layers]
    weight, bias = numbers_of(affines[0])
    terms = reach(weight.value, size) + np.abs(bias.value)
    with np.errstate(over="ignore", invalid="ignore"):
        for affine in affines[1:]:
            terms = reach(affine.weight, terms) + np.abs(affine.bias)
            factor, shift = numbers_of(affine)
            weight, bias = factor @ weight, factor @ bias + shift
        stored = state.stored(weight.value), state.stored(bias.value)
        if not all(np.isfinite(values).all() for values in stored):
            return Refusal("fold", layers[0].source, f"the product does not fit {state.dtype}")
        moved = reach(np.abs(stored[0] - weight.value) + weight.off, size)
        moved = moved + np.abs(stored[1] - bias.value) + bias.off
        # What float64 itself rounds is allowed for: a model of that type rounds as much.
        unit = state.unit_roundoff + sum(gamma(affine.n_in) for affine in affines)
        allowed = allowance(max_deviation, unit * terms)
    if (moved <= allowed).all():
        return layers[-1].with_affine(*stored)
    reason = "rounding the product would deviate by more than is allowed"
    return Refusal("fold", layers[0].source, reason, figures(moved, allowed))
