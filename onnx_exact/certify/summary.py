"""What a report says for sure of how far the new model is from the old one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_exact.certify.around import split_deviation
from onnx_exact.certify.bounds import Bounds
from onnx_exact.certify.deviation import compare
from onnx_exact.certify.rounding import runtime_rounding
from onnx_exact.network.affine import Array
from onnx_exact.network.domain import Box
from onnx_exact.network.rounding import gamma
from onnx_exact.reduce import Reduction
from onnx_exact.reduce.budget import FloatType


@dataclass(frozen=True)
class Certified:
    """Bounds over the domain; None where none is known, as over an infinite domain.

    Attributes:
        max_abs: on |new - old|, in real arithmetic with the weights as stored.
        of: the tensor that this is about: the output of a chain.
        is_output: whether that is all that the model puts out.
        rounding_before, rounding_after: on what a runtime's own rounding adds to that tensor.
    """

    max_abs: float | None
    of: str
    is_output: bool
    rounding_before: float | None
    rounding_after: float | None


def certify_chain(
    bounds: Bounds,
    box: Box,
    reduction: Reduction,
    dtype: FloatType,
    plain: bool,
    go_on: Callable[[], None],
) -> tuple[float | None, float | None, float | None]:
    """The three bounds of `Certified` for one chain.

    Args:
        bounds: of the original, by which its units are stable.
        box: of the chain's inputs.
        reduction: the reduced chain.
        dtype: of its weights.
        plain: whether a runtime computes with the chain's own numbers.
        go_on: called now and then; what it raises ends the work.
    """
    if not box.finite:
        # Where units were only removed nothing changes, whatever the domain.
        return 0.0 if reduction.removal_only else None, None, None
    before = _largest(runtime_rounding(bounds, box, dtype)) if plain else None
    if not reduction.changed:
        return 0.0, before, before
    comparison = compare(*(bounds, box, reduction.chain, reduction.origins, reduction.gone, go_on))
    if reduction.split is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            outputs = comparison.outputs + split_deviation(comparison.bounds, reduction.split)
            outputs = np.where(np.isnan(outputs), np.inf, outputs * (1.0 + gamma(2)))
        return _largest(outputs), before, None
    after = _largest(runtime_rounding(comparison.bounds, box, dtype)) if plain else None
    return _largest(comparison.outputs), before, after


def _largest(bounds: Array) -> float | None:
    """The largest of some bounds; None if one is infinite."""
    largest = float(bounds.max())
    return largest if np.isfinite(largest) else None


def worst(chains: Sequence[Certified]) -> Certified | None:
    """Of the chains of a model the one with the largest bound; one without a bound before all."""
    if not chains:
        return None
    return max(chains, key=lambda c: np.inf if c.max_abs is None else c.max_abs)
