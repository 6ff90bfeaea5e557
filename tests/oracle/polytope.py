"""Convex polytopes in exact arithmetic: vertices, and the two parts a hyperplane cuts them into.

A point is an integer vector (w x, w) with w > 0, a half-space the integer row r with
r . (w x, w) >= 0: signs and intersections then need no rational numbers, only integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import factorial, gcd

from onnx_exact.network import Box

Vector = tuple[int, ...]
Point = tuple[Fraction, ...]


def dot(row: Sequence[int], vector: Sequence[int]) -> int:
    return sum(a * b for a, b in zip(row, vector, strict=True))


def primitive(vector: Sequence[int]) -> Vector:
    """The vector without its common factor."""
    factor = gcd(*vector) or 1
    return tuple(v // factor for v in vector)


def homogeneous(point: Sequence[Fraction]) -> Vector:
    """The integer vector of a rational point."""
    w = 1
    for value in point:
        w = w * value.denominator // gcd(w, value.denominator)
    return primitive([*(int(value * w) for value in point), w])


def cartesian(vector: Vector) -> Point:
    """The rational point of an integer vector."""
    *coordinates, w = vector
    return tuple(Fraction(c, w) for c in coordinates)


@dataclass(frozen=True)
class Polytope:
    """A non-empty polytope of full dimension `dimension` within its affine hull.

    Attributes:
        vertices: integer vectors, all distinct.
        tight: for each vertex, the bit set of the half-spaces that hold with equality there.
        half_spaces: integer rows; some may be redundant.
        dimension: of the affine hull, which may be smaller than the space.
    """

    vertices: tuple[Vector, ...]
    tight: tuple[int, ...]
    half_spaces: tuple[Vector, ...]
    dimension: int

    @staticmethod
    def of(box: Box) -> Polytope:
        """The box, whose sides may have length 0."""
        sides = [
            (Fraction(float(low)), Fraction(float(high)))
            for low, high in zip(box.lower, box.upper, strict=True)
        ]
        half_spaces: list[Vector] = []
        choices: list[list[tuple[Fraction, int]]] = []
        for j, (low, high) in enumerate(sides):
            if low == high:
                choices.append([(low, 0)])
                continue
            bit = 1 << len(half_spaces)
            choices.append([(low, bit), (high, 2 * bit)])
            for sign, end in ((1, low), (-1, high)):  # sign (x_j - end) >= 0
                row = [0] * (len(sides) + 1)
                row[j], row[-1] = sign * end.denominator, -sign * end.numerator
                half_spaces.append(tuple(row))
        corners = list(product(*choices))
        return Polytope(
            tuple(homogeneous([value for value, _ in corner]) for corner in corners),
            tuple(sum(bit for _, bit in corner) for corner in corners),
            tuple(half_spaces),
            len(half_spaces) // 2,
        )

    @property
    def points(self) -> list[Point]:
        """The vertices as rational points."""
        return [cartesian(vertex) for vertex in self.vertices]

    def split(self, row: Sequence[int]) -> tuple[Polytope | None, Polytope | None]:
        """The parts where row . (x, 1) <= 0 and >= 0; None for one of lower dimension.

        A polytope on which the row is 0 throughout is the first part.
        """
        values = [dot(row, vertex) for vertex in self.vertices]
        if max(values) <= 0:
            return self, None
        if min(values) >= 0:
            return None, self
        bit = 1 << len(self.half_spaces)
        cut = list(self._crossings(values, bit))
        parts = []
        for sign in (-1, 1):
            vertices, tight = [], []
            for vertex, bits, value in zip(self.vertices, self.tight, values, strict=True):
                if sign * value >= 0:
                    vertices.append(vertex)
                    tight.append(bits if value else bits | bit)
            vertices += [vertex for vertex, _ in cut]
            tight += [bits for _, bits in cut]
            half_spaces = (*self.half_spaces, primitive([sign * r for r in row]))
            parts.append(Polytope(tuple(vertices), tuple(tight), half_spaces, self.dimension))
        return parts[0], parts[1]

    def _crossings(self, values: list[int], bit: int) -> Iterator[tuple[Vector, int]]:
        """Where the edges between vertices of opposite sign cross the hyperplane."""
        above = [k for k, value in enumerate(values) if value > 0]
        below = [k for k, value in enumerate(values) if value < 0]
        for p, n in product(above, below):
            common = self.tight[p] & self.tight[n]
            if not self._is_edge(p, n, common):
                continue
            ends = zip(self.vertices[p], self.vertices[n], strict=True)
            crossing = [values[p] * below_ - values[n] * above_ for above_, below_ in ends]
            yield primitive(crossing), common | bit

    def _is_edge(self, p: int, n: int, common: int) -> bool:
        """Two vertices span an edge if no third one lies on every face that both lie on."""
        if common.bit_count() < self.dimension - 1:
            return False
        return not any(common & ~bits == 0 for k, bits in enumerate(self.tight) if k not in (p, n))

    def simplices(self) -> Iterator[list[Point]]:
        """A triangulation: each simplex by its vertices."""
        points = self.points
        for simplex in self._triangulate(frozenset(range(len(points))), self.dimension):
            yield [points[k] for k in simplex]

    def _triangulate(self, face: frozenset[int], dimension: int) -> Iterator[list[int]]:
        """Cones from one vertex over the facets that do not hold it."""
        apex = min(face)
        if dimension == 0:
            yield [apex]
            return
        subfaces = {
            frozenset(k for k in face if self.tight[k] >> bit & 1)
            for bit in range(len(self.half_spaces))
        }
        subfaces.discard(face)
        for facet in subfaces:
            if apex in facet or not facet or any(facet < other for other in subfaces):
                continue
            for simplex in self._triangulate(facet, dimension - 1):
                yield [apex, *simplex]

    def volume(self) -> Fraction:
        """The exact volume of a polytope that fills its space."""
        total = Fraction(0)
        for first, *others in self.simplices():
            edges = [[a - b for a, b in zip(p, first, strict=True)] for p in others]
            total += abs(determinant(edges))
        return total / factorial(self.dimension)


def determinant(matrix: list[list[Fraction]]) -> Fraction:
    """By expansion along the first row: for matrices of at most 3 rows."""
    if not matrix:
        return Fraction(1)
    total = Fraction(0)
    for j, entry in enumerate(matrix[0]):
        minor = [row[:j] + row[j + 1 :] for row in matrix[1:]]
        total += (-1) ** j * entry * determinant(minor)
    return total
