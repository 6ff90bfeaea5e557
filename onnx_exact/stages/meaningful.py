"""Takes rewrites back whose certified deviation says nothing about the outputs.

A bound on |new - old| is meaningful where it is small beside what the outputs are. Above a
thousandth of their range, rewrites that round are taken back, layer by layer, the costliest first,
until it is below; where there is no bound, all of them are. Removing units rounds nothing and
always stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from onnx_exact.certify.summary import Certified
from onnx_exact.network.affine import Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.reduce import Reduction
from onnx_exact.reduce.budget import Refusal

# Of the range of a chain's outputs: what its new outputs may be off by.
MEANINGFUL = 1e-3
# Points at which the range is observed, besides witnesses and the user's own.
POINTS = 100

# The reduction with nothing rounded in some layers, or with nothing but removal, and what is
# certain of its deviation.
Attempt = Callable[[frozenset[int], bool], tuple[Reduction, Certified]]


def observed_range(chain: Chain, box: Box, points: Array, seed: int) -> float:
    """Largest minus least output that is observed, or the largest magnitude where that is more.

    Args:
        chain: the original.
        box: of its inputs.
        points: shape (points, inputs), to be looked at as well as random ones.
        seed: of these.
    """
    rng = np.random.default_rng(seed)
    with np.errstate(over="ignore", invalid="ignore"):
        values = chain.forward(np.concatenate([points, box.sample(rng, POINTS)]))
        values = values[np.isfinite(values)]
        if not values.size:
            return 0.0
        most = max(float(values.max() - values.min()), float(np.abs(values).max()))
    return most if np.isfinite(most) else float(np.finfo(np.float64).max)


def meaningful(
    attempt: Attempt,
    layers: int,
    extent: Callable[[], float],
    *,
    finite: bool = True,
    most: float = np.inf,
) -> tuple[Reduction, Certified]:
    """The reduction with as little taken back as it takes, and what is certain of it.

    Args:
        attempt: reduces the chain.
        layers: number of layers of the chain.
        extent: finds the range of its outputs.
        finite: whether the domain is, so that what rounds nothing has a bound.
        most: that is allowed in any case.
    """
    reduction, bound = attempt(frozenset(), False)
    if reduction.removal_only:
        return reduction, bound
    if bound.max_abs is None:
        strict, bound = attempt(frozenset(range(layers)), finite)
        reason = "there is no bound on how far they would move the outputs"
        return _noted(strict, reason, {}), bound
    outputs, deviation = extent(), bound.max_abs
    allowed = min(MEANINGFUL * outputs, most)
    if deviation <= allowed:
        return reduction, bound
    exact: frozenset[int] = frozenset()
    for layer in _by_cost(attempt, layers):
        exact = exact | {layer}
        reduction, bound = attempt(exact, False)
        if reduction.removal_only or _size(bound) <= allowed:
            break
    else:
        reduction, bound = attempt(exact, True)
    numbers = {"deviation": deviation, "allowed": allowed, "layers": float(len(exact))}
    reason = f"they might move the outputs by up to {deviation:.2g}, which is more than" + (
        f" {MEANINGFUL:g} of their range, {outputs:.2g}" if allowed < most else f" {most:.2g}"
    )
    return _noted(reduction, reason, numbers), bound


def _size(bound: Certified) -> float:
    return np.inf if bound.max_abs is None else bound.max_abs


def _by_cost(attempt: Attempt, layers: int) -> list[int]:
    """The layers, first those without whose rewrites the bound is least."""
    without = [(_size(attempt(frozenset({layer}), False)[1]), layer) for layer in range(layers)]
    return [layer for _, layer in sorted(without)]


def _noted(reduction: Reduction, reason: str, numbers: dict[str, float]) -> Reduction:
    """The reduction with what was taken back among what was refused."""
    refusal = Refusal("rewrites that round", 0, reason, numbers)
    return replace(reduction, refused=(refusal, *reduction.refused))
