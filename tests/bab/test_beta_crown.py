"""Steps on slopes and multipliers: near the optimum, never worse, and sound whatever comes out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_exact.bab.relu_split.beta_crown import Ascent
from onnx_exact.bab.relu_split.dual_simplex import Program
from onnx_exact.bab.relu_split.subproblems import Cases, Functional, Signs
from onnx_exact.bounds.crown import Relaxation
from onnx_exact.network import Affine, Box
from onnx_exact.network.affine import Array
from tests.bab.test_dual_simplex import draw_signs, inside
from tests.nets import (
    cube,
    nasty_boxes,
    nasty_chains,
    random_chain,
    relaxations_of,
)

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
        unstable = (layer.upper_slope > 0.0) & (layer.upper_slope < 1.0)
        assert (losses[assumed | ~unstable] == 0.0).all()
        assert (losses >= 0.0).all()
    assert sum(losses.sum() for losses in found.losses) > 0.0


def plain_value(
    row: Affine, below: list[Relaxation], box: Box, slopes: list[Array], multipliers: list[Array]
) -> float:
    """The bound with given slopes and signed multipliers, without any care for rounding."""
    coefficients: Array = row.weight[0]
    constant: float = row.bias[0].item()
    for layer, slope, extra in zip(
        reversed(below), reversed(slopes), reversed(multipliers), strict=True
    ):
        positive, negative = np.maximum(coefficients, 0.0), np.minimum(coefficients, 0.0)
        constant += (positive @ layer.upper_offset).item()
        through = positive * layer.upper_slope + negative * slope + extra
        constant += (through @ layer.affine.bias).item()
        coefficients = through @ layer.affine.weight
    corner = np.where(coefficients > 0.0, box.upper, box.lower)
    return constant + float((coefficients * corner).sum())


def test_without_assumptions_steps_lead_below_every_random_choice_of_slopes() -> None:
    chain, box = random_chain(7, 5, 10, 10, 1), cube(5, -1.0, 1.0)
    below, row = relaxations_of(chain, box)[:-1], chain.layers[-1].affine
    none = [np.zeros((1, layer.affine.n_out), dtype=np.int8) for layer in below]
    start = Functional(row, below, box).fresh(none)
    found = Ascent(row, below, box).run(none, list(start.slopes), list(start.multipliers), 100)
    nothing = [np.zeros(layer.affine.n_out) for layer in below]
    reached = plain_value(row, below, box, [a[0] for a in found.slopes], nothing)
    rng = np.random.default_rng(0)
    for _ in range(300):
        slopes = [
            np.where(
                (layer.upper_slope > 0.0) & (layer.upper_slope < 1.0),
                rng.random(layer.affine.n_out),
                layer.lower_slope,
            )
            for layer in below
        ]
        assert reached <= plain_value(row, below, box, slopes, nothing) + 1e-4
