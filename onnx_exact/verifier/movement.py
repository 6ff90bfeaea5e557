"""What stays of a tensor that is cut, and data movement run on numbered entries, whole and cut."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, OperatorSetIdProto

from onnx_exact.verifier.refusals import require_known
from onnx_exact.verifier.rounding import Flags
from onnx_exact.verifier.shapes import Shape, run_alone

# Of which inputs entries are moved; all others are constants.
MOVES = {
    "Concat": slice(None),
    **dict.fromkeys(
        (
            "Flatten",
            "Gather",
            "Reshape",
            "Slice",
            "Split",
            "Squeeze",
            "Transpose",
            "Unsqueeze",
        ),
        slice(1),
    ),
}
# Entries of a tensor that is numbered.
MOST_NUMBERED = 2**24

# A node, and its constant inputs by name.
Fed = tuple[NodeProto, Mapping[str, NDArray[Any]]]


@dataclass(frozen=True, eq=False)
class Cut:
    """The entries along one axis of a tensor that stay."""

    axis: int
    kept: Flags

    def same(self, other: Cut | None) -> bool:
        """Whether another tensor keeps the same entries along the same axis."""
        return (
            other is not None and self.axis == other.axis and np.array_equal(self.kept, other.kept)
        )

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """What stays of a tensor."""
        sizes = values.shape[self.axis : self.axis + 1]
        require_known(sizes == self.kept.shape, "a tensor of another shape than is inferred")
        return values.compress(self.kept, axis=self.axis)


def moves_alike(
    whole: Fed,
    cut: Fed,
    shapes: Mapping[str, Shape],
    cuts: Mapping[str, Cut],
    opsets: Iterable[OperatorSetIdProto],
) -> bool:
    """Whether a node makes of cut tensors what another one makes of whole ones, cut.

    Args:
        whole, cut: the nodes.
        shapes: of the tensors whose entries they move.
        cuts: of all tensors that are cut.
        opsets: of the model.
    """
    numbered: dict[str, NDArray[Any]] = {}
    start = 0
    for name, shape in shapes.items():
        count = math.prod(shape)
        require_known(count <= MOST_NUMBERED, f"{name!r} is too large")
        numbered[name] = np.arange(start, start + count).reshape(shape)
        start += count
    left = {name: cuts[name].of(v) if name in cuts else v for name, v in numbered.items()}
    sets = list(opsets)
    try:
        first = run_alone(whole[0], numbered | dict(whole[1]), sets)
    except Exception:  # of any kind, where sizes do not fit: the original does not run either
        return not start
    try:
        then = run_alone(cut[0], left | dict(cut[1]), sets)
    except Exception:  # of any kind, where sizes do not fit
        return False
    pairs = zip(filter(None, whole[0].output), first, then, strict=True)
    return all(np.array_equal(cuts[n].of(a) if n in cuts else a, b) for n, a, b in pairs)
