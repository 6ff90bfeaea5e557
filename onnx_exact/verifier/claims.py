"""Checks what a certificate says of the units of a chain, layer by layer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import product

import numpy as np

from onnx_exact.errors import NotVerifiedError, UncheckedError
from onnx_exact.verifier.bounds import Branch, Ranges, intervals, tighten
from onnx_exact.verifier.clock import Clock
from onnx_exact.verifier.intervals import Interval
from onnx_exact.verifier.products import Products
from onnx_exact.verifier.refusals import require_known
from onnx_exact.verifier.rounding import Array, Flags
from onnx_exact.verifier.schema import ACTIVE, CLAIMED, INACTIVE, TREE, UNSTABLE, WITNESS, Claims
from onnx_exact.verifier.trees import excluded, expanded

WORDS = ("undecided", "stably inactive", "stably active", "unstable")
Shown = list[tuple[Flags, Flags]]


@dataclass(frozen=True, eq=False)
class Checked:
    """What was checked of a chain.

    Attributes:
        ranges: bounds on its pre-activations; what is only claimed is taken for granted in them.
        counts: of units by status and proof.
        leaves: of all trees.
    """

    ranges: Ranges
    counts: Counter[tuple[int, int]]
    leaves: int


def check_claims(
    claims: Claims, box: Interval, whole: bool, products: Products, clock: Clock
) -> Checked:
    """Checks every status by its proof.

    Args:
        claims: of the certificate.
        box: holds the chain's input.
        whole: whether the input takes every value in it. Otherwise units are unstable over a box
            that may be larger, as what is in front was bounded when the certificate was written.
        products: the chain's arithmetic.
        clock: when to stop.

    Raises:
        NotVerifiedError: naming the first claim that is false.
        UncheckedError: naming the first that is not shown, or the time is up.
    """
    layers = products.layers
    ranges = Ranges([], [], box, [layer.relu for layer in layers])
    counts: Counter[tuple[int, int]] = Counter()
    leaves = 0
    shown = _shown(claims, box, whole, products)
    for k, layer in enumerate(layers):
        clock.spend()
        lower, upper = intervals(layer, *ranges.outputs(k - 1), exact=True)
        for chosen, sign in product((None, [Branch(np.zeros(1))] * k), (True, False)) if k else ():
            unsettled = np.flatnonzero((lower < 0.0) & (upper > 0.0) | (not layer.relu))
            tighten(lower, upper, unsettled, sign, chosen, products, ranges)
        if k in claims.slopes:
            units, positive, stored = claims.slopes[k]
            for sign in (True, False):
                of = np.flatnonzero(positive == sign)
                branches = [Branch(s) for s in expanded(stored[of], claims, ranges)]
                tighten(lower, upper, units[of], sign, branches, products, ranges)
        for tree in (t for t in claims.trees if t.layer == k):
            require_known(
                excluded(tree, ranges, products, claims, clock),
                f"a tree does not exclude the signs of units {tree.units.tolist()[:5]} of layer"
                f" {k + 1}",
            )
            leaves += tree.leaves
            above, below = tree.units[tree.positive], tree.units[~tree.positive]
            upper[above] = np.minimum(upper[above], 0.0)
            lower[below] = np.maximum(lower[below], 0.0)
        if layer.relu:
            _check_layer(claims, k, (lower, upper), shown[k], whole)
            counts.update(zip(claims.status[k].tolist(), claims.proof[k].tolist(), strict=True))
        ranges.lower.append(lower)
        ranges.upper.append(upper)
    return Checked(_granted(ranges, claims), counts, leaves)


def _shown(claims: Claims, box: Interval, whole: bool, products: Products) -> Shown:
    """Which signs the witnesses, moved into the box, show; and the ends of what is only claimed."""
    points = [claims.witnesses.astype(np.float64)]
    if whole:
        points[0] = np.clip(points[0], *box)
    if whole and 0 in claims.proof:
        # Where the sign that a claim in the first layer excludes would occur first.
        of = np.flatnonzero(claims.proof[0] == CLAIMED)
        rises = (products.layers[0].weight[of] > 0.0) == (claims.status[0][of] == INACTIVE)[:, None]
        points.append(np.where(rises, box[1], box[0]))
    return [
        (np.asarray(up.any(axis=0)), np.asarray(down.any(axis=0)))
        for up, down in products.forward(np.concatenate(points))
    ]


def _check_layer(
    claims: Claims,
    k: int,
    bounds: tuple[Array, Array],
    shown: tuple[Flags, Flags],
    whole: bool,
) -> None:
    status, proof = claims.status[k], claims.proof[k]
    (lower, upper), (positive, negative) = bounds, shown
    # What a point or a bound of this check contradicts is false whatever it rests on.
    false = (status == INACTIVE) & ((positive & whole) | (lower > 0.0))
    false |= (status == ACTIVE) & ((negative & whole) | (upper < 0.0))
    false |= (status == UNSTABLE) & whole & ((upper <= 0.0) | (lower >= 0.0))
    open_ = (proof == WITNESS) & ~(positive & negative)
    open_ |= (proof <= TREE) & (
        ((status == INACTIVE) & ~(upper <= 0.0)) | ((status == ACTIVE) & ~(lower >= 0.0))
    )
    for units, error, words in (
        (false, NotVerifiedError, "not"),
        (open_, UncheckedError, "not shown to be"),
    ):
        for unit in np.flatnonzero(units)[:1].tolist():
            raise error(
                f"unit {unit} of layer {k + 1} is {words} {WORDS[status[unit]]}: the bounds on its"
                f" pre-activation are {lower[unit]:.6g} and {upper[unit]:.6g}, and the witnesses"
                f" show {int(positive[unit]) + int(negative[unit])} of its signs"
            )


def _granted(ranges: Ranges, claims: Claims) -> Ranges:
    """The ranges with what is only claimed taken for granted."""
    lower, upper = list(ranges.lower), list(ranges.upper)
    for k, status in claims.status.items():
        claimed = claims.proof[k] == CLAIMED
        upper[k] = np.where(claimed & (status == INACTIVE), np.minimum(upper[k], 0.0), upper[k])
        lower[k] = np.where(claimed & (status == ACTIVE), np.maximum(lower[k], 0.0), lower[k])
    return Ranges(lower, upper, ranges.box, ranges.relu)
