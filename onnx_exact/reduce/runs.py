"""Runs of linear layers become one layer or two.

Layers are linear on the domain where they have no ReLU or all their units are stably active. A run
of them, W_1 x + b_1 to W_k h + b_k, and the layer V after it are a single affine map

    V W_k ... W_1 x + (V (W_k ( ... b_1 ...) + b_k) + c),

with m n entries for n inputs and m units behind, or two maps by way of any one of the layers, with
w (n + m) entries for its width w. Of two layers that stay, the wider one could go: so that either
the direct way or the one by the narrowest layer has the fewest entries, and is taken.
"""

from __future__ import annotations

from dataclasses import replace

from onnx_exact.decide.verdict import Status
from onnx_exact.network.chain import Layer
from onnx_exact.reduce.budget import Refusal
from onnx_exact.reduce.fold import product
from onnx_exact.reduce.state import Decided, State


def fold_runs(state: State, max_deviation: float) -> tuple[State, tuple[Refusal, ...]]:
    """The state with every run folded as far as it saves connections, and what was refused.

    Args:
        state: the network with verdicts.
        max_deviation: in units of the model's own rounding, see `onnx_exact.reduce.budget`.
    """
    refused: list[Refusal] = []
    stop = len(state.layers) - 1
    state = _without_last_relu(state)
    while stop > 0:
        start = stop
        while start > 0 and _is_linear(state.layers[start - 1]):
            start -= 1
        if start < stop:
            state, refusal = _fold_run(state, start, stop, max_deviation)
            refused += refusal
        stop = start - 1
    return state, tuple(refused)


def _is_linear(decided: Decided) -> bool:
    return not decided.layer.relu or bool((decided.status == Status.ACTIVE).all())


def _without_last_relu(state: State) -> State:
    """The state without the ReLU of the outputs where they are all stably active."""
    last = state.layers[-1]
    if not (last.layer.relu and _is_linear(last)):
        return state
    linear = replace(last, layer=Layer(last.layer.affine, relu=False))
    return state.with_layers(len(state.layers) - 1, len(state.layers), linear)


def _fold_run(
    state: State, start: int, stop: int, max_deviation: float
) -> tuple[State, list[Refusal]]:
    """Folds the linear layers [start, stop) and the layer after them, where that saves anything."""
    part = state.layers[start : stop + 1]
    n_in, n_out = part[0].layer.affine.n_in, part[-1].layer.width
    narrowest = min(range(len(part) - 1), key=lambda i: part[i].layer.width)
    direct, by_way = n_in * n_out, part[narrowest].layer.width * (n_in + n_out)
    before = sum(decided.layer.affine.weight.size for decided in part)
    ends = [narrowest, len(part) - 1] if by_way < direct else [len(part) - 1]
    source = part[0].source
    numbers = {"connections_folded": float(min(direct, by_way)), "connections": float(before)}
    if len(ends) == len(part):
        reason = "the product would have more connections than its factors"
        numbers["connections_folded"] = float(direct)
        return state, [Refusal("fold", source, reason, numbers)]
    folded, first = [], start
    for end in ends:
        layer = product(state, first, start + end, max_deviation)
        if isinstance(layer, Refusal):
            return state, [replace(layer, numbers={**numbers, **layer.numbers})]
        folded.append(layer)
        first = start + end + 1
    return state.with_layers(start, stop + 1, *folded), []
