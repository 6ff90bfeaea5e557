"""The split form: what stably active units compute goes around the ReLU.

With S the stably active units of a layer and U the others, on the domain

    V h' + c = V_U h_U + V_S (W_S h + b_S) + c = V_U h_U + M h + (c + V_S b_S),   M = V_S W_S:

the next layer reads the layer's own input h by M, and the units S go. Unlike in the chain form
nothing is shifted, and no more is added up: |M| <= |V_S| |W_S|. With n inputs, m units in the next
layer and s units in S that takes m n connections in place of s (m + n), which is less whenever s is
m or n, and a second matrix product. The layers on both sides of such a layer stay whole, so that
what is read is a tensor of the graph: of the layers for which it pays those are chosen, no two of
them next to each other, that save most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.decide.verdict import Status
from onnx_exact.methods import CHAIN_FORM, SPLIT_FORM
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.approximate import Approximate
from onnx_exact.network.chain import Layer
from onnx_exact.network.rounding import gamma
from onnx_exact.network.split import SplitChain
from onnx_exact.reduce.budget import allowance, reach
from onnx_exact.reduce.state import State


@dataclass(frozen=True)
class FormChoice:
    """Why a layer has the form it has; only for those where the split form saves connections.

    Attributes:
        layer: index of the layer of the original chain.
        form: CHAIN_FORM or SPLIT_FORM.
        reason: in words.
        numbers: connections of the linear part in both forms; bounds on what evaluating the next
            layer's pre-activations may round off, and on what storing the product moves, for the
            row with the most.
    """

    layer: int
    form: str
    reason: str
    numbers: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Split:
    """The split form of a chain.

    Attributes:
        chain: the layers; weights as the dtype stores them.
        around: for each layer, which of its units went around its ReLU.
        off: for each layer, what writing the matrix that it reads around the layer before it moves
            its pre-activations by at most; None for none.
    """

    chain: SplitChain
    around: tuple[NDArray[np.bool_], ...]
    off: tuple[Array | None, ...]


@dataclass(frozen=True, eq=False)
class _Bypass:
    """A layer's stably active units as a matrix around it."""

    matrix: Array
    bias: Array
    saved: int
    moved: Array
    admitted: bool
    numbers: Mapping[str, float]


def split(state: State, max_deviation: float) -> tuple[Split | None, tuple[FormChoice, ...]]:
    """The split form of a state that is reduced in the chain form, None where that stays.

    Args:
        state: the network with verdicts.
        max_deviation: see `onnx_exact.reduce.budget`.
    """
    found = {
        index: _bypass(state, index, state.limit(index, max_deviation))
        for index in range(len(state.layers) - 1)
    }
    pays = {index: bypass for index, bypass in found.items() if bypass and bypass.saved > 0}
    gains = [
        pays[index].saved if index in pays and pays[index].admitted else 0
        for index in range(len(state.layers))
    ]
    taken = _most_apart(gains)
    choices = []
    for index, bypass in pays.items():
        of, reason = SPLIT_FORM, f"saves {bypass.saved:,} connections"
        if index not in taken:
            of, reason = CHAIN_FORM, "the layer next to it saves more when split"
            if not bypass.admitted:
                reason = "the product would deviate by more than is allowed"
        choices.append(FormChoice(state.layers[index].source, of, reason, bypass.numbers))
    return (_split(state, {i: pays[i] for i in taken}) if taken else None), tuple(choices)


def _bypass(state: State, index: int, max_deviation: float) -> _Bypass | None:
    """The bypass around a layer; None where it has no stably active units, or no others."""
    decided, after = state.layers[index], state.layers[index + 1]
    active = decided.status == Status.ACTIVE
    if not decided.layer.relu or not active.any() or active.all():
        return None
    first, second = decided.layer.affine, after.layer.affine
    incoming, outgoing, bias = first.weight[active], second.weight[:, active], first.bias[active]
    with np.errstate(over="ignore", invalid="ignore"):
        read = Approximate(outgoing)
        exact = read @ Approximate(incoming)
        exact_bias = Approximate(second.bias) + read @ Approximate(bias)
        matrix, new_bias = state.stored(exact.value), state.stored(exact_bias.value)
        size = state.input_magnitude(index)
        moved = reach(np.abs(matrix - exact.value) + exact.off, size)
        moved = moved + np.abs(new_bias - exact_bias.value) + exact_bias.off
        moved = moved * (1.0 + gamma(first.n_in))
        # What the float64 product may be off by counts on both sides.
        in_product = gamma(int(active.sum()) + 1)
        rounding = (state.unit_roundoff + in_product) * state.terms(index + 1)
        rest = second.weight[:, ~active]
        inner = reach(first.weight[~active], size) + np.abs(first.bias[~active])
        new_terms = reach(rest, inner) + reach(rest, decided.magnitude[~active])
        new_terms = new_terms + reach(matrix, size) + np.abs(new_bias)
        new_rounding = (state.unit_roundoff + in_product) * new_terms
    units = int(active.sum())
    before = units * (first.n_in + second.n_out)
    numbers = {
        "connections_chain": float(before),
        "connections_split": float(matrix.size),
        "rounding_chain": float(rounding.max()),
        "rounding_split": float(new_rounding.max()),
        "deviation": float(moved.max()),
    }
    # Where nothing else changed, numbers that reading computed are not those of the dtype.
    stored = (first.weight, first.bias, second.weight)
    admitted = all(np.array_equal(state.stored(v), v) for v in stored)
    # Nor are they those that the file stands for where reading has rounded them.
    admitted &= first.error is None and second.error is None
    admitted &= all(np.isfinite(v).all() for v in (matrix, new_bias, moved))
    # Nothing finite becomes infinite, in whatever order the two products are added up.
    admitted &= bool((new_terms < float(np.finfo(state.dtype).max)).all())
    return _Bypass(
        matrix,
        new_bias,
        before - matrix.size,
        moved,
        admitted and bool((moved <= allowance(max_deviation, rounding)).all()),
        {name: number for name, number in numbers.items() if np.isfinite(number)},
    )


def _most_apart(gains: list[int]) -> set[int]:
    """Places with the greatest sum of gains, no two of them neighbours, none without a gain."""
    # The best over the places so far, without and with the last of them.
    without: tuple[int, set[int]] = (0, set())
    with_last: tuple[int, set[int]] = (0, set())
    for place, gain in enumerate(gains):
        chosen = (without[0] + gain, without[1] | {place}) if gain > 0 else without
        without = max(without, with_last, key=lambda best: best[0])
        with_last = chosen
    return max(without, with_last, key=lambda best: best[0])[1]


def _split(state: State, taken: Mapping[int, _Bypass]) -> Split:
    """The state's chain with the bypasses in place."""
    layers: list[Layer] = []
    bypasses: list[Array | None] = []
    units, off = [], []
    for index, decided in enumerate(state.layers):
        affine, others = decided.layer.affine, decided.status != Status.ACTIVE
        around = taken.get(index - 1)
        if around is not None:
            read = state.layers[index - 1].status != Status.ACTIVE
            affine = Affine(affine.weight[:, read], around.bias)
        if index in taken:
            affine = affine.rows(others)
        same = affine is decided.layer.affine
        layers.append(decided.layer if same else Layer(affine, decided.layer.relu))
        bypasses.append(None if around is None else around.matrix)
        units.append(~others if index in taken else np.zeros(others.size, dtype=bool))
        off.append(None if around is None else around.moved)
    chain = SplitChain(tuple(layers), tuple(bypasses))
    return Split(chain, tuple(units), tuple(off))
