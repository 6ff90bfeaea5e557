"""A bound on what a runtime's own rounding can add to the outputs of a chain.

If the inputs of a layer are off by at most e, its pre-activations, computed in an arithmetic with
unit roundoff u, are off by at most

    |W| e + gamma_n (|W| (H + e) + |b|),    gamma_n = n u / (1 - n u),    |h| <= H,

with n the number of terms: in any order of summing, with or without fused multiply-add, or with
more precise intermediate results (the running error analysis of Higham 2002, sections 3.1 and 3.3).
A ReLU never makes an error larger. Numbers below the normal range may be flushed to 0, weights and
inputs too. Not covered are arithmetics whose single operations are less precise (bfloat16 or TF32
products), and fast matrix products such as Strassen's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onnx_exact.certify.bounds import Bounds
from onnx_exact.decide.verdict import Stability
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.network.rounding import gamma


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
        error = layer_rounding(layer.affine, size, error, dtype)
        size = bounds.magnitude(index)
    return error


def layer_rounding(
    affine: Affine, size: Array, error: Array, dtype: np.dtype[np.floating[Any]]
) -> Array:
    """Bounds on |computed - exact| for what an affine map makes, shape (outputs,).

    Args:
        affine: the map.
        size: bounds on the magnitudes of its exact inputs, shape (inputs,).
        error: bounds on what these are off by, may be infinite.
        dtype: in which the runtime stores and computes.
    """
    info = np.finfo(dtype)
    unit_roundoff, flushed = 0.5 * float(info.eps), float(info.smallest_normal)
    n = affine.n_in + 1
    share = n * unit_roundoff
    if share >= 1.0 or not np.isfinite(error).all():
        return np.full(affine.n_out, np.inf)
    magnitude = np.abs(affine.weight)
    with np.errstate(over="ignore", invalid="ignore"):
        terms = magnitude @ (size + error) + np.abs(affine.bias)
        # What is flushed: each product and sum, each weight, each input.
        lost = flushed * (3 * n + magnitude.sum(axis=1) + (size + error).sum())
        error = magnitude @ error + share / (1.0 - share) * terms + lost
        error *= 1.0 + 2 * gamma(n)
        # Beyond the largest number there is no relative error.
        error[~(terms + error < float(info.max))] = np.inf
    return error
