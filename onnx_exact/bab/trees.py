"""How a domain was split to settle signs: the part of a proof that is hard to find again.

Every node of a tree is a leaf or has two children that together cover it; a sign is settled where
the bound of every leaf excludes it.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.query import Query

LEAF = -1


@dataclass(frozen=True, eq=False)
class Leaves:
    """What excludes a sign at each leaf of a tree of ReLUs, in the order of the leaves.

    Attributes:
        units: those that have a slope, numbered through all layers below; shape (slopes,).
        slopes: in units of 1 / `bounds.cases.SLOPE_STEPS`, shape (leaves, slopes).
        multipliers: of the units fixed on the way to each leaf, leaf by leaf, from the root; not
            negative.
    """

    units: NDArray[np.intp]
    slopes: NDArray[np.uint8]
    multipliers: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Tree:
    """Splittings that settle signs of units of one layer, the nodes in preorder.

    A tree of boxes splits the input box at the middle of a side, 0.5 * lower + 0.5 * upper in
    float64; the first child is the lower part. A tree of ReLUs fixes the sign of a unit of an
    earlier layer: the first child has g >= 0, the second g <= 0; it settles one sign. A single leaf
    is a linear bound with slopes of its own.

    Attributes:
        layer: of the units.
        units: whose signs are settled, shape (signs,).
        positive: whether it is g > 0 that is excluded, or g < 0; shape (signs,).
        splits: the side, or the unit numbered through all layers below, that each node is split on,
            `LEAF` for a leaf; shape (nodes,).
        leaves: None for a tree of boxes.
    """

    layer: int
    units: NDArray[np.intp]
    positive: NDArray[np.bool_]
    splits: NDArray[np.int32]
    leaves: Leaves | None = None

    @property
    def queries(self) -> list[Query]:
        """The signs that it settles."""
        signs = zip(self.units.tolist(), self.positive.tolist(), strict=True)
        return [Query(self.layer, unit, positive) for unit, positive in signs]


class Growing:
    """A tree while it grows.

    Attributes:
        splits: what each node is split on, the root first; as in `Tree`.
        children: the first child of each, which the second follows.
    """

    def __init__(self) -> None:
        self.splits, self.children = array("i", [LEAF]), array("q", [LEAF])

    def __len__(self) -> int:
        """Number of nodes."""
        return len(self.splits)

    def split(self, node: int, on: int) -> int:
        """Splits a leaf; its first child."""
        first = len(self.splits)
        self.splits[node], self.children[node] = on, first
        self.splits.extend((LEAF, LEAF))
        self.children.extend((LEAF, LEAF))
        return first

    def graft(
        self, node: int, splits: NDArray[np.int16], children: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Puts another tree in the place of a leaf; what its nodes are numbered here."""
        numbers = np.arange(len(splits)) + (len(self.splits) - 1)
        numbers[0] = node
        children = np.where(children == LEAF, LEAF, children + (len(self.splits) - 1))
        self.splits[node], self.children[node] = int(splits[0]), int(children[0])
        self.splits.frombytes(splits[1:].astype(np.int32).tobytes())
        self.children.frombytes(children[1:].tobytes())
        return numbers

    def regrow(self, splits: NDArray[np.int32]) -> list[int]:
        """Splits the root as the nodes of a tree in preorder are; the leaves in their order."""
        leaves, waiting = [], [0]
        for on in splits.tolist():
            node = waiting.pop()
            if on == LEAF:
                leaves.append(node)
            else:
                first = self.split(node, on)
                waiting += [first + 1, first]
        return leaves

    def preorder(self, kept: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """The nodes in preorder, put together level by level rather than node by node.

        Args:
            kept: the nodes whose children belong to the tree; None for all that have some.
        """
        children = np.array(self.children)
        inside = children != LEAF if kept is None else kept
        level, levels = np.zeros(1, dtype=np.int64), []
        while (inner := level[inside[level]]).size:
            levels.append(inner)
            level = np.concatenate([children[inner], children[inner] + 1])
        sizes = np.ones(children.size, dtype=np.int64)
        for inner in reversed(levels):
            first = children[inner]
            sizes[inner] += sizes[first] + sizes[first + 1]
        places = np.zeros(children.size, dtype=np.int64)
        listed = np.zeros(sizes[0], dtype=np.int64)
        for inner in levels:
            first = children[inner]
            places[first] = places[inner] + 1
            places[first + 1] = places[first] + sizes[first]
            for child in (first, first + 1):
                listed[places[child]] = child
        return listed
