"""How a domain was split to settle signs: the part of a proof that is hard to find again.

A tree lists its nodes in preorder. Every node is a leaf or has two children that together cover
it; a sign is settled where the bound of every leaf excludes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

LEAF = -1


@dataclass(frozen=True, eq=False)
class BoxTree:
    """Parts of the input box, each split at the middle of one side.

    The middle is 0.5 * lower + 0.5 * upper in float64; the first child is the lower part.

    Each sign is excluded at every leaf or at one of the nodes above it: by the linear bound that
    holds on that part after all layers below have been bounded on it, within what is known of the
    whole box, with lower slopes as they are by default or optimised (`stability.parts`). On a few
    parts in a thousand the search also used signs of units that a part around it had shown.

    Attributes:
        layer: of the units.
        units: whose signs are settled, shape (signs,).
        positive: whether it is g > 0 that is excluded, or g < 0; shape (signs,).
        sides: the side that each node is split along, `LEAF` for a leaf; shape (nodes,).
    """

    layer: int
    units: NDArray[np.intp]
    positive: NDArray[np.bool_]
    sides: NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class ReluTree:
    """Signs of units of earlier layers, fixed one after another.

    The first child has g >= 0 for the unit, the second g <= 0.

    Attributes:
        layer, unit: of the sign that is settled.
        positive: whether it is g > 0 that is excluded, or g < 0.
        splits: the layer and unit each node is split on, shape (nodes, 2); `LEAF` twice for a leaf.
    """

    layer: int
    unit: int
    positive: bool
    splits: NDArray[np.int32]


Tree: TypeAlias = BoxTree | ReluTree


def preorder(
    sides: NDArray[np.int16], children: NDArray[np.int64], kept: NDArray[np.bool_]
) -> NDArray[np.int16]:
    """The sides of a tree's nodes in preorder, level by level rather than node by node.

    Args:
        sides: of the nodes in any order, the root first; shape (nodes,).
        children: the first child of each, which the second follows; shape (nodes,).
        kept: the nodes whose children belong to it; the others become leaves; shape (nodes,).
    """
    level, levels = np.zeros(1, dtype=np.int64), []
    while (inner := level[kept[level]]).size:
        levels.append(inner)
        level = np.concatenate([children[inner], children[inner] + 1])
    sizes = np.ones(sides.size, dtype=np.int64)
    for inner in reversed(levels):
        first = children[inner]
        sizes[inner] += sizes[first] + sizes[first + 1]
    places = np.zeros(sides.size, dtype=np.int64)
    listed = np.full(sizes[0], LEAF, dtype=np.int16)
    for inner in levels:
        first = children[inner]
        places[first] = places[inner] + 1
        places[first + 1] = places[first] + sizes[first]
        listed[places[inner]] = sides[inner]
    return listed
