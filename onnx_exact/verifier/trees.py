"""Splittings of the box, or of the signs of units: every leaf has to exclude the signs.

The leaves of a tree cover the box by construction, whatever it splits on: both children of a node
are there. Leaves are made as they are bounded, thousands at once, and never all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onnx_exact.verifier.bounds import Branch, Ranges, intervals, tighten, upper_bounds
from onnx_exact.verifier.clock import Clock
from onnx_exact.verifier.products import Products
from onnx_exact.verifier.refusals import require
from onnx_exact.verifier.rounding import Array, add_up
from onnx_exact.verifier.schema import Claims, Tree

# Numbers of a batch in its largest array.
BATCH_ENTRIES = 2_000_000
# What a node is split on: a side of the box, or layer and unit.
Split = TypeVar("Split")


def excluded(tree: Tree, ranges: Ranges, products: Products, claims: Claims, clock: Clock) -> bool:
    """Whether every leaf excludes every sign of the tree.

    Args:
        tree: as the certificate has it.
        ranges: of the layers before its own.
        products: of the chain.
        claims: which units have slopes.
        clock: when to stop.

    Raises:
        NotVerifiedError: the nodes are no tree.
        UncheckedError: the time is up, or the tree too large.
    """
    layer = products.layers[tree.layer]
    sign = np.where(tree.positive, 1.0, -1.0)
    rows, bias = sign[:, None] * layer.weight[tree.units], sign * layer.bias[tree.units]
    bias = add_up(bias, layer.off(ranges.magnitude(tree.layer - 1))[tree.units])
    if tree.kind == "box":
        clock.spend(tree.leaves * len(ranges.box[0]))
        return all((v <= 0.0).all() for v in _box_tree(tree, rows, bias, ranges, products, clock))
    clock.spend(len(rows) * tree.leaves * len(ranges.box[0]))
    return all(
        (found <= 0.0).all()
        for row, start in zip(rows, bias, strict=True)
        for found in _relu_tree(tree, row, start, ranges, products, claims, clock)
    )


def _box_tree(
    tree: Tree, rows: Array, bias: Array, root: Ranges, products: Products, clock: Clock
) -> Iterator[Array]:
    """Upper bounds on the signs at some leaves at a time."""
    boxes = _boxes(tree.nodes.tolist(), *root.box)
    widest = max(len(lower) for lower in (*root.lower, root.box[0]))
    batch = max(1, BATCH_ENTRIES // (max(2 * widest, len(rows)) * widest))
    while part := list(islice(boxes, batch)):
        clock.spend()
        low, high = (np.array([box[side] for box in part])[:, None] for side in (0, 1))
        ranges = Ranges([], [], (low, high), root.relu)
        for k, layer in enumerate(products.layers[: tree.layer]):
            lower, upper = intervals(layer, *ranges.outputs(k - 1), exact=False)
            for positive in (True, False) if k else ():
                tighten(lower, upper, np.arange(layer.width), positive, None, products, ranges)
            ranges.lower.append(np.fmax(lower, root.lower[k])[:, None])
            ranges.upper.append(np.fmin(upper, root.upper[k])[:, None])
        yield upper_bounds(rows, bias, ranges, products)


def _boxes(sides: list[int], low: Array, high: Array) -> Iterator[tuple[Array, Array]]:
    """The leaves of a tree of boxes; the first child is the lower part.

    One box is changed in place on the way down, and back.
    """
    ends = low.copy(), high.copy()
    done: list[tuple[int, int, float]] = []
    for kept, path in _paths([None if side < 0 else side for side in sides]):
        while len(done) > kept:
            side, end, before = done.pop()
            ends[end][side] = before
        for side, second in path[kept:]:
            end = 1 - second
            done.append((side, end, float(ends[end][side])))
            ends[end][side] = float(0.5 * ends[0][side] + 0.5 * ends[1][side])
        yield ends[0].copy(), ends[1].copy()


def _paths(
    nodes: list[Split | None], most: float = math.inf
) -> Iterator[tuple[int, list[tuple[Split, int]]]]:
    """What is split, and which child is taken, on the way to each leaf.

    Args:
        nodes: in preorder; None for a leaf.
        most: how long all paths may be together.

    Yields:
        How much of it is as it was for the leaf before, and the path, which is changed later.
    """
    path: list[tuple[Split, int]] = []
    waiting: list[tuple[int, tuple[Split, int]]] = []
    kept = 0
    for number, split in enumerate(nodes):
        if number:
            require(waiting, "a tree has nodes that belong to none")
            depth, taken = waiting.pop()
            kept = min(kept, depth)
            path[depth:] = [taken]
        if split is not None:
            waiting += [(len(path), (split, 1)), (len(path), (split, 0))]
            continue
        most -= len(path)
        require(most >= 0, "a tree has not one multiplier for each unit it fixes")
        yield kept, path
        kept = len(path)
    require(nodes and not waiting, "a tree lacks leaves")


def _relu_tree(
    tree: Tree,
    row: Array,
    bias: np.float64,
    root: Ranges,
    products: Products,
    claims: Claims,
    clock: Clock,
) -> Iterator[Array]:
    """Upper bounds on one sign at some leaves at a time."""
    splits = [None if layer < 0 else (layer, unit) for layer, unit in tree.nodes.tolist()]
    paths = (path.copy() for _, path in _paths(splits, len(tree.multipliers)))
    batch = max(1, BATCH_ENTRIES // max(len(low) for low in (*root.lower, root.box[0])))
    start = used = 0
    while part := list(islice(paths, batch)):
        clock.spend()
        lower = [np.tile(low, (len(part), 1)) for low in root.lower]
        upper = [np.tile(high, (len(part), 1)) for high in root.upper]
        extra = [np.zeros_like(low) for low in lower]
        for i, path in enumerate(part):
            multipliers = tree.multipliers[used : used + len(path)].tolist()
            used += len(path)
            for ((k, unit), second), multiplier in zip(path, multipliers, strict=True):
                (upper if second else lower)[k][i, unit] = 0.0
                extra[k][i, unit] += -multiplier if second else multiplier
        slopes = expanded(tree.slopes[start : start + len(part)], claims, root)
        start += len(part)
        ranges = Ranges(lower, upper, (root.box[0][None], root.box[1][None]), root.relu)
        branches = [Branch(s, e) for s, e in zip(slopes, extra, strict=True)]
        rows, biases = np.tile(row, (len(part), 1)), np.repeat(bias, len(part))
        yield upper_bounds(rows, biases, ranges, products, branches)
    require(used == len(tree.multipliers), "a tree has not one multiplier for each unit it fixes")


def expanded(stored: NDArray[np.uint8], claims: Claims, ranges: Ranges) -> list[Array]:
    """Slopes for all units of the layers in `ranges`, shape (records, units) each.

    Stored are those of the loose units; the others keep what they have by default.
    """
    found, start = [], 0
    for k, (lower, upper) in enumerate(zip(ranges.lower, ranges.upper, strict=True)):
        slopes = np.tile(np.asarray(upper > -lower, dtype=np.float64), (len(stored), 1))
        if ranges.relu[k]:
            loose = claims.loose(k)
            count = int(loose.sum())
            slopes[:, loose] = stored[:, start : start + count] / 255.0
            start += count
        found.append(slopes)
    return found
