"""What one node does to the feature vector of a chain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from onnx_exact.errors import ModelError
from onnx_exact.graph.index import FLOATS, Index
from onnx_exact.graph.layout import Layout
from onnx_exact.network.affine import Array
from onnx_exact.network.approximate import Approximate
from onnx_exact.network.operator import LARGE


@dataclass(frozen=True, eq=False)
class Dense:
    """h -> W h + b, with W of shape (outputs, inputs)."""

    weight: Approximate
    bias: Approximate
    layout: Layout
    # Whether the same node takes the positive part of the outputs.
    rectified: bool = False


@dataclass(frozen=True, eq=False)
class Diagonal:
    """h -> scale * h + shift, entry by entry, both of shape (width,)."""

    scale: Approximate
    shift: Approximate
    layout: Layout


@dataclass(frozen=True)
class Regroup:
    """The same features in the same order, perhaps along other axes."""

    layout: Layout


@dataclass(frozen=True)
class Rectify:
    """h -> max(h, 0)."""

    layout: Layout


Step = Dense | Diagonal | Regroup | Rectify

# (graph, node, position of the chain's tensor among the node's inputs, its layout) -> the step, or
# None where the node is a barrier.
Reader = Callable[[Index, NodeProto, int, Layout], Step | None]


def weights(index: Index, tensor: str) -> Approximate | None:
    """A floating-point constant that a chain would take in, in float64; None for anything else.

    Raises:
        ModelError: it holds a NaN or an infinity.
    """
    found = matrix(index, tensor)
    if found is None or found.value.dtype == np.float64:
        return found
    return Approximate(_locked(found.value.astype(np.float64)), found.error)


def matrix(index: Index, tensor: str) -> Approximate | None:
    """As `weights`, but that what is large and in float32 stays there.

    Raises:
        ModelError: as said.
    """
    found = index.value(tensor)
    if found is None or found.values.dtype not in FLOATS.values():
        return None
    values: NDArray[Any] = found.values
    if not np.isfinite(values).all():
        raise ModelError(
            f"the constant {tensor!r} holds NaN or infinite values; repair the model first"
        )
    if values.dtype != np.float32 or values.size < LARGE:
        values = _locked(values.astype(np.float64))
    return Approximate(values, found.error)


def _locked(values: Array) -> Array:
    """An array that, being read-only, need not be copied by those who keep it."""
    values.flags.writeable = False
    return values


def per_unit(layout: Layout, numbers: Approximate) -> Approximate | None:
    """What a constant that broadcasts against a tensor is for each feature, shape (width,).

    None where it would change the tensor's shape, or differs between positions.
    """
    value = layout.per_unit(numbers.value)
    if value is None or numbers.error is None:
        return None if value is None else Approximate(value)
    error = layout.per_unit(numbers.error)
    return None if error is None else Approximate(value, error)
