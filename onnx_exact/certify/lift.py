"""Lifts units that stand for stably active ones until the new chain's own bounds show them >= 0.

Their shifts come from bounds on the original, by way of units that the new chain does not have, and
before the layers below were rounded. What a bound on the new chain falls short of 0 by is added to
their bias, and taken off again in the next one:

    W h' + b  ->  W h' + (b + d),      V h + c  ->  V h + (c - V d).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from onnx_exact.certify.bounds import Bounds
from onnx_exact.certify.deviation import compare
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.approximate import Approximate
from onnx_exact.network.chain import Chain, Layer
from onnx_exact.network.domain import Box
from onnx_exact.reduce import Reduction
from onnx_exact.reduce.budget import FloatType
from onnx_exact.reduce.overflow import may_overflow
from onnx_exact.runtime.deadline import Deadline

# A unit is lifted by this share more than it needs, and by no more than the largest value it has.
MARGIN = 1e-9


def lifted(
    bounds: Bounds,
    box: Box,
    reduction: Reduction,
    dtype: FloatType,
    deadline: Deadline | None = None,
    exact: Collection[int] = (),
) -> Reduction:
    """The reduction with such units lifted, or as it was.

    Args:
        bounds: of the original, by which its units are stable.
        box: of the inputs.
        reduction: in the chain form.
        dtype: in which the model stores its weights.
        deadline: layers that are left when it passes stay as they are; None for no end.
        exact: layers of the original in which nothing may be rounded.
    """
    if not box.finite or not reduction.changed or reduction.network is not reduction.chain:
        return reduction
    # A layer that is lifted is rounded off for the next one.
    for k in range(len(reduction.chain.layers) - 1):
        if deadline is not None and deadline.passed:
            break
        fresh = np.ones(reduction.chain.layers[k].width, dtype=bool)
        place = reduction.origins[k].place
        fresh[place[place >= 0]] = False
        if not (fresh.any() and reduction.chain.layers[k].relu):
            continue
        found = compare(bounds, box, reduction.chain, reduction.origins, reduction.gone).bounds
        low, high = found.lower[k], found.upper[k]
        missing = np.where(fresh & (low < 0.0) & (-low <= high), -low, 0.0)
        if not missing.any():
            continue
        strict = any(origin.source in exact for origin in reduction.origins[k : k + 2])
        new = _lifted(reduction.chain, k, missing, dtype, strict)
        if _fits(new, found, box, k, missing, dtype):
            reduction = replace(reduction, chain=new)
    return reduction


def _fits(chain: Chain, bounds: Bounds, box: Box, k: int, missing: Array, dtype: FloatType) -> bool:
    """Whether nothing overflows where units of layer `k` are larger by at most twice `missing`."""
    inputs = bounds.outputs(k - 1) if k else (box.lower, box.upper)
    low, high = bounds.outputs(k)
    with np.errstate(over="ignore", invalid="ignore"):
        outputs = low, high + 2.0 * missing
    own, reader = chain.layers[k].affine, chain.layers[k + 1].affine
    return not (may_overflow(own, *inputs, dtype) or may_overflow(reader, *outputs, dtype))


def _lifted(chain: Chain, k: int, missing: Array, dtype: FloatType, exact: bool) -> Chain:
    """The chain with units of one layer lifted; as it was where a bias does not fit the dtype.

    Or, where it has to be `exact`, is rounded.
    """
    layer, after = chain.layers[k], chain.layers[k + 1]
    bias = layer.affine.bias
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = (bias + (1.0 + MARGIN) * missing).astype(dtype)
        above = np.nextafter(wanted, np.array(np.inf, dtype=dtype)).astype(np.float64)
        new = np.where(missing > 0.0, above, bias)
        more = Approximate(new) + -Approximate(bias)
        taken = Approximate(after.affine.bias) + -(Approximate(after.affine.weight) @ more)
        stored = taken.value.astype(dtype).astype(np.float64)
    if not (np.isfinite(new).all() and np.isfinite(stored).all()):
        return chain
    if exact and ((stored != taken.value).any() or taken.off.any()):
        return chain
    layers = list(chain.layers)
    layers[k] = Layer(Affine(layer.affine.weight, new), layer.relu)
    layers[k + 1] = Layer(Affine(after.affine.weight, stored), after.relu)
    return Chain(tuple(layers))
