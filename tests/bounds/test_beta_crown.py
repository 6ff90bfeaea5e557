"""Steps on slopes and multipliers: near the optimum, never worse, and sound whatever comes out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnx_exact.bab.relu_split.subproblems import Functional
from onnx_exact.bounds.cases import Cases
from onnx_exact.bounds.crown import Relaxation, Signs
from onnx_exact.network import Affine, Box
from onnx_exact.network.affine import Array
from tests.nets import cube, nasty_boxes, nasty_chains, random_chain, relaxations_of


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
            g[starts[k] : starts[k + 1]] = layer.affine.entries[i]
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
    c[starts[-2] :] = -row.entries[0]
    rows = {"A_ub": a or None, "b_ub": b or None, "A_eq": a_eq or None, "b_eq": b_eq or None}
    answer = linprog(c, bounds=bounds, method="highs", **rows)
    assert answer.status in (0, 2)
    return None if answer.status else float(row.bias[0] - answer.fun)


def draw_signs(rng: np.random.Generator, layers: Sequence[Relaxation]) -> list[Signs]:
    """Assumptions on some of the units, each of either sign."""
    return [
        rng.choice(np.array([-1, 0, 0, 1], dtype=np.int8), size=layer.affine.n_out)
        * layer.unstable.astype(np.int8)
        for layer in layers
    ]


def inside(signs: Sequence[Signs], values: Sequence[Array]) -> NDArray[np.bool_]:
    """Which points satisfy assumptions."""
    holds = [(s * v >= 0.0).all(axis=1) for s, v in zip(signs, values, strict=False)]
    return np.asarray(np.logical_and.reduce(holds))


def several(functional: Functional, signs: list[list[Signs]]) -> Cases:
    """Fresh cases of several sets of assumptions."""
    return functional.fresh([np.array(layer) for layer in zip(*signs, strict=True)])


@pytest.mark.parametrize("widths", [(3, 8, 2), (6, 12, 10, 2), (4, 8, 8, 8, 2)])
def test_many_sets_of_assumptions_come_near_their_optima_at_once(widths: tuple[int, ...]) -> None:
    chain, box = random_chain(sum(widths), *widths), cube(widths[0], -1.0, 1.0)
    below, row = relaxations_of(chain, box)[:-1], chain.layers[-1].affine.rows(np.array([0]))
    functional = Functional(row, below, box)
    rng = np.random.default_rng(1)
    signs = [draw_signs(rng, below) for _ in range(80)]
    cases = several(functional, signs)
    before = functional.bounds(cases)
    after = functional.improve(cases, 100)
    assert (after.bounds <= before + 1e-6 * np.abs(before)).all()
    np.testing.assert_array_equal(after.bounds, functional.bounds(after.cases))
    left = []
    for i, assumed in enumerate(signs):
        best = optimum(row, below, box, assumed)
        if best is not None and best > 0.0 and before[i] > 1.01 * best:
            # Intervals of the layers on the way may beat the optimum.
            assert after.bounds[i] > 0.0
            left.append((after.bounds[i] - best) / (before[i] - best))
    assert len(left) >= 5
    assert np.median(left) < 0.05
    assert np.mean(left) < 0.25


@settings(max_examples=100)
@given(st.data())
def test_whatever_comes_out_is_sound(data: st.DataObject) -> None:
    chain = data.draw(nasty_chains())
    box = data.draw(nasty_boxes(chain.n_in))
    below = relaxations_of(chain, box)[:-1]
    if not below:
        return
    row = chain.layers[-1].affine.rows(np.array([0]))
    functional = Functional(row, below, box)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    signs = [draw_signs(rng, below) for _ in range(4)]
    found = functional.improve(several(functional, signs), 10)
    with np.errstate(over="ignore", invalid="ignore"):
        values = chain.preactivations(box.sample(rng, 200))
    for bound, assumed in zip(found.bounds, signs, strict=True):
        reached = values[-1][inside(assumed, values), 0]
        reached = reached[np.isfinite(reached)]
        sizes = np.abs(reached).max(initial=0.0)
        assert not (reached > bound + 1e-9 * (1.0 + sizes)).any()


def test_losses_belong_to_units_that_may_still_be_split_and_points_lie_in_the_box() -> None:
    chain, box = random_chain(5, 4, 9, 9, 1), cube(4, -1.0, 1.0)
    below, row = relaxations_of(chain, box)[:-1], chain.layers[-1].affine
    functional = Functional(row, below, box)
    rng = np.random.default_rng(3)
    signs = [draw_signs(rng, below) for _ in range(20)]
    found = functional.improve(several(functional, signs), 12)
    assert box.contains(found.points)
    for k, (layer, losses) in enumerate(zip(below, found.losses, strict=True)):
        assumed = np.array([s[k] for s in signs]) != 0
        assert (losses[assumed | ~layer.unstable] == 0.0).all()
        assert (losses >= 0.0).all()
    assert sum(losses.sum() for losses in found.losses) > 0.0


def test_where_every_sign_is_assumed_many_steps_come_near_the_optimum() -> None:
    """The relaxation is exact there: what is left to find are multipliers alone."""
    left = []
    for seed in range(6):
        chain, box = random_chain(seed, 3, 6, 5, 1), cube(3, -1.0, 1.0)
        below, row = relaxations_of(chain, box)[:-1], chain.layers[-1].affine
        values = chain.preactivations(box.sample(np.random.default_rng(seed), 30))
        pairs = zip(values, below, strict=False)
        signs = [(np.where(g >= 0.0, 1, -1) * r.unstable).astype(np.int8) for g, r in pairs]
        functional = Functional(row, below, box)
        cases = functional.fresh(signs)
        before, found = functional.bounds(cases), functional.improve(cases, 300)
        for i, bound in enumerate(found.bounds):
            best = optimum(row, below, box, [s[i] for s in signs])
            assert best is not None
            if best > 0.0 and before[i] > 1.01 * best:
                left.append((bound - best) / (before[i] - best))
    assert len(left) >= 20
    assert np.median(left) < 0.01
    assert max(left) < 0.2
