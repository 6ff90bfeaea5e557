"""Piecewise linear operators: those that are a ReLU, and those that stay in one linear piece.

Clip(x, 0), Max(x, 0), LeakyRelu and PRelu of slope 0, ThresholdedRelu of threshold 0
                                                 max(x, 0)
Clip(x, 0, m) where x <= m                       max(x, 0)
LeakyRelu, PRelu, Abs, Clip, Max, Min, HardSigmoid where x is between two neighbouring kinks
                                                 s x + t, unit by unit
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from onnx_exact.graph.index import Index, attributes
from onnx_exact.graph.layout import Layout
from onnx_exact.graph.ops.step import Diagonal, Rectify, Regroup, Step, per_unit
from onnx_exact.network.affine import Array
from onnx_exact.network.approximate import Approximate

# Clip takes its bounds as inputs since this operator set.
CLIP_INPUTS_SINCE = 11
# One entry a unit.
Where = NDArray[np.bool_]
LEAKY_ALPHA, HARD_ALPHA, HARD_BETA = 0.01, 0.2, 0.5


@dataclass(frozen=True, eq=False)
class Piece:
    """What an operator is for start <= x <= stop, unit by unit: scale x + shift.

    Attributes:
        start, stop: shape (width,), infinite where the piece has no end.
        scale, shift: shape (width,).
    """

    start: Array
    stop: Array
    scale: Approximate
    shift: Approximate


def piecewise(index: Index, node: NodeProto, slot: int, layout: Layout) -> Step | None:
    """The one piece that every unit stays in, or the ReLU that the operator is there."""
    pieces = PIECES[node.op_type](index, node, slot, layout)
    if pieces is None:
        return None
    low, high = _reach(index, node.input[slot], layout)
    met = [(p, (low < p.stop) & (high > p.start)) for p in pieces]
    inside = [(p, (low >= p.start) & (high <= p.stop)) for p in pieces]
    # Between the pieces of HardSigmoid there are gaps.
    if node.op_type != "HardSigmoid" and all(_is_relu(piece, where) for piece, where in met):
        fits = np.any([where for _, where in inside], axis=0)
        if not fits.all() or not _are_identity(inside):
            return Rectify(layout)
    return _single(inside, layout)


def _is_relu(piece: Piece, where: Where) -> bool:
    """Whether a piece is one of the two of max(x, 0), wherever it is met."""
    if piece.scale.error is not None or piece.shift.error is not None:
        return not where.any()
    scale, shift = piece.scale.value, piece.shift.value
    below = (piece.stop <= 0.0) & (scale == 0.0)
    above = (piece.start >= 0.0) & (scale == 1.0)
    return bool((~where | ((below | above) & (shift == 0.0))).all())


def _are_identity(inside: Sequence[tuple[Piece, Where]]) -> bool:
    """Whether every unit is in a piece that leaves it as it is."""
    plain = [
        where & (p.scale.value == 1.0) & (p.shift.value == 0.0)
        for p, where in inside
        if _is_exact(p)
    ]
    return bool(plain) and bool(np.any(plain, axis=0).all())


def _is_exact(piece: Piece) -> bool:
    return piece.scale.error is None and piece.shift.error is None


def _single(inside: Sequence[tuple[Piece, Where]], layout: Layout) -> Step | None:
    """The map that takes every unit through a piece that it stays in."""
    if _are_identity(inside):
        return Regroup(layout)
    width = layout.width
    scale, shift, off = np.zeros(width), np.zeros(width), np.zeros((2, width))
    left = np.ones(width, dtype=bool)
    for piece, where in inside:
        chosen = left & where
        scale[chosen], shift[chosen] = piece.scale.value[chosen], piece.shift.value[chosen]
        off[0, chosen], off[1, chosen] = piece.scale.off[chosen], piece.shift.off[chosen]
        left &= ~where
    if left.any():
        return None
    errors = [error if error.any() else None for error in off]
    return Diagonal(Approximate(scale, errors[0]), Approximate(shift, errors[1]), layout)


def _reach(index: Index, tensor: str, layout: Layout) -> tuple[Array, Array]:
    """Bounds on each feature over all positions."""
    nothing = np.full(layout.width, np.inf)
    if index.bounds is None:
        return -nothing, nothing
    box = index.bounds(tensor)
    if box.lower.ndim != layout.rank:
        low, high = (np.broadcast_to(v, layout.width) for v in (box.lower.min(), box.upper.max()))
        return low, high
    others = (*range(layout.start), *range(layout.stop, layout.rank))
    sizes = [dim.size for dim in layout.features]
    low, high = box.lower.min(axis=others), box.upper.max(axis=others)
    return tuple(np.broadcast_to(v, sizes).reshape(-1) for v in (low, high))  # type: ignore[return-value]


def _numbers(layout: Layout, value: float, off: float = 0.0) -> Approximate:
    """The same number for each feature."""
    full = np.full(layout.width, value)
    return Approximate(full, np.full(layout.width, off) if off else None)


def _default(layout: Layout, value: float) -> Approximate:
    """The default of an attribute, meant as the decimal number or as the float32 nearest to it."""
    stored = float(np.float32(value))
    return _numbers(layout, stored, abs(stored - value) * 2.0)


def _attribute(node: NodeProto, name: str, layout: Layout, default: float) -> Approximate:
    known = attributes(node)
    return _numbers(layout, known[name].f) if name in known else _default(layout, default)


def _two(layout: Layout, below: Approximate) -> list[Piece]:
    """below x for x <= 0, and x."""
    zero, end = np.zeros(layout.width), np.full(layout.width, np.inf)
    nothing = _numbers(layout, 0.0)
    return [
        Piece(-end, zero, below, nothing),
        Piece(zero, end, _numbers(layout, 1.0), nothing),
    ]


def _leaky_relu(index: Index, node: NodeProto, slot: int, layout: Layout) -> list[Piece]:
    return _two(layout, _attribute(node, "alpha", layout, LEAKY_ALPHA))


def _p_relu(index: Index, node: NodeProto, slot: int, layout: Layout) -> list[Piece] | None:
    slope = None if slot else _operand(index, node, 1, layout)
    return None if slope is None else _two(layout, slope)


def _absolute(index: Index, node: NodeProto, slot: int, layout: Layout) -> list[Piece]:
    return _two(layout, _numbers(layout, -1.0))


def _thresholded(index: Index, node: NodeProto, slot: int, layout: Layout) -> list[Piece] | None:
    known = attributes(node)
    if "alpha" not in known or known["alpha"].f:
        return None
    return _two(layout, _numbers(layout, 0.0))


def _between(layout: Layout, low: Array, high: Array) -> list[Piece] | None:
    """max(low, .) first, then min(., high)."""
    end, nothing, one = np.full(layout.width, np.inf), _numbers(layout, 0.0), _numbers(layout, 1.0)
    if (low > high).any() or np.isnan(low).any() or np.isnan(high).any():
        return None
    found = [Piece(low, high, one, nothing)]
    if np.isfinite(low).all():
        found.append(Piece(-end, low, nothing, Approximate(low)))
    if np.isfinite(high).all():
        found.append(Piece(high, end, nothing, Approximate(high)))
    return found


def _clip(index: Index, node: NodeProto, slot: int, layout: Layout) -> list[Piece] | None:
    ends = []
    for position, name, sign in ((1, "min", -1.0), (2, "max", 1.0)):
        infinite = np.full(layout.width, sign * np.inf)
        if index.opset < CLIP_INPUTS_SINCE:
            known = attributes(node)
            largest = sign * float(np.finfo(np.float32).max)
            ends.append(np.full(layout.width, known[name].f if name in known else largest))
        elif len(node.input) <= position or not node.input[position]:
            ends.append(infinite)
        else:
            given = index.floats(node.input[position])
            if given is None or given.size != 1 or slot:
                return None
            ends.append(np.full(layout.width, given.reshape(())))
    return _between(layout, *ends)


def _operand(index: Index, node: NodeProto, position: int, layout: Layout) -> Approximate | None:
    """A constant operand, exact, for each feature."""
    values = index.floats(node.input[position]) if len(node.input) > position else None
    if values is None or np.isnan(values).any():
        return None
    return per_unit(layout, Approximate(values))


def _largest(index: Index, node: NodeProto, slot: int, layout: Layout) -> list[Piece] | None:
    infinite = np.full(layout.width, np.inf)
    if len(node.input) == 1:
        return _between(layout, -infinite, infinite)
    other = _operand(index, node, 1 - slot, layout) if len(node.input) == 2 else None
    if other is None:
        return None
    ends = (other.value, infinite) if node.op_type == "Max" else (-infinite, other.value)
    return _between(layout, *ends)


def _hard_sigmoid(index: Index, node: NodeProto, slot: int, layout: Layout) -> list[Piece] | None:
    """alpha x + beta between 0 and 1; a hair is kept from the ends, which are rounded here."""
    alpha = _attribute(node, "alpha", layout, HARD_ALPHA)
    beta = _attribute(node, "beta", layout, HARD_BETA)
    if not (alpha.value > 1e-30).all() or not (np.abs(beta.value) < 1e30).all():
        return None
    ends = [(v - beta.value) / alpha.value for v in (0.0, 1.0)]
    room = 1e-6 * (np.abs(ends[0]) + np.abs(ends[1]) + np.abs(beta.value / alpha.value))
    nothing, one, end = _numbers(layout, 0.0), _numbers(layout, 1.0), np.full(layout.width, np.inf)
    return [
        Piece(ends[0] + room, ends[1] - room, alpha, beta),
        Piece(-end, ends[0] - room, nothing, nothing),
        Piece(ends[1] + room, end, nothing, one),
    ]


PIECES = {
    "Abs": _absolute,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _leaky_relu,
    "Max": _largest,
    "Min": _largest,
    "PRelu": _p_relu,
    "ThresholdedRelu": _thresholded,
}
