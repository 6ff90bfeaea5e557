"""The linear regions of a small chain over a box, and what follows from them exactly.

Within a region no unit changes its sign, so that every pre-activation is affine and attains its
extremes at vertices. The box is cut layer by layer, unit by unit, along g_i = 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from onnx_exact.decide.verdict import Status
from onnx_exact.network import Box, Chain
from tests.oracle.exact import ExactLayer, exact_layers
from tests.oracle.polytope import Point, Polytope, Vector, dot

Range = tuple[Fraction, Fraction]
Pattern = tuple[tuple[bool, ...], ...]


@dataclass(frozen=True)
class Region:
    """A polytope on which a chain is affine.

    Attributes:
        polytope: the region.
        rows: the outputs are rows . (x, 1) / denominator.
        denominator: positive.
        pattern: for each ReLU layer, which units are active; a unit that is 0 throughout is not.
    """

    polytope: Polytope
    rows: tuple[Vector, ...]
    denominator: int
    pattern: Pattern

    def vertex_outputs(self) -> Iterator[tuple[Point, Point]]:
        """The vertices, each with the outputs there."""
        for vertex, point in zip(self.polytope.vertices, self.polytope.points, strict=True):
            scale = self.denominator * vertex[-1]
            yield point, tuple(Fraction(dot(row, vertex), scale) for row in self.rows)


@dataclass(frozen=True)
class Enumeration:
    """A chain over a box, exactly.

    Attributes:
        regions: they cover the box, and their interiors are disjoint.
        ranges: for each layer and unit, the least and the greatest pre-activation.
        outputs: for each output, the least and the greatest value.
        statuses: for each layer, the true verdict on each unit; None for a layer without ReLU.
    """

    regions: tuple[Region, ...]
    ranges: tuple[tuple[Range, ...], ...]
    outputs: tuple[Range, ...]
    statuses: tuple[tuple[Status, ...] | None, ...]


def verdict(least: Fraction, greatest: Fraction) -> Status:
    """The true verdict on a unit whose pre-activation spans [least, greatest]."""
    if greatest <= 0:
        return Status.INACTIVE
    return Status.ACTIVE if least >= 0 else Status.UNSTABLE


def enumerate_regions(chain: Chain, box: Box) -> Enumeration:
    """The linear regions of a chain over a finite box.

    Args:
        chain: at most 3 inputs and a few units: the number of regions grows quickly.
        box: sides may have length 0.
    """
    layers = exact_layers(chain)
    regions = [_whole(Polytope.of(box))]
    ranges = []
    for layer in layers:
        regions = [_through(layer, region) for region in regions]
        ranges.append(_ranges(regions))
        if layer.relu:
            regions = [part for region in regions for part in _cut(region)]
    statuses = tuple(
        tuple(verdict(*extremes) for extremes in ranges_) if layer.relu else None
        for layer, ranges_ in zip(layers, ranges, strict=True)
    )
    return Enumeration(tuple(regions), tuple(ranges), _ranges(regions), statuses)


def largest_difference(regions: Sequence[Region], other: Chain) -> tuple[Fraction, ...]:
    """The maximum over the domain of |f - other|, for each output of f, given by its regions.

    The regions of f are cut further into those of `other`. On each part both are affine, so that
    the maximum is attained at a vertex: 0 is a proof that the two are the same function.
    """
    layers = exact_layers(other)
    worst = [Fraction(0)] * len(regions[0].rows)
    for region in regions:
        for part in _refine(_whole(region.polytope), layers):
            rows = [
                [a * part.denominator - b * region.denominator for a, b in zip(f, g, strict=True)]
                for f, g in zip(region.rows, part.rows, strict=True)
            ]
            for i, row in enumerate(rows):
                if not any(row):
                    continue
                for vertex in part.polytope.vertices:
                    scale = region.denominator * part.denominator * vertex[-1]
                    worst[i] = max(worst[i], Fraction(abs(dot(row, vertex)), scale))
    return tuple(worst)


def _refine(region: Region, layers: Sequence[ExactLayer]) -> list[Region]:
    parts = [region]
    for layer in layers:
        parts = [_through(layer, part) for part in parts]
        if layer.relu:
            parts = [piece for part in parts for piece in _cut(part)]
    return parts


def _whole(polytope: Polytope) -> Region:
    """The identity on a polytope."""
    n = len(polytope.vertices[0])
    identity = tuple(tuple(int(i == j) for j in range(n)) for i in range(n - 1))
    return Region(polytope, identity, 1, ())


def _through(layer: ExactLayer, region: Region) -> Region:
    """The region with the layer's affine map applied to its outputs."""
    rows = []
    for weights, bias in zip(layer.weight, layer.bias, strict=True):
        row = [
            sum(w * v for w, v in zip(weights, c, strict=True))
            for c in zip(*region.rows, strict=True)
        ]
        row[-1] += bias * region.denominator
        rows.append(tuple(row))
    return Region(region.polytope, tuple(rows), region.denominator * layer.scale, region.pattern)


def _cut(region: Region) -> list[Region]:
    """The parts of a region on which no output changes its sign, with the ReLU applied."""
    parts: list[tuple[Polytope, tuple[bool, ...]]] = [(region.polytope, ())]
    for row in region.rows:
        halves = [(signs, polytope.split(row)) for polytope, signs in parts]
        parts = [
            (half, (*signs, active))
            for signs, split in halves
            for active, half in zip((False, True), split, strict=True)
            if half is not None
        ]
    zero = (0,) * len(region.rows[0])
    return [
        Region(
            polytope,
            tuple(row if active else zero for row, active in zip(region.rows, signs, strict=True)),
            region.denominator,
            (*region.pattern, signs),
        )
        for polytope, signs in parts
    ]


def _ranges(regions: Sequence[Region]) -> tuple[Range, ...]:
    """The least and the greatest value of each output over all regions."""
    spans: list[Range] = []
    for i in range(len(regions[0].rows)):
        values = [value for region in regions for value in _extremes(region, i)]
        spans.append((min(values), max(values)))
    return tuple(spans)


def _extremes(region: Region, i: int) -> Range:
    """The extremes of one output over one region, compared without rational numbers."""
    row = region.rows[i]
    least = greatest = (0, 0)
    for vertex in region.polytope.vertices:
        value, w = dot(row, vertex), vertex[-1]
        if least[1] == 0:
            least = greatest = (value, w)
        if value * least[1] < least[0] * w:
            least = (value, w)
        if value * greatest[1] > greatest[0] * w:
            greatest = (value, w)
    return (
        Fraction(least[0], least[1] * region.denominator),
        Fraction(greatest[0], greatest[1] * region.denominator),
    )
