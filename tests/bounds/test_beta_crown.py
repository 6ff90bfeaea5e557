"""Steps on slopes and multipliers: near the optimum, never worse, and sound whatever comes out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_exact.bab.relu_split.subproblems import Functional
from onnx_exact.bounds.cases import Cases
from onnx_exact.bounds.crown import Signs
from onnx_exact.bounds.dual_simplex import Program
from tests.bounds.test_dual_simplex import draw_signs, inside
from tests.nets import cube, nasty_boxes, nasty_chains, random_chain, relaxations_of

SECONDS = 600.0


def several(functional: Functional, signs: list[list[Signs]]) -> Cases:
    """Fresh cases of several sets of assumptions."""
    return functional.fresh([np.array(layer) for layer in zip(*signs, strict=True)])


@pytest.mark.parametrize("widths", [(3, 8, 2), (6, 12, 10, 2), (4, 8, 8, 8, 2)])
def test_many_sets_of_assumptions_come_near_their_optima_at_once(widths: tuple[int, ...]) -> None:
    chain, box = random_chain(sum(widths), *widths), cube(widths[0], -1.0, 1.0)
    below, row = relaxations_of(chain, box)[:-1], chain.layers[-1].affine.rows(np.array([0]))
    program, functional = Program(row, below, box), Functional(row, below, box)
    rng = np.random.default_rng(1)
    signs = [draw_signs(rng, below) for _ in range(80)]
    cases = several(functional, signs)
    before = functional.bounds(cases)
    after = functional.improve(cases, 100)
    assert (after.bounds <= before + 1e-6 * np.abs(before)).all()
    np.testing.assert_array_equal(after.bounds, functional.bounds(after.cases))
    left = []
    for i, assumed in enumerate(signs):
        answer = program.solve(assumed, SECONDS)
        assert answer is not None
        best = float(functional.bounds(answer.cases).min())
        if answer.point is not None and best > 0.0 and before[i] > 1.01 * best:
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
    points = box.sample(rng, 200)
    values = chain.preactivations(points)
    for bound, assumed in zip(found.bounds, signs, strict=True):
        reached = values[-1][inside(assumed, values), 0]
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
