"""Bounds parts of the input box and splits them, one after another, compiled by numba.

What `parts` does for many parts at once, done for one part at a time: with the units that are
inactive on it left out, matrices are a quarter the size, and a part is ten times cheaper.

Rounding is bounded beforehand: `Net.slack` and `Rows.slack` hold for every part and all slopes
(`subtrees.allowances`), in whatever order sums are taken, with or without fused products.
All functions are in this file: they are compiled anew when it changes, not when another does.
"""

from __future__ import annotations

import numpy as np

from onnx_exact.bab.input_split.bounds import (
    AGAIN,
    INHERITED,
    LEAST_INFLUENCE,
    MOST_AGAIN,
    SHRINKING,
)
from onnx_exact.bab.input_split.kernel.arrays import (
    LANES,
    Asked,
    Found,
    Layers,
    Net,
    Parts,
    Rows,
    Signs,
    Space,
    Tree,
)
from onnx_exact.bab.input_split.kernel.compiled import compiled
from onnx_exact.network.affine import Array

FIRST_STEP = 0.6
STEP_DECAY = 0.85
# After so many steps the bound is hardly ever to lose less than this share of what it then loses:
# where it would have to, slopes are given up.
LEAST_REMAINDERS = (0.45, 0.6, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.95, 0.95)
# Into how many pieces a part that is far from done is split at most before they are bounded.
MOST_PIECES = 8
# A line above relu at both ends, whatever the rounding of its slope.
OVER, TINY = 1.0 + 1e-14, 1e-300


@compiled
def _whole(count: int) -> int:
    """A number of entries that leaves no rest to loops that take `LANES` at a time."""
    return (count + LANES - 1) // LANES * LANES


@compiled
def _interval(net: Net, k: int, stable: Signs, layers: Layers, space: Space) -> int:
    """Interval bounds on a layer; the number of units that they leave open, listed."""
    width = net.widths[k]
    lower, upper = space.lower, space.upper
    for unit in range(_whole(width)):
        lower[unit] = net.bias[k, unit] - net.slack[k, unit]
        upper[unit] = net.bias[k, unit] + net.slack[k, unit]
    for c in range(layers.counts[k]):
        low, high = layers.low[k, c], layers.high[k, c]
        row = net.across[k, layers.live[k, c]]
        for unit in range(_whole(width)):
            lower[unit] += min(row[unit] * low, row[unit] * high)
            upper[unit] += max(row[unit] * low, row[unit] * high)
    found = 0
    for unit in range(width):
        low = max(lower[unit], net.lower[k, unit], 0.0 if stable[k, unit] > 0 else -np.inf)
        high = min(upper[unit], net.upper[k, unit], 0.0 if stable[k, unit] < 0 else np.inf)
        lower[unit], upper[unit] = low, high
        if k > 0 and low < 0.0 < high:
            space.units[found] = unit
            found += 1
    return found


@compiled
def _step_back(layers: Layers, j: int, rows: int, front: Array, back: Array, const: Array) -> None:
    """Functionals of what layer j passes on, (units, rows), as functionals of its inputs."""
    count = layers.counts[j + 1]
    for c in range(count):
        row, bias = front[c], layers.bias[j, c]
        above, below, offset = layers.above[j, c], layers.below[j, c], layers.offset[j, c]
        for r in range(rows):
            positive = max(row[r], 0.0)
            through = positive * (above - below) + row[r] * below
            const[r] += positive * offset + through * bias
            row[r] = through
    # Four sums of four terms at a time: everything is then loaded and stored four times less often.
    # Rows of `front` beyond the last unit count for nothing: their weights are 0.
    w = layers.weight[j]
    for i in range(0, layers.counts[j], 4):
        out = back[i : i + 4]
        for c in range(0, max(count, 1), 4):
            a0, a1, a2, a3 = w[c, i], w[c + 1, i], w[c + 2, i], w[c + 3, i]
            b0, b1, b2, b3 = w[c, i + 1], w[c + 1, i + 1], w[c + 2, i + 1], w[c + 3, i + 1]
            c0, c1, c2, c3 = w[c, i + 2], w[c + 1, i + 2], w[c + 2, i + 2], w[c + 3, i + 2]
            d0, d1, d2, d3 = w[c, i + 3], w[c + 1, i + 3], w[c + 2, i + 3], w[c + 3, i + 3]
            x = front[c : c + 4]
            for r in range(rows):
                x0, x1, x2, x3 = x[0, r], x[1, r], x[2, r], x[3, r]
                a, b = a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3, b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                e, d = c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3, d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3
                out[0, r] = a if c == 0 else out[0, r] + a
                out[1, r] = b if c == 0 else out[1, r] + b
                out[2, r] = e if c == 0 else out[2, r] + e
                out[3, r] = d if c == 0 else out[3, r] + d


@compiled
def _tighten(net: Net, k: int, found: int, layers: Layers, space: Space) -> None:
    """Backward linear bounds on the listed units of a layer, both sides at once."""
    front, back, const = space.front, space.back, space.constants
    rows = _whole(2 * found)
    for c in range(layers.counts[k]):
        row = net.across[k, layers.live[k, c]]
        for q in range(found):
            weight = row[space.units[q]]
            front[c, q] = weight
            front[c, found + q] = -weight
        front[c, 2 * found : rows] = 0.0
    for q in range(found):
        const[q] = net.bias[k, space.units[q]]
        const[found + q] = -const[q]
    const[2 * found : rows] = 0.0
    for j in range(k - 1, -1, -1):
        _step_back(layers, j, rows, front, back, const)
        front, back = back, front
    for d in range(layers.counts[0]):
        low, high, row = layers.low[0, d], layers.high[0, d], front[d]
        for r in range(rows):
            const[r] += max(row[r] * low, row[r] * high)
    for q in range(found):
        unit = space.units[q]
        slack = net.slack[k, unit]
        space.upper[unit] = min(space.upper[unit], const[q] + slack)
        space.lower[unit] = max(space.lower[unit], -const[found + q] - slack)


@compiled
def _relax(net: Net, k: int, stable: Signs, layers: Layers, space: Space) -> None:
    """Relaxes a layer within its bounds, and notes the units that these leave no choice."""
    count, before = 0, layers.counts[k]
    for unit in range(net.widths[k]):
        low, high = space.lower[unit], space.upper[unit]
        if high <= 0.0:
            stable[k, unit] = -1
            continue
        above, offset, below = 1.0, 0.0, 1.0
        if low >= 0.0:
            stable[k, unit] = 1
        else:
            above = high / (high - low)
            offset = max(-above * low, (1.0 - above) * high) * OVER + TINY
            below = 1.0 if high > -low else 0.0
        layers.live[k + 1, count] = unit
        layers.low[k + 1, count], layers.high[k + 1, count] = max(low, 0.0), high
        layers.above[k, count], layers.offset[k, count] = above, offset
        layers.below[k, count], layers.bias[k, count] = below, net.bias[k, unit]
        for c in range(before):
            layers.weight[k, count, c] = net.weight[k, unit, layers.live[k, c]]
        layers.weight[k, count, before : _whole(before)] = 0.0
        count += 1
    layers.counts[k + 1] = count
    layers.weight[k, count : max(_whole(count), LANES)] = 0.0


@compiled
def _preactivation(k: int, q: int, layers: Layers, inputs: Array) -> float:
    """Of a live unit, from what the layer before passes on."""
    g = layers.bias[k, q]
    for c in range(_whole(layers.counts[k])):
        g += layers.weight[k, q, c] * inputs[c]
    return float(g)


@compiled
def _try(rows: Rows, sign: int, last: int, layers: Layers, space: Space, found: Found) -> float:
    """A functional at the point in the first row of `passed`, noted where it is above 0."""
    passed = space.passed
    for k in range(last):
        for q in range(layers.counts[k + 1]):
            passed[k + 1, q] = max(_preactivation(k, q, layers, passed[k]), 0.0)
    total = rows.bias[sign]
    for c in range(layers.counts[last]):
        total += rows.weight[sign, layers.live[last, c]] * passed[last, c]
    if total > rows.slack[sign] and not found.shown[sign]:
        found.shown[sign] = True
        found.points[sign] = passed[0, : layers.counts[0]]
    return float(total)


@compiled
def _bound(rows: Rows, sign: int, last: int, layers: Layers, space: Space) -> float:
    """An upper bound on a functional; its coefficients stay in `values` and `gradient`."""
    total = rows.bias[sign]
    values = space.values
    for c in range(layers.counts[last]):
        values[last, c] = rows.weight[sign, layers.live[last, c]]
    for j in range(last - 1, -1, -1):
        out = values[j] if j else space.gradient
        count, front, through = layers.counts[j + 1], values[j + 1], space.scratch
        for c in range(count):
            a = front[c]
            total += max(a, 0.0) * layers.offset[j, c]
            through[c] = a * (layers.above[j, c] if a > 0.0 else space.slopes[j, c])
            total += through[c] * layers.bias[j, c]
        w = layers.weight[j]
        for c in range(0, max(count, 1), 4):
            a0, a1, a2, a3 = through[c], through[c + 1], through[c + 2], through[c + 3]
            for i in range(_whole(layers.counts[j])):
                a = a0 * w[c, i] + a1 * w[c + 1, i] + a2 * w[c + 2, i] + a3 * w[c + 3, i]
                out[i] = a if c == 0 else out[i] + a
    for d in range(layers.counts[0]):
        a = space.gradient[d]
        total += max(a * layers.low[0, d], a * layers.high[0, d])
    return float(total + rows.slack[sign])


@compiled
def _climb(last: int, length: float, layers: Layers, space: Space) -> None:
    """One step of the lower slopes against the gradient of the bound that was evaluated last."""
    passed, derivative = space.passed, space.scratch
    for d in range(layers.counts[0]):
        high = space.gradient[d] > 0.0
        passed[0, d] = layers.high[0, d] if high else layers.low[0, d]
    for k in range(last):
        most = 0.0
        for q in range(layers.counts[k + 1]):
            g = _preactivation(k, q, layers, passed[k])
            a = space.values[k + 1, q]
            derivative[q] = 0.0
            if a > 0.0:
                passed[k + 1, q] = layers.above[k, q] * g + layers.offset[k, q]
            else:
                passed[k + 1, q] = space.slopes[k, q] * g
                if layers.above[k, q] < 1.0:
                    derivative[q] = a * g
                    most = max(most, abs(derivative[q]))
        if most > 0.0:
            for q in range(layers.counts[k + 1]):
                slope = space.slopes[k, q] - length * derivative[q] / most
                space.slopes[k, q] = min(max(slope, 0.0), 1.0)


@compiled
def _optimize(
    rows: Rows, sign: int, margin: float, last: int, layers: Layers, space: Space
) -> float:
    """The least bound of default and optimised slopes; what the first of them loses in `loss`."""
    for k in range(last):
        space.slopes[k, : layers.counts[k + 1]] = layers.below[k, : layers.counts[k + 1]]
    best = _bound(rows, sign, last, layers, space)
    for k in range(last):
        for q in range(layers.counts[k + 1]):
            layers.loss[k, q] += abs(space.values[k + 1, q]) * layers.offset[k, q]
    length = FIRST_STEP
    for remainder in LEAST_REMAINDERS:
        if not best > 0.0 or margin < remainder * (best + margin):
            break
        _climb(last, length, layers, space)
        best = min(best, _bound(rows, sign, last, layers, space))
        length *= STEP_DECAY
    return best


@compiled
def _share(last: int, layers: Layers, space: Space, shares: Array) -> None:
    """How much each side has to do with what the bounds lose, as in `parts`; what a unit loses is
    shared out, so that cancellation misleads nobody, as the losses of the units below were as well.
    """
    n_in = layers.counts[0]
    varied, owed = space.varied, space.owed
    shares[:] = 0.0
    for d in range(n_in):
        varied[0, d, d] = layers.high[0, d] - layers.low[0, d]
    for k in range(last):
        for q in range(layers.counts[k + 1]):
            row, total = layers.weight[k, q], 0.0
            for d in range(n_in):
                own, others = 0.0, 0.0
                for c in range(_whole(layers.counts[k])):
                    own += row[c] * varied[k, d, c]
                    others += abs(row[c]) * owed[k, d, c]
                varied[k + 1, d, q] = own * layers.above[k, q]
                owed[k + 1, d, q] = others * layers.above[k, q]
                space.scratch[d] = abs(own) + INHERITED * others
                total += space.scratch[d]
            if total > 0.0:
                for d in range(n_in):
                    part = space.scratch[d] / total
                    owed[k + 1, d, q] += layers.offset[k, q] * part
                    shares[d] += layers.loss[k, q] * part


@compiled
def _split_side(shares: Array, lower: Array, upper: Array) -> int:
    """The side that counts for most; what seems to count for nothing, once it is long enough."""
    most, longest, side = 0.0, 0.0, 0
    for d in range(shares.size):
        most, longest = max(most, shares[d]), max(longest, upper[d] - lower[d])
    for d in range(shares.size):
        least = LEAST_INFLUENCE * most if most > 0.0 else 1.0
        shares[d] = max(shares[d], least * (upper[d] - lower[d]) / longest)
        if shares[d] > shares[side]:
            side = d
    return side


@compiled
def _part(
    net: Net, rows: Rows, stable: Signs, asked: Asked, layers: Layers, space: Space, found: Found
) -> float:
    """Bounds functionals on the part in the first rows of `low` and `high`; `asked` are then those
    that are left. Returns how many levels the part is from done, as far as can be told.
    """
    last = net.widths.size
    for k in range(last):
        _tighten(net, k, _interval(net, k, stable, layers, space), layers, space)
        _relax(net, k, stable, layers, space)
        layers.loss[k, : layers.counts[k + 1]] = 0.0
    levels = 0.0
    for sign in range(asked.size):
        if not asked[sign]:
            continue
        for d in range(layers.counts[0]):
            space.passed[0, d] = 0.5 * layers.low[0, d] + 0.5 * layers.high[0, d]
        margin = -_try(rows, sign, last, layers, space, found)
        bound = _optimize(rows, sign, margin, last, layers, space)
        asked[sign] = not (bound <= 0.0 or found.shown[sign])
        if asked[sign]:
            for d in range(layers.counts[0]):
                high = space.gradient[d] > 0.0
                space.passed[0, d] = layers.high[0, d] if high else layers.low[0, d]
            _try(rows, sign, last, layers, space, found)
            if margin > 0.0:
                levels = max(levels, np.log((bound + margin) / margin) / -np.log(SHRINKING))
    return levels


@compiled
def _split(parts: Parts, part: int, other: int, side: int, upper: bool, tree: Tree) -> bool:
    """Splits a part at the middle of a side; `other` becomes its upper half, or its lower."""
    low, high = parts.lower[part, side], parts.upper[part, side]
    middle, node, first = 0.5 * low + 0.5 * high, parts.node[part], tree.nodes[0]
    parts.lower[other], parts.upper[other] = parts.lower[part], parts.upper[part]
    parts.stable[other], parts.asked[other] = parts.stable[part], parts.asked[part]
    below, above = (part, other) if upper else (other, part)
    parts.upper[below, side] = parts.lower[above, side] = middle
    parts.node[below], parts.node[above] = first, first + 1
    tree.sides[node], tree.children[node] = side, first
    tree.nodes[0] += 2
    return bool(low < middle < high)


@compiled
def explore(
    net: Net, rows: Rows, parts: Parts, tree: Tree, found: Found, layers: Layers, space: Space
) -> int:
    """Bounds and splits the first of `parts`, depth first, until nothing waits or no room is left;
    returns how many parts wait.

    Args:
        net, rows: the layers below, and the functionals.
        parts, tree: room for those that wait, the first of which is there, and for the nodes.
        found: receives the functionals that are above 0 somewhere, which are then no longer asked
            for, and those that cannot be excluded where nothing is left to split.
        layers, space: room for one part.
    """
    n_in, waiting, levels = parts.lower.shape[1], 1, 0.0
    stable, asked = parts.stable[0].copy(), parts.asked[0].copy()
    lower, upper, shares = layers.low[0, :n_in], layers.high[0, :n_in], np.zeros(n_in)
    most_nodes, most_parts = tree.sides.size - 2 * MOST_PIECES, parts.node.size - MOST_PIECES
    while waiting and tree.nodes[0] <= most_nodes and waiting <= most_parts:
        waiting -= 1
        lower[:], upper[:] = parts.lower[waiting], parts.upper[waiting]
        stable[:], asked[:] = parts.stable[waiting], parts.asked[waiting]
        asked &= ~(found.shown | found.stuck)
        if asked.any():
            levels = _part(net, rows, stable, asked, layers, space, found)
        if not asked.any():
            continue
        _share(net.widths.size, layers, space, shares)
        parts.stable[waiting], parts.asked[waiting] = stable, asked
        end, bits = waiting + 1, rows.bits[asked].sum()
        # A part that is far from done is split again before any of it is bounded.
        for _ in range(1 + int(min(levels, MOST_AGAIN) / AGAIN)):
            side = _split_side(shares, lower, upper)
            shares[side] *= 0.5
            for part in range(waiting, end):
                tree.left[parts.node[part]] = bits
                # What waits last, where the bound is greater, is gone on with.
                upper_last = space.gradient[side] > 0.0
                if not _split(parts, part, part + end - waiting, side, upper_last, tree):
                    found.stuck[asked] = True
            end += end - waiting
        waiting = end
    return waiting
