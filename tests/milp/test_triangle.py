"""The linear relaxation: the bound it claims is the one that holds."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from onnx_exact.bounds import crown
from onnx_exact.bounds.cases import bounds_of
from onnx_exact.milp.triangle import TriangleRelaxation
from onnx_exact.network import Affine, Box
from tests.nets import chain_of, cube, random_chain, relaxations_of
from tests.oracle.networks import random_case
from tests.oracle.regions import enumerate_regions

SOLVERS = ("HIGHS", "CLARABEL")
# Relative to the size of the bound: what an LP solver leaves open.
LP_TOLERANCE = 1e-6
ITERATIONS = 10_000


def optimum(row: Affine, layers: Sequence[crown.Relaxation], box: Box) -> float:
    """The optimum of the triangle relaxation, written down once more for scipy."""
    from scipy.optimize import linprog

    sizes = [box.lower.size, *(layer.affine.n_out for layer in layers)]
    starts = np.cumsum([0, *sizes])
    a, b, a_eq, b_eq = [], [], [], []
    bounds = list(zip(box.lower.tolist(), box.upper.tolist(), strict=True))
    for k, layer in enumerate(layers):
        for i in range(layer.affine.n_out):
            g = np.zeros(starts[-1])
            g[starts[k] : starts[k + 1]] = layer.affine.entries[i]
            h = np.zeros(starts[-1])
            h[starts[k + 1] + i] = 1.0
            bias, slope, offset = layer.affine.bias[i], layer.upper_slope[i], layer.upper_offset[i]
            if 0.0 < slope < 1.0:
                a += [g - h, h - slope * g]
                b += [-bias, slope * bias + offset]
                bounds.append((0.0, None))
            else:
                a_eq.append(h - slope * g)
                b_eq.append(slope * bias)
                bounds.append((None, None))
    c = np.zeros(starts[-1])
    c[starts[-2] :] = -row.entries[0]
    rows = {"A_ub": a or None, "b_ub": b or None, "A_eq": a_eq or None, "b_eq": b_eq or None}
    answer = linprog(c, bounds=bounds, method="highs", **rows)
    assert answer.status == 0
    return float(row.bias[0] - answer.fun)


def rows_of(affine: Affine) -> list[Affine]:
    return [affine.rows(np.array([i])) for i in range(affine.n_out)]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("widths", [(3, 5, 2), (3, 6, 5, 2), (4, 6, 6, 5, 2)])
def test_the_rigorous_bound_is_the_optimum_of_the_relaxation(
    solver: str, widths: tuple[int, ...]
) -> None:
    chain, box = random_chain(sum(widths), *widths), cube(widths[0], -1.0, 1.0)
    below = relaxations_of(chain, box)[:-1]
    program = TriangleRelaxation(below, box, solver)
    for row in rows_of(chain.layers[-1].affine):
        answer = program.upper_bound(row, ITERATIONS)
        assert answer is not None
        bound, point, cases = answer
        assert bounds_of(row, below, box, cases)[0].tolist() == [bound]
        best = optimum(row, below, box)
        plain, _ = crown.upper_bounds(row, below, box)
        # Intervals of the layers on the way may beat the relaxation, never lose to it.
        assert bound <= best + LP_TOLERANCE * max(1.0, abs(best))
        assert bound <= plain[0] + LP_TOLERANCE * max(1.0, abs(best))
        if bound < best - LP_TOLERANCE * max(1.0, abs(best)):
            assert bound == pytest.approx(plain[0], rel=LP_TOLERANCE)
        assert point.shape == (widths[0],)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("seed", range(8))
def test_the_bound_is_never_below_the_exact_maximum(solver: str, seed: int) -> None:
    case = random_case("normal", seed)
    if len(case.chain.layers) == 1:
        pytest.skip("a single layer has no relaxation")
    below = relaxations_of(case.chain, case.box)[:-1]
    program = TriangleRelaxation(below, case.box, solver)
    ranges = enumerate_regions(case.chain, case.box).ranges[-1]
    for row, (_, most) in zip(rows_of(case.chain.layers[-1].affine), ranges, strict=True):
        answer = program.upper_bound(row, ITERATIONS)
        assert answer is not None
        assert Fraction(answer[0]) >= most


def test_layers_with_one_kind_of_unit_only_are_no_trouble() -> None:
    active = chain_of(([[1.0], [-1.0]], [1.0, 2.0]), ([[1.0, 1.0]], [0.0]))
    inactive = chain_of(([[1.0], [-1.0]], [-3.0, -3.0]), ([[1.0, 1.0]], [0.5]))
    unstable = chain_of(([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0]))
    for chain, most in ((active, 3.0), (inactive, 0.5), (unstable, 1.0)):
        box = cube(1, -1.0, 1.0)
        answer = TriangleRelaxation(relaxations_of(chain, box)[:-1], box).upper_bound(
            chain.layers[-1].affine, ITERATIONS
        )
        assert answer is not None
        assert answer[0] == pytest.approx(most, rel=LP_TOLERANCE)


def test_one_program_answers_one_objective_after_another() -> None:
    chain, box = random_chain(7, 3, 6, 5), cube(3)
    below = relaxations_of(chain, box)[:-1]
    program = TriangleRelaxation(below, box)
    rows = rows_of(chain.layers[-1].affine)
    answers = [program.upper_bound(row, ITERATIONS) for row in (*rows, rows[0])]
    assert all(answer is not None for answer in answers)
    assert answers[0][0] == pytest.approx(answers[-1][0], rel=LP_TOLERANCE)
    assert len({round(answer[0], 6) for answer in answers}) == len(rows)


def test_without_iterations_there_is_no_answer() -> None:
    chain, box = random_chain(7, 20, 60, 60, 1), cube(20)
    program = TriangleRelaxation(relaxations_of(chain, box)[:-1], box)
    assert program.upper_bound(rows_of(chain.layers[-1].affine)[0], 0) is None
