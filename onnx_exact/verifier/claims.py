"""Checks what a certificate says of the units of a chain, layer by layer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from onnx_exact.errors import NotVerifiedError
from onnx_exact.verifier.balls import Balls
from onnx_exact.verifier.batches import Batches
from onnx_exact.verifier.bounds import Branch, Ranges, intervals, upper_bounds
from onnx_exact.verifier.certificate import (
    ACTIVE,
    INACTIVE,
    SOLVER,
    TREE,
    UNSHOWN,
    WITNESS,
)
from onnx_exact.verifier.chain import Box
from onnx_exact.verifier.contents import Claims
from onnx_exact.verifier.rounding import Array, Flags, Units, add_up
from onnx_exact.verifier.trees import excluded, expanded

WORDS = ("undecided", "stably inactive", "stably active", "unstable")


@dataclass(frozen=True, eq=False)
class Checked:
    """What was checked of a chain.

    Attributes:
        ranges: bounds on its pre-activations; those of solvers' claims are taken for granted.
        counts: of units by status and proof.
        trees, leaves: how many were checked.
    """

    ranges: Ranges
    counts: Counter[tuple[int, int]]
    trees: int = 0
    leaves: int = 0


def check_claims(claims: Claims, box: Box, balls: Balls, batches: Batches) -> Checked:
    """Checks every status by its proof.

    Args:
        claims: of the certificate.
        box: the chain's input.
        balls, batches: the chain's arithmetic, for whole layers and for trees.

    Raises:
        NotVerifiedError: naming the first claim that does not hold.
    """
    layers = balls.layers
    relu = tuple(layer.relu for layer in layers)
    ranges = Ranges([], [], (box.lower, box.upper), relu)
    counts: Counter[tuple[int, int]] = Counter()
    leaves = 0
    shown = _shown(claims, box, balls)
    for k, layer in enumerate(layers):
        lower, upper = intervals(layer, *ranges.outputs(k - 1), exact=True)
        off = layer.off(ranges.magnitude(k - 1))
        for sign in (True, False) if k else ():
            unsettled = np.flatnonzero((lower < 0.0) & (upper > 0.0) | (not layer.relu))
            _tighten(lower, upper, unsettled, sign, None, balls, ranges, off)
        if k in claims.slopes:
            units, positive, stored = claims.slopes[k]
            for sign in (True, False):
                of = np.flatnonzero(positive == sign)
                branches = [Branch(s) for s in expanded(stored[of], claims, ranges)]
                _tighten(lower, upper, units[of], sign, branches, balls, ranges, off)
        for tree in (t for t in claims.trees if t.layer == k):
            if not excluded(tree, ranges, batches, claims):
                raise NotVerifiedError(
                    f"a tree does not exclude the signs of units {tree.units.tolist()[:5]} of"
                    f" layer {k + 1}"
                )
            leaves += (len(tree.nodes) + 1) // 2
            upper[tree.units[tree.positive]] = np.minimum(upper[tree.units[tree.positive]], 0.0)
            below = tree.units[~tree.positive]
            lower[below] = np.maximum(lower[below], 0.0)
        if layer.relu:
            _check_layer(claims, k, lower, upper, shown)
            pairs = zip(claims.status[k].tolist(), claims.proof[k].tolist(), strict=True)
            counts.update(pairs)
        ranges.lower.append(lower)
        ranges.upper.append(upper)
    return Checked(_with_solver(ranges, claims), counts, len(claims.trees), leaves)


def _shown(claims: Claims, box: Box, balls: Balls) -> list[tuple[Flags, Flags]]:
    """Which signs the witnesses show; points are moved into the box first."""
    if not len(claims.witnesses):
        return [
            (np.zeros(layer.width, bool), np.zeros(layer.width, bool)) for layer in balls.layers
        ]
    points = np.clip(claims.witnesses.astype(np.float64), box.inner_lower, box.inner_upper)
    signs = balls.forward(points)
    return [(np.asarray(up.any(axis=0)), np.asarray(down.any(axis=0))) for up, down in signs]


def _tighten(
    lower: Array,
    upper: Array,
    units: Units,
    positive: bool,
    branches: list[Branch] | None,
    balls: Balls,
    ranges: Ranges,
    off: Array,
) -> None:
    """Improves the upper bounds of units of the next layer in place, or their lower bounds."""
    layer = balls.layers[len(ranges.lower)]
    sign = 1.0 if positive else -1.0
    weight, bias = sign * layer.weight[units], sign * layer.bias[units]
    found = add_up(upper_bounds(weight, bias, ranges, balls, branches), off[units])
    # A unit may have several records.
    if positive:
        np.fmin.at(upper, units, found)
    else:
        np.fmax.at(lower, units, -found)


def _check_layer(
    claims: Claims,
    k: int,
    lower: Array,
    upper: Array,
    shown: list[tuple[Flags, Flags]],
) -> None:
    status, proof = claims.status[k], claims.proof[k]
    proved = proof <= TREE
    positive, negative = shown[k]
    wrong = (status == INACTIVE) & proved & ~(upper <= 0.0)
    wrong |= (status == ACTIVE) & proved & ~(lower >= 0.0)
    wrong |= (proof == WITNESS) & ~(positive & negative)
    # What a point or a bound of this check contradicts is wrong whatever it rests on.
    wrong |= (status == INACTIVE) & (positive | (lower > 0.0))
    wrong |= (status == ACTIVE) & (negative | (upper < 0.0))
    wrong |= (proof == UNSHOWN) & ((upper <= 0.0) | (lower >= 0.0))
    if wrong.any():
        unit = int(np.flatnonzero(wrong)[0])
        raise NotVerifiedError(
            f"unit {unit} of layer {k + 1} is not shown to be {WORDS[status[unit]]}: the bounds on"
            f" its pre-activation are {lower[unit]:.6g} and {upper[unit]:.6g}, and the witnesses"
            f" show {int(positive[unit]) + int(negative[unit])} of its signs"
        )


def _with_solver(ranges: Ranges, claims: Claims) -> Ranges:
    """The ranges with the claims that rest on a solver taken for granted."""
    lower, upper = list(ranges.lower), list(ranges.upper)
    for k, status in claims.status.items():
        solver = claims.proof[k] == SOLVER
        upper[k] = np.where(solver & (status == INACTIVE), np.minimum(upper[k], 0.0), upper[k])
        lower[k] = np.where(solver & (status == ACTIVE), np.maximum(lower[k], 0.0), lower[k])
    return Ranges(lower, upper, ranges.box, ranges.relu)
