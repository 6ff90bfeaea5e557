"""Splits the input box until every part excludes some signs of a layer, from known splits on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bab.trees import LEAF
from onnx_exact.bounds import crown
from onnx_exact.bounds.interval import interval_bounds
from onnx_exact.deadline import Deadline
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box

# Parts that are bounded at once.
BATCH = 256
# What every side counts for at least, as a share of the one along which the bounds vary most.
LEAST_INFLUENCE = 0.05


@dataclass(frozen=True, eq=False)
class Signs:
    """Signs of one layer to exclude.

    Attributes:
        chain: the network.
        layer: of the units.
        rows: the functionals that must not be positive.
        goals: bounds no greater than these exclude them, shape (signs,).
        lower, upper: sound bounds on the pre-activations of the layers before, over the whole box.
        box: the domain.
    """

    chain: Chain
    layer: int
    rows: Affine
    goals: Array
    lower: list[Array]
    upper: list[Array]
    box: Box


def split_until_excluded(
    signs: Signs, sides: NDArray[np.int16], most_nodes: int, deadline: Deadline
) -> NDArray[np.int16] | None:
    """The sides of a tree, in preorder, each leaf of which excludes every sign.

    Args:
        signs: to exclude.
        sides: as in `onnx_exact.bab.trees.BoxTree`, to start from.
        most_nodes: of the tree.
        deadline: gives up when it passes.

    Returns:
        Shape (nodes,); None where nodes or time ran out.
    """
    if sides.size > most_nodes:
        return None
    second = _second_children(sides)
    split_on, first = [LEAF], [LEAF]
    waiting = [(0, 0 if sides.size else LEAF, signs.box.lower, signs.box.upper)]
    while waiting:
        if len(split_on) > most_nodes or deadline.passed:
            return None
        batch, waiting = waiting[:BATCH], waiting[BATCH:]
        # Known splits need no bounds.
        known = [node for node in batch if node[1] != LEAF and sides[node[1]] != LEAF]
        ends = [node for node in batch if node[1] == LEAF or sides[node[1]] == LEAF]
        chosen = [(node, int(sides[node[1]])) for node in known]
        if ends:
            box = Box(np.array([n[2] for n in ends]), np.array([n[3] for n in ends]))
            excluded, longest = _bounded(signs, box)
            chosen += [(ends[i], int(longest[i])) for i in np.flatnonzero(~excluded)]
        for (place, at, low, high), side in chosen:
            middle = 0.5 * low[side] + 0.5 * high[side]
            if not low[side] < middle < high[side]:
                return None
            left, right = high.copy(), low.copy()
            left[side] = right[side] = middle
            split_on[place], first[place] = side, len(split_on)
            given = at != LEAF and sides[at] != LEAF
            after = (at + 1, second[at]) if given else (LEAF, LEAF)
            waiting.append((len(split_on), after[0], low, left))
            waiting.append((len(split_on) + 1, after[1], right, high))
            split_on += [LEAF, LEAF]
            first += [LEAF, LEAF]
    return _preorder(split_on, first)


def _bounded(signs: Signs, box: Box) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Which parts exclude every sign, and along which side to split each of the others."""
    relaxations = _relaxations(signs, box)
    bounds, coefficients = crown.upper_bounds(signs.rows, relaxations, box)
    fits = bounds <= signs.goals
    with np.errstate(over="ignore", invalid="ignore"):
        influence = (np.abs(coefficients) * ~fits[..., None]).sum(axis=1)
        most = influence.max(axis=1, keepdims=True)
        influence = np.maximum(influence, np.where(most > 0.0, LEAST_INFLUENCE * most, 1.0))
        sides = (influence * (box.upper - box.lower)).argmax(axis=1)
    return np.asarray(fits.all(axis=1)), np.asarray(sides)


def _relaxations(signs: Signs, box: Box) -> list[crown.Relaxation]:
    """Relaxations of the layers below on every part, within the bounds known for the whole box."""
    low, high = box.lower, box.upper
    magnitude = np.maximum(np.abs(low), np.abs(high))
    relaxations: list[crown.Relaxation] = []
    for index, layer in enumerate(signs.chain.layers[: signs.layer]):
        affine = layer.affine
        lower, upper = interval_bounds(affine, low, high)
        if relaxations:
            upper = np.minimum(upper, crown.upper_bounds(affine, relaxations, box)[0])
            lower = np.maximum(lower, -crown.upper_bounds(affine.negative, relaxations, box)[0])
        lower = np.maximum(lower, signs.lower[index])
        upper = np.minimum(upper, signs.upper[index])
        relaxations.append(crown.relax(affine, layer.relu, lower, upper, magnitude))
        low, high = relaxations[-1].low, relaxations[-1].high
        magnitude = relaxations[-1].magnitude
    return relaxations


def _second_children(sides: NDArray[np.int16]) -> dict[int, int]:
    """For each node of a preorder list that is split, where its second child stands."""
    second: dict[int, int] = {}
    waiting: list[int] = []
    for place, side in enumerate(sides):
        if place and sides[place - 1] == LEAF:
            second[waiting.pop()] = place
        if side != LEAF:
            waiting.append(place)
    return second


def _preorder(split_on: list[int], first: list[int]) -> NDArray[np.int16]:
    listed, waiting = [], [0]
    while waiting:
        place = waiting.pop()
        listed.append(split_on[place])
        if first[place] != LEAF:
            waiting += [first[place] + 1, first[place]]
    return np.array(listed, dtype=np.int16)
