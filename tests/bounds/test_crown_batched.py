"""Bounds on loose units over many boxes against points, single boxes, and rationals."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from onnx_exact.bounds import crown_batched as loose
from onnx_exact.bounds.crown import Relaxation, relax, upper_bounds
from onnx_exact.bounds.crown_batched import bound_loose
from onnx_exact.bounds.interval import interval_bounds
from onnx_exact.network import Affine, Box, Chain
from onnx_exact.network.affine import Array
from tests.nets import random_chain

BOXES = 12


def some_boxes(seed: int, inputs: int, size: float) -> Box:
    rng = np.random.default_rng(seed)
    low = rng.uniform(-1.0, 1.0 - size, (BOXES, inputs))
    return Box(low, low + size)


def relaxed(chain: Chain, box: Box) -> list[Relaxation]:
    """Relaxations of all layers but the last within their interval bounds."""
    low, high = box.lower, box.upper
    layers: list[Relaxation] = []
    for layer in chain.layers[:-1]:
        magnitude = np.maximum(np.abs(low), np.abs(high))
        lower, upper = interval_bounds(layer.affine, low, high)
        layers.append(relax(layer.affine, layer.relu, lower, upper, magnitude))
        low, high = layers[-1].low, layers[-1].high
    return layers


def tightened(chain: Chain, box: Box, asked: np.ndarray) -> tuple[Array, Array]:
    last = chain.layers[-1].affine
    lower, upper = np.full(asked.shape, -np.inf), np.full(asked.shape, np.inf)
    bound_loose(last, asked, relaxed(chain, box), box, lower, upper)
    return lower, upper


@pytest.mark.parametrize("size", [1.5, 0.3, 0.02])
@pytest.mark.parametrize("entries", [1, 500, loose.ENTRIES])
def test_no_point_of_a_box_lies_outside(
    monkeypatch: pytest.MonkeyPatch, size: float, entries: int
) -> None:
    monkeypatch.setattr(loose, "ENTRIES", entries)
    rng = np.random.default_rng(1)
    chain, box = random_chain(1, 3, 8, 8, 8, shift=0.3), some_boxes(1, 3, size)
    asked = rng.uniform(size=(BOXES, 8)) < np.linspace(0.0, 1.0, BOXES)[:, None]
    lower, upper = tightened(chain, box, asked)
    assert np.isfinite(lower[asked]).all()
    assert np.isfinite(upper[asked]).all()
    for i in range(BOXES):
        points = rng.uniform(box.lower[i], box.upper[i], (200, 3))
        values = chain.preactivations(points)[-1]
        assert (values >= lower[i] - 1e-9).all()
        assert (values <= upper[i] + 1e-9).all()


@pytest.mark.parametrize("seed", range(3))
def test_bounds_are_those_of_each_box_alone(seed: int) -> None:
    """Up to the interval bounds on the way, which only one of the two takes in."""
    chain, box = random_chain(seed, 3, 8, 8, 4), some_boxes(seed, 3, 0.05)
    lower, upper = tightened(chain, box, np.ones((BOXES, 4), dtype=bool))
    last = chain.layers[-1].affine
    negative = Affine(-last.entries, -last.bias)
    for i in range(BOXES):
        alone = Box(box.lower[i], box.upper[i])
        layers = relaxed(chain, alone)
        above, _ = upper_bounds(last, layers, alone)
        below, _ = upper_bounds(negative, layers, alone)
        assert (upper[i] >= above - 1e-12).all()
        assert (lower[i] <= -below + 1e-12).all()
        same = np.isclose(upper[i], above, rtol=1e-12) & np.isclose(lower[i], -below, rtol=1e-12)
        assert same.mean() >= 0.5


@pytest.mark.parametrize("scale", [1.0, 1e-120, 1e100])
def test_rounding_and_underflow_are_allowed_for(scale: float) -> None:
    """Where all units are active the range is that of a linear map, known in rationals."""
    rng = np.random.default_rng(0)
    first = Affine(rng.uniform(0.1, 1.0, (6, 3)) * scale, np.full(6, 0.1) * scale)
    second = Affine(rng.standard_normal((4, 6)) * scale, rng.standard_normal(4))
    box = Box(np.full((1, 3), 0.1), np.full((1, 3), 0.3))
    lower, upper = tightened(Chain.of([first, second]), box, np.ones((1, 4), dtype=bool))
    for unit in range(4):
        low = high = exact(second.bias[unit]) + dot(second.entries[unit], first.bias)
        for j in range(3):
            slope = dot(second.entries[unit], first.entries[:, j])
            ends = sorted(slope * exact(side[0, j]) for side in (box.lower, box.upper))
            low, high = low + ends[0], high + ends[1]
        assert exact(lower[0, unit]) <= low <= high <= exact(upper[0, unit])


def test_what_overflows_has_no_bound() -> None:
    large = np.finfo(np.float64).max / 8
    chain = Chain.of([Affine(np.eye(2), np.zeros(2)), Affine(np.full((1, 2), 16.0), np.zeros(1))])
    box = Box(np.full((1, 2), -large), np.full((1, 2), large))
    lower, upper = tightened(chain, box, np.ones((1, 1), dtype=bool))
    assert not np.isnan(lower).any()
    assert upper[0, 0] == np.inf


def exact(number: np.float64) -> Fraction:
    return Fraction(float(number))


def dot(left: Array, right: Array) -> Fraction:
    return sum((exact(a) * exact(b) for a, b in zip(left, right, strict=True)), Fraction(0))
