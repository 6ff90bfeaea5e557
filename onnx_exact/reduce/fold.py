"""A layer whose units are all stably active is folded into the next.

    h = W x + b on the domain,  hence  V h + c = (V W) x + (V b + c)

Done where the product has no more entries than its factors. The rounding of the stored product is
at most u |V| |W| |x| and so within one rounding of the model's own terms.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnx_exact.network.chain import Layer
from onnx_exact.reduce.budget import Refusal
from onnx_exact.reduce.state import State
from onnx_exact.stability.verdict import Status


def fold(state: State) -> tuple[State, tuple[Refusal, ...]]:
    """The state with one stably active layer less, or `state` itself, and what was refused."""
    refused: list[Refusal] = []
    for index, decided in enumerate(state.layers):
        if not decided.layer.relu or (decided.status != Status.ACTIVE).any():
            continue
        if index == len(state.layers) - 1:
            linear = replace(decided, layer=Layer(decided.layer.affine, relu=False))
            return state.with_layers(index, index + 1, linear), tuple(refused)
        first, second = decided.layer.affine, state.layers[index + 1].layer.affine
        product = first.n_in * second.n_out
        factors = first.weight.size + second.weight.size
        numbers = {"connections_folded": float(product), "connections": float(factors)}
        if product > factors:
            reason = "the product would have more connections than its factors"
            refused.append(Refusal("fold", decided.source, reason, numbers))
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            weight = state.stored(second.weight @ first.weight)
            bias = state.stored(second.weight @ first.bias + second.bias)
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            reason = f"the product does not fit {state.dtype}"
            refused.append(Refusal("fold", decided.source, reason, numbers))
            continue
        folded = state.layers[index + 1].with_affine(weight, bias)
        return state.with_layers(index, index + 2, folded), tuple(refused)
    return state, tuple(refused)
