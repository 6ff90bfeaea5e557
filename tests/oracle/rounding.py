"""How far an evaluation in a model's own arithmetic may be off: the measure for rounded weights."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from onnx_exact.network import Box, Chain
from tests.oracle.exact import exact_layers


def own_rounding(chain: Chain, box: Box, dtype: np.dtype[np.floating[Any]]) -> list[Fraction]:
    """What evaluating a chain in `dtype` may add to each output (Higham 2002, section 3.1).

    gamma_N (|W^L| ( ... |W^1| |x| + |b^1| ... ) + |b^L|) with N the operations of all layers. A
    rewrite may round each weight that it computes, and so no output moves further.
    """
    sides = np.maximum(np.abs(box.lower), np.abs(box.upper))
    magnitude = [Fraction(float(side)) for side in sides]
    operations = 0
    for layer in exact_layers(chain):
        operations += len(magnitude) + 2
        magnitude = [
            (sum(abs(w) * m for w, m in zip(row, magnitude, strict=True)) + abs(b)) / layer.scale
            for row, b in zip(layer.weight, layer.bias, strict=True)
        ]
    unit_roundoff = Fraction(float(np.finfo(dtype).eps)) / 2
    gamma = operations * unit_roundoff / (1 - operations * unit_roundoff)
    return [gamma * m for m in magnitude]
