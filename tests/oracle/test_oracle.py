"""The exact reference is held to hand-solved networks, to volumes, and to plain evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations
from math import prod

import numpy as np
import pytest

from onnx_exact.decide.verdict import Status
from onnx_exact.network import Affine, Box, Chain, Layer
from tests.oracle.exact import exact_layers, outputs, preactivations
from tests.oracle.networks import SOURCES, Case, random_case
from tests.oracle.polytope import Point, Polytope, Vector, determinant
from tests.oracle.regions import (
    Enumeration,
    Pattern,
    Region,
    enumerate_regions,
    largest_difference,
)

SEEDS = range(25)
SAMPLES = 50
every_network = pytest.mark.parametrize(
    ("family", "seed"), [(family, seed) for family in SOURCES for seed in SEEDS]
)


def chain_of(*layers: tuple[list[list[float]], list[float]], relu_at_end: bool = False) -> Chain:
    return Chain.of([Affine(np.array(w), np.array(b)) for w, b in layers], relu_at_end)


def square(low: float, high: float) -> Box:
    return Box(np.full(2, low), np.full(2, high))


def solved(family: str, seed: int) -> tuple[Case, Enumeration]:
    case = random_case(family, seed)
    return case, enumerate_regions(case.chain, case.box)


def by_pattern(found: Enumeration) -> dict[Pattern, Region]:
    return {region.pattern: region for region in found.regions}


def samples(box: Box) -> Iterator[tuple[Fraction, ...]]:
    for point in box.sample(np.random.default_rng(0), SAMPLES):
        yield tuple(Fraction(float(x)) for x in point)


def test_one_unit_cuts_the_square_along_the_diagonal() -> None:
    r"""One unit h = max(x - y, 0), output 1 - 2 h.

    1 +-------+
      | 1    /|     above the diagonal h = 0 and the output is 1,
      |    /  |     below it the output is 1 - 2 (x - y):
      |  / -1 |     -1 in the corner (1, 0)
    0 +-------+
      0       1
    """
    found = enumerate_regions(chain_of(([[1, -1]], [0]), ([[-2]], [1])), square(0, 1))

    assert found.ranges[0] == ((-1, 1),)
    assert found.statuses == ((Status.UNSTABLE,), None)
    assert found.outputs == ((-1, 1),)
    regions = by_pattern(found)
    assert set(regions[((False,),)].vertex_outputs()) == {
        ((0, 0), (1,)),
        ((0, 1), (1,)),
        ((1, 1), (1,)),
    }
    assert set(regions[((True,),)].vertex_outputs()) == {
        ((0, 0), (1,)),
        ((1, 0), (-1,)),
        ((1, 1), (1,)),
    }
    assert [region.polytope.volume() for region in found.regions] == [Fraction(1, 2)] * 2


def test_two_units_make_a_hat_on_a_box_with_a_side_of_length_zero() -> None:
    r"""Units max(x, 0) and max(x - 1, 0), output h_1 - 2 h_2, over -1 <= x <= 3 and y = 1/2.

     1 |        /\
     0 |_______/  \
    -1 |           \
       +---+---+---+---+
      -1   0   1   2   3
    """
    chain = chain_of(([[1, 0], [1, 0]], [0, -1]), ([[1, -2]], [0]))
    found = enumerate_regions(chain, Box(np.array([-1, 0.5]), np.array([3, 0.5])))

    ends = {
        tuple(sorted((point[0], value[0]) for point, value in region.vertex_outputs()))
        for region in found.regions
    }
    assert ends == {((-1, 0), (0, 0)), ((0, 0), (1, 1)), ((1, 1), (3, -1))}
    assert all(point[1] == Fraction(1, 2) for r in found.regions for point in r.polytope.points)
    assert found.ranges[0] == ((-1, 3), (-2, 2))
    assert found.outputs == ((-1, 1),)


@pytest.mark.parametrize(
    ("bias", "status", "regions"),
    [
        (1, Status.UNSTABLE, 8),
        (2, Status.ACTIVE, 4),
        (0, Status.INACTIVE, 4),
        (3, Status.ACTIVE, 4),
        (-1, Status.INACTIVE, 4),
    ],
)
def test_a_unit_of_the_second_layer_cuts_a_diamond(bias: int, status: Status, regions: int) -> None:
    r"""First layer max(x,0), max(-x,0), max(y,0), max(-y,0); then max(bias - |x| - |y|, 0).

     1 +---+---+
       | / | \ |      bias 1: the four quadrants and the diamond make 8 regions.
     0 +---+---+      bias 2: 0 in the corners and positive elsewhere, hence stably active.
       | \ | / |      bias 0: 0 in the centre and negative elsewhere, hence stably inactive.
    -1 +---+---+
      -1   0   1
    """
    chain = chain_of(
        ([[1, 0], [-1, 0], [0, 1], [0, -1]], [0] * 4), ([[-1] * 4], [bias]), relu_at_end=True
    )
    found = enumerate_regions(chain, square(-1, 1))

    assert found.ranges[1] == ((bias - 2, bias),)
    assert found.statuses[1] == (status,)
    assert found.outputs == ((max(bias - 2, 0), max(bias, 0)),)
    assert len(found.regions) == regions


def test_a_cube_cut_by_its_diagonal_plane_has_the_volumes_of_its_parts() -> None:
    """The plane x + y + z = 1 cuts a corner of volume 1/6 off the unit cube."""
    inside, outside = Polytope.of(Box(np.zeros(3), np.ones(3))).split((1, 1, 1, -1))

    assert inside is not None
    assert outside is not None
    assert sorted(inside.points) == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    assert (inside.volume(), outside.volume()) == (Fraction(1, 6), Fraction(5, 6))


@every_network
def test_regions_fill_the_box_without_overlap(family: str, seed: int) -> None:
    """Regions of different patterns have disjoint interiors; no volume is missing."""
    case, found = solved(family, seed)
    whole = Polytope.of(case.box)

    assert len(by_pattern(found)) == len(found.regions)
    assert {region.polytope.dimension for region in found.regions} == {whole.dimension}
    if whole.dimension == case.chain.n_in:
        sides = [
            Fraction(float(b)) - Fraction(float(a)) for a, b in zip(*bounds(case), strict=True)
        ]
        assert sum(region.polytope.volume() for region in found.regions) == prod(sides)


def bounds(case: Case) -> tuple[list[float], list[float]]:
    return case.box.lower.tolist(), case.box.upper.tolist()


@every_network
def test_vertices_of_a_region_are_those_of_its_half_spaces(family: str, seed: int) -> None:
    case, found = solved(family, seed)
    for region in found.regions[:10]:
        vertices = brute_force_vertices(region.polytope, planes_of_flat_sides(case.box))
        assert sorted(region.polytope.points) == sorted(vertices)


def planes_of_flat_sides(box: Box) -> list[Vector]:
    """The equations x_j = lower_j = upper_j."""
    planes = []
    for j in np.flatnonzero(box.lower == box.upper):
        numerator, denominator = float(box.lower[j]).as_integer_ratio()
        unit = [denominator * int(i == j) for i in range(box.lower.size)]
        planes.append((*unit, -numerator))
    return planes


def brute_force_vertices(polytope: Polytope, equations: list[Vector]) -> set[Point]:
    """Every intersection of as many planes as there are dimensions that lies in all half-spaces."""
    points = set()
    for planes in combinations(polytope.half_spaces, polytope.dimension):
        point = intersection((*equations, *planes))
        if point is not None and holds(polytope, point):
            points.add(point)
    return points


def intersection(planes: tuple[Vector, ...]) -> Point | None:
    """Cramer's rule."""
    columns = [[Fraction(v) for v in column] for column in zip(*planes, strict=True)]
    matrix, right = columns[:-1], [-v for v in columns[-1]]
    whole = determinant(matrix)
    if whole == 0:
        return None
    replaced = ([*matrix[:j], right, *matrix[j + 1 :]] for j in range(len(matrix)))
    return tuple(determinant(columns) / whole for columns in replaced)


@every_network
def test_ranges_are_attained_at_vertices_and_hold_at_samples(family: str, seed: int) -> None:
    case, found = solved(family, seed)
    layers = exact_layers(case.chain)
    at_vertices = [preactivations(layers, p) for r in found.regions for p in r.polytope.points]
    at_samples = [preactivations(layers, p) for p in samples(case.box)]

    for index, ranges in enumerate(found.ranges):
        for unit, (least, greatest) in enumerate(ranges):
            values = [g[index][unit] for g in at_vertices]
            assert (min(values), max(values)) == (least, greatest)
            assert all(least <= g[index][unit] <= greatest for g in at_samples)


@every_network
def test_outputs_at_vertices_are_those_of_the_forward_pass(family: str, seed: int) -> None:
    case, found = solved(family, seed)
    layers = exact_layers(case.chain)

    for region in found.regions:
        for point, value in region.vertex_outputs():
            assert value == outputs(layers, point)


@every_network
def test_exact_forward_pass_agrees_with_the_float_one(family: str, seed: int) -> None:
    case, _ = solved(family, seed)
    points = case.box.sample(np.random.default_rng(0), SAMPLES)
    layers = exact_layers(case.chain)
    exact = [outputs(layers, [Fraction(float(x)) for x in point]) for point in points]

    np.testing.assert_allclose(
        np.array(exact, dtype=np.float64), case.chain.forward(points), rtol=1e-12, atol=1e-12
    )


@every_network
def test_a_sample_has_the_pattern_of_a_region_that_holds_it(family: str, seed: int) -> None:
    case, found = solved(family, seed)
    layers = exact_layers(case.chain)

    for point in samples(case.box):
        values = preactivations(layers, point)
        signs = [g for g, layer in zip(values, layers, strict=True) if layer.relu]
        holding = [region for region in found.regions if holds(region.polytope, point)]
        assert holding
        for region in holding:  # several only for a point on their common boundary
            for pattern, g in zip(region.pattern, signs, strict=True):
                assert all(
                    v >= 0 if active else v <= 0 for active, v in zip(pattern, g, strict=True)
                )


def holds(polytope: Polytope, point: Point) -> bool:
    return all(
        sum(a * x for a, x in zip(row[:-1], point, strict=True)) + row[-1] >= 0
        for row in polytope.half_spaces
    )


@every_network
def test_no_difference_to_itself_and_the_true_one_to_a_shifted_network(
    family: str, seed: int
) -> None:
    case, found = solved(family, seed)
    last = case.chain.layers[-1]
    shifted = Affine(last.affine.weight, last.affine.bias + 1.0)
    other = Chain((*case.chain.layers[:-1], Layer(shifted, last.relu)))
    shifts = [
        Fraction(float(a)) - Fraction(float(b))
        for a, b in zip(shifted.bias, last.affine.bias, strict=True)
    ]

    assert not any(largest_difference(found.regions, case.chain))
    for difference, shift in zip(largest_difference(found.regions, other), shifts, strict=True):
        assert difference <= shift if last.relu else difference == shift


def test_a_kink_that_no_vertex_of_the_original_sees_is_found() -> None:
    """A spike between the vertices: equal at both ends of [0, 1], different in between."""
    zero = chain_of(([[1, 0]], [0]), ([[0]], [0]))
    spike = chain_of(([[1, 0], [1, 0], [1, 0]], [0, -0.5, -1]), ([[1, -2, 1]], [0]))
    box = Box(np.zeros(2), np.array([1.0, 0.0]))
    found = enumerate_regions(zero, box)

    for region in found.regions:
        for point, value in region.vertex_outputs():
            assert value == outputs(exact_layers(spike), point)
    assert largest_difference(found.regions, spike) == (Fraction(1, 2),)
