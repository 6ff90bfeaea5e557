"""Programs under assumptions: proposals attain the optimum, and are sound whatever they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnx_exact.bab.relu_split.dual_simplex import Program
from onnx_exact.bab.relu_split.subproblems import Functional, Signs
from onnx_exact.bounds.crown import Relaxation
from onnx_exact.network import Affine, Box
from onnx_exact.network.affine import Array
from tests.nets import (
    bounded,
    box_of,
    chain_of,
    cube,
    nasty_boxes,
    nasty_chains,
    random_chain,
    relaxations_of,
)

# Relative to the size of the bound: what a solver leaves open.
LP_TOLERANCE = 1e-6
SECONDS = 600.0


def optimum(
    row: Affine, layers: Sequence[Relaxation], box: Box, signs: Sequence[Signs]
) -> float | None:
    """The optimum under assumptions, written down once more for scipy; None where there is none."""
    from scipy.optimize import linprog

    sizes = [box.lower.size, *(layer.affine.n_out for layer in layers)]
    starts = np.cumsum([0, *sizes])
    a, b, a_eq, b_eq = [], [], [], []
    bounds: list[tuple[float | None, float | None]]
    bounds = [(float(low), float(high)) for low, high in zip(box.lower, box.upper, strict=True)]
    for k, layer in enumerate(layers):
        for i in range(layer.affine.n_out):
            g, h = np.zeros((2, starts[-1]))
            g[starts[k] : starts[k + 1]] = layer.affine.weight[i]
            h[starts[k + 1] + i] = 1.0
            bias, slope, offset = layer.affine.bias[i], layer.upper_slope[i], layer.upper_offset[i]
            sign = int(signs[k][i])
            if 0.0 < slope < 1.0 and not sign:
                a += [g - h, h - slope * g]
                b += [-bias, slope * bias + offset]
                bounds.append((0.0, None))
                continue
            if 0.0 < slope < 1.0:
                slope = max(sign, 0)
                a.append(-sign * g)
                b.append(sign * bias)
            a_eq.append(h - slope * g)
            b_eq.append(slope * bias)
            bounds.append((None, None))
    c = np.zeros(starts[-1])
    c[starts[-2] :] = -row.weight[0]
    rows = {"A_ub": a or None, "b_ub": b or None, "A_eq": a_eq or None, "b_eq": b_eq or None}
    answer = linprog(c, bounds=bounds, method="highs", **rows)
    assert answer.status in (0, 2)
    return None if answer.status else float(row.bias[0] - answer.fun)


def draw_signs(rng: np.random.Generator, layers: Sequence[Relaxation]) -> list[Signs]:
    """Assumptions on some of the units, each of either sign."""
    return [
        rng.choice(np.array([-1, 0, 0, 1], dtype=np.int8), size=layer.affine.n_out)
        * ((layer.upper_slope > 0.0) & (layer.upper_slope < 1.0)).astype(np.int8)
        for layer in layers
    ]


@pytest.mark.parametrize("scale", [1.0, 2.0**-40])
@pytest.mark.parametrize("widths", [(3, 5, 2), (3, 6, 5, 2), (4, 6, 6, 5, 2)])
def test_one_program_attains_the_optimum_for_one_set_of_assumptions_after_another(
    widths: tuple[int, ...], scale: float
) -> None:
    chain, box = random_chain(sum(widths), *widths), cube(widths[0], -1.0, 1.0)
    below, affine = relaxations_of(chain, box)[:-1], chain.layers[-1].affine
    row = Affine(scale * affine.weight[[0]], scale * affine.bias[[0]])
    program, functional = Program(row, below, box), Functional(row, below, box)
    rng = np.random.default_rng(0)
    possible = 0
    for _ in range(40):
        signs = draw_signs(rng, below)
        answer = program.solve(signs, SECONDS)
        # Costs as small as that would be nothing to the solver of the other program.
        best = optimum(affine.rows(np.array([0])), below, box, signs)
        assert answer is not None
        bounds = functional.bounds(answer.cases)
        if best is None:
            assert answer.point is None
            assert (bounds <= 0.0).any()
            continue
        possible += 1
        best *= scale
        assert bounds.size == 1
        tolerance = LP_TOLERANCE * max(scale, abs(best))
        # Intervals of the layers on the way may beat the program.
        assert bounds[0] <= best + tolerance
        assert answer.point is not None
        assert answer.point.shape == (widths[0],)
        assert functional.values(answer.point[None])[0] <= best + tolerance or any(
            s.any() for s in signs
        )
    assert possible >= 5


def inside(signs: Sequence[Signs], values: Sequence[Array]) -> NDArray[np.bool_]:
    """Which points satisfy assumptions."""
    holds = [(s * v >= 0.0).all(axis=1) for s, v in zip(signs, values, strict=False)]
    return np.asarray(np.logical_and.reduce(holds))


@settings(max_examples=100)
@given(st.data())
def test_whatever_is_proposed_is_sound(data: st.DataObject) -> None:
    """Bounds hold wherever the assumptions do, whatever the solver makes of the numbers."""
    chain = data.draw(nasty_chains())
    box = data.draw(nasty_boxes(chain.n_in))
    if len(chain.layers) == 1:
        return
    _, layers = bounded(chain, box)
    last = len(chain.layers) - 1
    below, affine = layers.below(last), chain.layers[last].affine
    row = affine.rows(np.array([0]))
    rng = np.random.default_rng(data.draw(st.integers(0, 100)))
    signs = draw_signs(rng, below)
    with np.errstate(over="ignore", invalid="ignore"):
        answer = Program(row, below, box).solve(signs, SECONDS)
        if answer is None:
            return
        bounds = Functional(row, below, box).bounds(answer.cases)
        points = np.concatenate([box.sample(rng, 50), box.corners(rng, 50)])
        values = chain.preactivations(points)
        reach = np.abs(row.weight) @ below[-1].magnitude + np.abs(row.bias)
        there = inside(signs, values)
        # What float64 makes of a forward pass is exact to a share of the terms' sum.
        assert not (values[last][there, 0] > bounds.min() + 1e-9 * reach[0]).any()


def test_a_program_without_unstable_units_has_an_optimum() -> None:
    chain, box = chain_of(([[1.0], [-1.0]], [1.0, 2.0]), ([[1.0, 2.0]], [0.0])), cube(1, -1.0, 1.0)
    below = relaxations_of(chain, box)[:-1]
    answer = Program(chain.layers[-1].affine, below, box).solve([np.zeros(2, np.int8)], SECONDS)
    assert answer is not None
    functional = Functional(chain.layers[-1].affine, below, box)
    assert functional.bounds(answer.cases)[0] == pytest.approx(6.0)


def test_without_time_there_is_no_optimum() -> None:
    chain, box = random_chain(7, 20, 60, 60, 1), box_of([0.0] * 20, [1.0] * 20)
    below = relaxations_of(chain, box)[:-1]
    program = Program(chain.layers[-1].affine, below, box)
    assert program.solve([np.zeros(60, np.int8)] * 2, 0.0) is None
