"""What one node does to the feature vector of a chain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from onnx_exact.errors import ModelError
from onnx_exact.graph.index import Index
from onnx_exact.graph.layout import Layout
from onnx_exact.network.affine import Array
from onnx_exact.network.approximate import Approximate


@dataclass(frozen=True, eq=False)
class Dense:
    """h -> W h + b, with W of shape (outputs, inputs)."""

    weight: Approximate
    bias: Approximate
    layout: Layout


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


def weights(index: Index, tensor: str) -> Array | None:
    """A constant that a chain would take in, in float64; None where it is no such constant.

    Raises:
        ModelError: it holds a NaN or an infinity.
    """
    values = index.floats(tensor)
    if values is not None and not np.isfinite(values).all():
        raise ModelError(
            f"the constant {tensor!r} holds NaN or infinite values; repair the model first"
        )
    return values
