"""Splittings of the box, or of the signs of units: every leaf has to exclude the signs.

The leaves of a tree cover the box by construction, whatever it splits on: both children of a node
are there. Thousands of leaves are bounded at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from onnx_exact.errors import NotVerifiedError
from onnx_exact.verifier.batches import Batches
from onnx_exact.verifier.bounds import Branch, Ranges, intervals, upper_bounds
from onnx_exact.verifier.contents import Claims, Tree
from onnx_exact.verifier.rounding import Array

# Numbers of a batch in its largest array.
BATCH_ENTRIES = 2_000_000
# Units that are fixed on the way to a leaf: layer, unit and sign of each.
Path = list[tuple[int, int, int]]


def excluded(tree: Tree, ranges: Ranges, arithmetic: Batches, claims: Claims) -> bool:
    """Whether every leaf excludes every sign of the tree.

    Args:
        tree: as the certificate has it.
        ranges: of the layers before its own.
        arithmetic: of the chain.
        claims: which units have slopes.

    Raises:
        NotVerifiedError: the nodes are no tree.
    """
    layer = arithmetic.layers[tree.layer]
    sign = np.where(tree.positive, 1.0, -1.0)
    rows, bias = sign[:, None] * layer.weight[tree.units], sign * layer.bias[tree.units]
    bias = bias + layer.off(ranges.magnitude(tree.layer - 1))[tree.units]
    if tree.kind == "box":
        return _box_tree(tree, rows, bias, ranges, arithmetic)
    return all(
        _relu_tree(tree, rows[i], bias[i : i + 1], ranges, arithmetic, claims)
        for i in range(len(rows))
    )


def _box_tree(tree: Tree, rows: Array, bias: Array, root: Ranges, arithmetic: Batches) -> bool:
    boxes = list(_boxes(tree.nodes.tolist(), *root.box))
    widest = max(len(lower) for lower in (*root.lower, root.box[0]))
    batch = max(1, BATCH_ENTRIES // (max(2 * widest, len(rows)) * widest))
    for start in range(0, len(boxes), batch):
        part = boxes[start : start + batch]
        low, high = (np.array([box[side] for box in part])[:, None] for side in (0, 1))
        ranges = Ranges([], [], (low, high), root.relu)
        for k, layer in enumerate(arithmetic.layers[: tree.layer]):
            lower, upper = intervals(layer, *ranges.outputs(k - 1), exact=False)
            if k:
                both = np.concatenate([layer.weight, -layer.weight])
                biases = np.concatenate([layer.bias, -layer.bias])
                found = upper_bounds(both, biases, ranges, arithmetic)
                off = layer.off(ranges.magnitude(k - 1))[:, 0]
                upper = np.fmin(upper, found[:, : layer.width] + off)
                lower = np.fmax(lower, -found[:, layer.width :] - off)
            ranges.lower.append(np.fmax(lower, root.lower[k])[:, None])
            ranges.upper.append(np.fmin(upper, root.upper[k])[:, None])
        if not (upper_bounds(rows, bias, ranges, arithmetic) <= 0.0).all():
            return False
    return True


def _boxes(sides: list[int], low: Array, high: Array) -> Iterator[tuple[Array, Array]]:
    """The leaves of a tree of boxes; the first child is the lower part."""
    waiting = [(low, high)]
    for side in sides:
        if not waiting:
            raise NotVerifiedError("a tree has nodes that belong to none")
        low, high = waiting.pop()
        if side < 0:
            yield low, high
            continue
        middle = 0.5 * low[side] + 0.5 * high[side]
        left, right = high.copy(), low.copy()
        left[side] = right[side] = middle
        waiting += [(right, high), (low, left)]
    if waiting:
        raise NotVerifiedError("a tree lacks leaves")


def _relu_tree(
    tree: Tree, row: Array, bias: Array, root: Ranges, arithmetic: Batches, claims: Claims
) -> bool:
    assert tree.slopes is not None
    assert tree.multipliers is not None
    paths = list(_paths(tree.nodes.tolist(), len(tree.multipliers)))
    ends = np.cumsum([0, *map(len, paths)])
    batch = max(1, BATCH_ENTRIES // max(len(low) for low in (*root.lower, root.box[0])))
    for start in range(0, len(paths), batch):
        part = range(start, min(start + batch, len(paths)))
        lower = [np.tile(low, (len(part), 1)) for low in root.lower]
        upper = [np.tile(high, (len(part), 1)) for high in root.upper]
        extra = [np.zeros_like(low) for low in lower]
        for i in part:
            for at, (k, unit, sign) in enumerate(paths[i]):
                if sign > 0:
                    lower[k][i - start, unit] = max(lower[k][i - start, unit], 0.0)
                else:
                    upper[k][i - start, unit] = min(upper[k][i - start, unit], 0.0)
                extra[k][i - start, unit] += sign * float(tree.multipliers[ends[i] + at])
        slopes = expanded(tree.slopes[start : start + batch], claims, root)
        ranges = Ranges(lower, upper, (root.box[0][None], root.box[1][None]), root.relu)
        branches = [Branch(s, e) for s, e in zip(slopes, extra, strict=True)]
        rows = np.tile(row, (len(part), 1))
        found = upper_bounds(rows, np.repeat(bias, len(part)), ranges, arithmetic, branches)
        if not (found <= 0.0).all():
            return False
    return True


def _paths(nodes: list[list[int]], length: int) -> Iterator[Path]:
    """What is fixed on the way to each leaf, `length` in all; the first child is positive."""
    waiting: list[Path] = [[]]
    known = 0
    for layer, unit in nodes:
        if not waiting:
            raise NotVerifiedError("a tree has nodes that belong to none")
        path = waiting.pop()
        if layer < 0:
            yield path
            continue
        known += len(path) + 2
        if known > length:
            break
        waiting += [[*path, (layer, unit, -1)], [*path, (layer, unit, 1)]]
    if waiting:
        raise NotVerifiedError("a tree lacks leaves")
    if known != length:
        raise NotVerifiedError("a tree has not one multiplier for each unit it fixes")


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
