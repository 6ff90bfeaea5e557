"""Networks with verdicts, written down by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnx_exact.network import Affine, Box, Chain
from onnx_exact.reduce.state import State
from onnx_exact.stability.decide import Options, analyze_chain

Rows = Sequence[Sequence[float]]


def affine(weight: Rows, bias: Sequence[float]) -> Affine:
    return Affine(np.array(weight, dtype=np.float64), np.array(bias, dtype=np.float64))


def state(*affines: Affine, low: float = 0.0, high: float = 1.0, dtype: Any = np.float32) -> State:
    """Alternating layers over a box with the same sides everywhere, decided by bounds alone."""
    chain = Chain.of(affines)
    box = Box(np.full(chain.n_in, low), np.full(chain.n_in, high))
    stability = analyze_chain(chain, box, Options(method="bounds"))
    return State.of(chain, stability, box, np.dtype(dtype))


def numbers(state: State) -> list[tuple[list[list[float]], list[float]]]:
    """The weights and biases of every layer."""
    return [
        (layer.affine.weight.tolist(), layer.affine.bias.tolist()) for layer in state.chain.layers
    ]
