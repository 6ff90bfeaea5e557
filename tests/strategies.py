"""Hypothesis strategies for affine maps, boxes, chains and whole cases."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnx_exact.network import Affine, Box, Chain, Layer
from tests.oracle.networks import QUARTER, Case, build

MAX_SIZE = 4
MAX_LAYERS = 3
# Large enough to be ugly, small enough that no product overflows.
MAGNITUDE = 1e6

sizes = st.integers(1, MAX_SIZE)
numbers = st.floats(-MAGNITUDE, MAGNITUDE, allow_nan=False)


@st.composite
def affines(draw: st.DrawFn, n_in: int | None = None) -> Affine:
    """Affine maps with finite entries."""
    columns = draw(sizes) if n_in is None else n_in
    weight = draw(arrays(np.float64, st.tuples(sizes, st.just(columns)), elements=numbers))
    return Affine(weight, draw(arrays(np.float64, len(weight), elements=numbers)))


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    """Chains with and without ReLUs between the layers."""
    layers: list[Layer] = []
    for _ in range(draw(st.integers(1, MAX_LAYERS))):
        n_in = layers[-1].width if layers else None
        layers.append(Layer(draw(affines(n_in)), draw(st.booleans())))
    return Chain(tuple(layers))


@st.composite
def boxes(draw: st.DrawFn, n: int | None = None, finite: bool = False) -> Box:
    """Boxes with finite, infinite and degenerate sides."""
    size = draw(sizes) if n is None else n
    bound = numbers if finite else numbers | st.sampled_from([-np.inf, np.inf])
    sides = st.tuples(bound, bound).map(sorted).filter(lambda s: s[0] < np.inf and s[1] > -np.inf)
    low, high = zip(*draw(st.lists(sides, min_size=size, max_size=size)), strict=True)
    return Box(np.array(low), np.array(high))


class _Drawn:
    """Choices by hypothesis: indices and multiples of 1/4, which shrink towards 0."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def number(self) -> float:
        return QUARTER * self._draw(st.integers(-8, 8))

    def gap(self) -> float:
        return QUARTER * self._draw(st.integers(0, 2))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Small networks over a box, of the kinds that `tests.oracle.networks` builds."""
    return build(_Drawn(draw))
