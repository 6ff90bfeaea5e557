"""What is exact and needs no verdict but those of intervals, done before anything is decided.

Units that are multiples of one another, and parts that cancel, loosen every linear bound. So a
chain is written in its normal form as far as nothing is rounded, the result is decided in its
place, and the verdicts are carried back: with g_i = a g'_j on the domain,

    l' <= g'_j <= u'    hence    a l' <= g_i <= a u' if a > 0,    a u' <= g_i <= a l' if a < 0.

Units that are gone keep what bounds on the chain itself say of them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnx_exact.bounds.interval import interval_bounds
from onnx_exact.decide.verdict import Evidence, LayerVerdicts, Stability, Status
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.reduce.run import ReduceOptions, Reduction, reduce_chain
from onnx_exact.reduce.units import UnitMap


def simplified(chain: Chain, box: Box) -> Reduction | None:
    """The chain in its normal form as far as that is exact in float64; None where that is nothing.

    Args:
        chain: the original.
        box: shape (inputs,).
    """
    options = ReduceOptions(max_deviation=0.0, simplify=True)
    found = reduce_chain(chain, by_intervals(chain, box), box, np.dtype(np.float64), options)
    # Units that are only removed loosen no bound.
    return None if found.removal_only or found.chain.is_constant else found


def by_intervals(chain: Chain, box: Box) -> Stability:
    """What intervals say of the units of a chain."""
    layers: list[LayerVerdicts | None] = []
    low, high = box.lower, box.upper
    for layer in chain.layers:
        low, high = interval_bounds(layer.affine, low, high)
        if not layer.relu:
            layers.append(None)
            continue
        active = np.where(low >= 0.0, np.int8(Status.ACTIVE), np.int8(Status.UNDECIDED))
        status = np.where(high <= 0.0, np.int8(Status.INACTIVE), active)
        shown = np.where(status == Status.UNDECIDED, np.int8(Evidence.NONE), Evidence.INTERVAL)
        none = np.zeros(layer.width, dtype=bool)
        layers.append(LayerVerdicts(status, shown.astype(np.int8), low, high, none, none))
        low, high = np.maximum(low, 0.0), np.maximum(high, 0.0)
    return Stability(tuple(layers), np.zeros((0, chain.n_in)), low, high)


def carried_back(own: Stability, reduction: Reduction, found: Stability) -> Stability:
    """Verdicts on a chain by those on what it was simplified to.

    Args:
        own: on the chain itself.
        reduction: to the other one.
        found: on that.
    """
    layers = list(own.layers)
    for origin, verdicts in zip(reduction.origins, found.layers, strict=True):
        known = layers[origin.source]
        if known is not None and verdicts is not None:
            layers[origin.source] = _carried(known, origin, verdicts)
    return replace(
        own,
        layers=tuple(layers),
        witnesses=np.vstack([own.witnesses, found.witnesses]),
        output_lower=np.maximum(own.output_lower, found.output_lower),
        output_upper=np.minimum(own.output_upper, found.output_upper),
        interrupted=own.interrupted or found.interrupted,
    )


def _carried(known: LayerVerdicts, origin: UnitMap, found: LayerVerdicts) -> LayerVerdicts:
    """The verdicts on one layer."""
    units = np.flatnonzero(origin.place >= 0)
    place, factor = origin.place[units], origin.factor[units]
    turned = factor < 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        ends = np.stack([found.lower[place] * factor, found.upper[place] * factor])
        # A product that is rounded is off by less than a step.
        rounded = np.abs(factor) != 1.0
        low = np.where(rounded, np.nextafter(ends.min(axis=0), -np.inf), ends.min(axis=0))
        high = np.where(rounded, np.nextafter(ends.max(axis=0), np.inf), ends.max(axis=0))
    status, evidence = known.status.copy(), known.evidence.copy()
    lower, upper = known.lower.copy(), known.upper.copy()
    seen = [known.seen_positive.copy(), known.seen_negative.copy()]
    lower[units] = np.fmax(lower[units], low)
    upper[units] = np.fmin(upper[units], high)
    for own, this, other in (
        (seen[0], found.seen_positive, found.seen_negative),
        (seen[1], found.seen_negative, found.seen_positive),
    ):
        own[units] |= np.where(turned, other[place], this[place])
    swapped = found.status.copy()
    swapped[found.status == Status.INACTIVE] = Status.ACTIVE
    swapped[found.status == Status.ACTIVE] = Status.INACTIVE
    new = np.where(turned, swapped[place], found.status[place])
    open_ = (status[units] == Status.UNDECIDED) & (new != Status.UNDECIDED)
    status[units[open_]] = new[open_]
    evidence[units[open_]] = found.evidence[place[open_]]
    # A sign that is known is known beside the rounding of a factor.
    lower = np.where(status == Status.ACTIVE, np.maximum(lower, 0.0), lower)
    upper = np.where(status == Status.INACTIVE, np.minimum(upper, 0.0), upper)
    return LayerVerdicts(status, evidence, lower, upper, seen[0], seen[1])
