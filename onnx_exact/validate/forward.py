"""A chain's forward pass in float64, and what rounding can make of it at the points at hand.

The running error analysis of Higham 2002, section 3.3, with the magnitudes that the points show in
place of bounds over a domain: one vector a layer does for all points of a pass. What the numbers of
a layer are off by for having been computed when the model was read comes on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact.graph.locate import LocatedChain
from onnx_exact.network.affine import Affine, Array, Error
from onnx_exact.network.chain import Chain
from onnx_exact.network.rounding import forward_error
from onnx_exact.network.split import SplitChain

FLOAT64: np.dtype[np.floating[Any]] = np.dtype(np.float64)


@dataclass(frozen=True, eq=False)
class Pass:
    """What a chain makes of some points.

    Attributes:
        values: its outputs in float64, shape (points, outputs).
        finite: the points at which nothing overflows, shape (points,).
        float64: bounds on what the values are off by at these, shape (outputs,), from those of the
            chain that the model's file defines.
        runtime: the same for an evaluation in another type.
    """

    values: Array
    finite: NDArray[np.bool_]
    float64: Array
    runtime: Array


@dataclass(frozen=True, eq=False)
class _Tensor:
    """The outputs of one layer, and bounds on what they are off by, by type of arithmetic."""

    values: Array
    errors: dict[np.dtype[np.floating[Any]], Array]


def run_forward(
    network: Chain | SplitChain, points: Array, dtype: np.dtype[np.floating[Any]]
) -> Pass:
    """Evaluates a chain in float64, and bounds the rounding of that and of one in `dtype`.

    Args:
        network: the chain.
        points: shape (points, inputs), taken as given.
        dtype: in which a runtime stores and computes.
    """
    exact = np.zeros(points.shape[1])
    before = here = _Tensor(points, {FLOAT64: exact, dtype: exact})
    finite = _finite(points)
    bypasses = (
        network.bypasses if isinstance(network, SplitChain) else (None,) * len(network.layers)
    )
    for layer, bypass in zip(network.layers, bypasses, strict=True):
        affine, read = layer.affine, here
        if bypass is not None:
            affine, read = _joined(affine, bypass), _beside(here, before)
        with np.errstate(over="ignore", invalid="ignore"):
            g = affine.apply(read.values)
        finite = finite & _finite(g)
        # Beyond the float64 values lie the exact ones, which the bounds are about.
        size = _largest(read.values if finite.all() else read.values[finite])
        size = size + read.errors[FLOAT64]
        errors = {
            kind: forward_error(affine, size, error, kind) for kind, error in read.errors.items()
        }
        before, here = here, _Tensor(layer.activate(g), errors)
    return Pass(here.values, finite, here.errors[FLOAT64], here.errors[dtype])


def nodes_rounding(
    located: LocatedChain, points: Array, dtype: np.dtype[np.floating[Any]]
) -> Array:
    """What evaluating a chain's nodes one by one may round off, shape (outputs,).

    Where several nodes were read as one layer they add up more on the way than the layer does.

    Args:
        located: the chain.
        points: at which it is evaluated, shape (points, inputs).
        dtype: in which it is evaluated.
    """
    chain = located.chain
    if located.magnitudes is None:
        return np.zeros(chain.n_out)
    with np.errstate(over="ignore", invalid="ignore"):
        size, error = _largest(points), np.zeros(chain.n_in)
        rows = zip(
            *(chain.layers, located.magnitudes.layers, chain.activations(points), located.sites),
            strict=True,
        )
        for layer, absolute, values, site in rows:
            terms = absolute.affine.apply(size + error)
            share = (layer.affine.n_in + 1) * len(site.nodes) * float(np.finfo(dtype).eps)
            rounded = share / (1.0 - share) * terms if share < 1.0 else np.inf
            error = np.abs(layer.affine.weight) @ error + rounded
            size = _largest(values)
    return np.where(np.isfinite(error), error, np.inf)


def _largest(values: Array) -> Array:
    """The largest magnitude of each column."""
    top, bottom = values.max(axis=0, initial=0.0), values.min(axis=0, initial=0.0)
    return np.asarray(np.maximum(top, -bottom))


def _finite(values: Array) -> NDArray[np.bool_]:
    """The rows without nan or infinity."""
    return np.asarray(np.isfinite(values).all(axis=1))


def _joined(affine: Affine, bypass: Array) -> Affine:
    """A layer and its bypass as one map of both inputs."""
    error = affine.error
    if error is not None:
        error = Error(np.hstack([error.weight, np.zeros_like(bypass)]), error.bias)
    return Affine(np.hstack([affine.weight, bypass]), affine.bias, error)


def _beside(first: _Tensor, second: _Tensor) -> _Tensor:
    """Two tensors as one."""
    errors = {
        kind: np.concatenate([first.errors[kind], second.errors[kind]]) for kind in first.errors
    }
    return _Tensor(np.hstack([first.values, second.values]), errors)
