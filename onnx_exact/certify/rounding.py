"""A bound on what a runtime's own rounding can add to the outputs of a chain.

Layer by layer, as `onnx_exact.network.rounding.forward_error` has it; a ReLU never makes an error
larger.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onnx_exact.certify.bounds import Bounds
from onnx_exact.decide.verdict import Stability
from onnx_exact.network.affine import Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.network.rounding import forward_error


def outputs_as_run(
    chain: Chain, stability: Stability, box: Box, dtype: np.dtype[np.floating[Any]]
) -> tuple[Array, Array]:
    """Bounds on what a runtime computes for each output of a chain, shape (outputs,) both.

    Args:
        chain: as it is stored: one Gemm, or one MatMul and at most one Add, for each layer.
        stability: sound bounds over the reals.
        box: of the chain's inputs.
        dtype: in which the runtime stores and computes.
    """
    error = runtime_rounding(Bounds.of(chain, stability, box), box, dtype)
    with np.errstate(over="ignore"):
        lower, upper = stability.output_lower - error, stability.output_upper + error
    return np.nextafter(lower, -np.inf), np.nextafter(upper, np.inf)


def runtime_rounding(bounds: Bounds, box: Box, dtype: np.dtype[np.floating[Any]]) -> Array:
    """Bounds on |computed - exact| for each output, shape (outputs,), infinite where none is known.

    Args:
        bounds: of the chain, over the box.
        box: of its inputs, which are taken as given.
        dtype: in which the runtime stores and computes.
    """
    size = np.maximum(np.abs(box.lower), np.abs(box.upper))
    error = np.zeros_like(size)
    for index, layer in enumerate(bounds.chain.layers):
        error = forward_error(layer.affine, size, error, dtype)
        size = bounds.magnitude(index)
    return error
