"""The linear regions of a graph over a box, and how far another graph is from it: exactly.

As `tests.oracle.regions` does for chains, but of a whole file, in which a layer may read the layer
before the last one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm

from onnx_exact.network import Box
from tests.oracle.graphs import Graph, Step
from tests.oracle.polytope import Polytope, Vector, dot
from tests.oracle.regions import Range

# Affine functions of the input, one a row (x, 1), over a common denominator.
Rows = tuple[tuple[Vector, ...], int]


@dataclass(frozen=True)
class Piece:
    """A polytope on which a graph is affine.

    Attributes:
        polytope: the region.
        values: of the input and of each step made so far, what they are there.
    """

    polytope: Polytope
    values: Mapping[str, Rows]


@dataclass(frozen=True)
class Truth:
    """A graph over a box, exactly.

    Attributes:
        pieces: they cover the box, and their interiors are disjoint.
        output: name of the step that makes the output.
        ranges: for the tensor in front of each ReLU and for the output, by name, the least and the
            greatest value of each unit.
    """

    pieces: tuple[Piece, ...]
    output: str
    ranges: Mapping[str, tuple[Range, ...]]


def cut_up(graph: Graph, box: Box) -> Truth:
    """The regions of a graph over a finite box of at most 3 dimensions."""
    pieces, ranges = [_whole(graph, Polytope.of(box))], {}
    for step in graph.steps:
        pieces = [_through(step, piece) for piece in pieces]
        ranges[step.source] = _ranges(pieces, step.target)
        if step.relu:
            pieces = [part for piece in pieces for part in _cut(step, piece)]
    return Truth(tuple(pieces), graph.steps[-1].target, ranges)


def furthest(truth: Truth, other: Graph) -> tuple[Fraction, ...]:
    """The maximum over the domain of |f - other| for each output; 0 proves them the same."""
    worst = [Fraction(0)] * len(other.steps[-1].bias)
    for piece in truth.pieces:
        old_rows, old_denominator = piece.values[truth.output]
        for part in _refine(other, piece.polytope):
            new_rows, new_denominator = part.values[other.steps[-1].target]
            for i, (old, new) in enumerate(zip(old_rows, new_rows, strict=True)):
                pairs = zip(old, new, strict=True)
                row = [a * new_denominator - b * old_denominator for a, b in pairs]
                if not any(row):
                    continue
                for vertex in part.polytope.vertices:
                    scale = old_denominator * new_denominator * vertex[-1]
                    worst[i] = max(worst[i], Fraction(abs(dot(row, vertex)), scale))
    return tuple(worst)


def _whole(graph: Graph, polytope: Polytope) -> Piece:
    """The input alone."""
    n = graph.n_in
    rows = tuple(tuple(int(i == j) for j in range(n + 1)) for i in range(n))
    return Piece(polytope, {graph.input: (rows, 1)})


def _refine(graph: Graph, polytope: Polytope) -> list[Piece]:
    pieces = [_whole(graph, polytope)]
    for step in graph.steps:
        pieces = [_through(step, piece) for piece in pieces]
        if step.relu:
            pieces = [part for piece in pieces for part in _cut(step, piece)]
    return pieces


def _through(step: Step, piece: Piece) -> Piece:
    """The piece with what the affine map of a step makes."""
    common = lcm(*(piece.values[name][1] for name, _ in step.parts))
    length = len(piece.polytope.vertices[0])
    rows = [[0] * (length - 1) + [bias * common] for bias in step.bias]
    for name, weight in step.parts:
        read, denominator = piece.values[name]
        factor = common // denominator
        columns = [[factor * value for value in column] for column in zip(*read, strict=True)]
        for row, weights in zip(rows, weight, strict=True):
            for j, column in enumerate(columns):
                row[j] += dot(weights, column)
    return Piece(piece.polytope, {**piece.values, step.target: _lowest(rows, common * step.scale)})


def _lowest(rows: Sequence[Sequence[int]], denominator: int) -> Rows:
    """The rows in lowest terms."""
    factor = gcd(denominator, *(value for row in rows for value in row))
    return tuple(tuple(v // factor for v in row) for row in rows), denominator // factor


def _cut(step: Step, piece: Piece) -> list[Piece]:
    """The parts on which no unit of a step changes its sign, with the ReLU applied."""
    rows, denominator = piece.values[step.target]
    parts: list[tuple[Polytope, tuple[Vector, ...]]] = [(piece.polytope, ())]
    for row in rows:
        zero = (0,) * len(row)
        parts = [
            (half, (*made, value))
            for polytope, made in parts
            for value, half in zip((zero, row), polytope.split(row), strict=True)
            if half is not None
        ]
    return [
        Piece(polytope, {**piece.values, step.target: (made, denominator)})
        for polytope, made in parts
    ]


def _ranges(pieces: Sequence[Piece], name: str) -> tuple[Range, ...]:
    """The least and the greatest value of each unit over all pieces."""
    spans: list[Range] = []
    for i in range(len(pieces[0].values[name][0])):
        values = [
            Fraction(dot(piece.values[name][0][i], vertex), piece.values[name][1] * vertex[-1])
            for piece in pieces
            for vertex in piece.polytope.vertices
        ]
        spans.append((min(values), max(values)))
    return tuple(spans)
