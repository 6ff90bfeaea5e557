"""Branching on ReLUs: the sign of one functional, settled by fixing the signs of unstable units.

Each node fixes some units to g >= 0 or g <= 0, where the ReLU is linear. Its bound is a backward
linear bound in which the assumptions enter by multipliers beta (beta-CROWN, Wang et al. 2021):

    max A h + c  s.t. s_i g_i >= 0   <=   max A h + c + sum_i beta_i s_i g_i,      beta >= 0,

with lower slopes alpha and multipliers beta improved by gradient steps, many nodes at once. Nodes
whose bound excludes the sign are done; the worst ones are split first, on the unit whose relaxation
loses most. The maximisers of all bounds are run forward as witnesses.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_exact.deadline import Deadline
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.domain import Box
from onnx_exact.stability.crown import Relaxation, upper_bounds
from onnx_exact.stability.knowledge import Knowledge
from onnx_exact.stability.verdict import Evidence

# Nodes that are bounded at once, and in all for one sign.
BATCH = 32
MOST_NODES = 4000
STEPS = 12
SLOPE_STEP = 0.3
MULTIPLIER_STEP = 1.0
STEP_DECAY = 0.85


@dataclass(frozen=True, eq=False)
class _Node:
    """Fixed signs (1, -1, 0 for none), slopes and multipliers, one array a layer below."""

    signs: tuple[NDArray[np.int8], ...]
    slopes: tuple[Array, ...]
    multipliers: tuple[Array, ...]


def split_sign(
    knowledge: Knowledge,
    layer: int,
    unit: int,
    positive: bool,
    below: Sequence[Relaxation],
    deadline: Deadline,
) -> bool:
    """Tries to settle one open sign; True where it is settled, by proof or by a witness.

    Args:
        knowledge: receives the bound or the witness.
        layer, unit, positive: the sign.
        below: relaxations of the layers before `layer`, at least one.
        deadline: gives up when it passes.
    """
    affine = knowledge.chain.layers[layer].affine
    sign = 1.0 if positive else -1.0
    row = Affine(sign * affine.weight[[unit]], sign * affine.bias[[unit]])
    tree = _Tree(knowledge.box, row, below)
    count = 0
    while tree.open and count < MOST_NODES and not deadline.passed:
        count += BATCH
        if tree.grow(knowledge) and knowledge.open_signs(layer)[0 if positive else 1][unit] == 0:
            return True
    if tree.open:
        return False
    width = knowledge.chain.layers[layer].width
    full = np.full(width, np.inf)
    full[unit] = 0.0
    if positive:
        knowledge.tighten(layer, Evidence.LINEAR, upper=full)
    else:
        knowledge.tighten(layer, Evidence.LINEAR, lower=-full)
    return True


class _Tree:
    """The nodes of one functional that are not done, worst bound first."""

    def __init__(self, box: Box, row: Affine, below: Sequence[Relaxation]) -> None:
        self._box, self._row, self._below = box, row, below
        self._relu = [(r.upper_slope > 0.0) & (r.upper_slope < 1.0) for r in below]
        root = _Node(
            tuple(np.zeros(r.affine.n_out, dtype=np.int8) for r in below),
            tuple(r.lower_slope for r in below),
            tuple(np.zeros(r.affine.n_out) for r in below),
        )
        self._serial = 0
        self.open: list[tuple[float, int, _Node]] = [(-np.inf, 0, root)]

    def grow(self, knowledge: Knowledge) -> int:
        """Bounds the worst nodes, splits those that stay open; the number of signs seen first."""
        nodes = [heapq.heappop(self.open)[2] for _ in range(min(BATCH, len(self.open)))]
        bounds, nodes, scores, points = self._bound(nodes)
        found = knowledge.show(points)
        for bound, node, score in zip(bounds, nodes, scores, strict=True):
            if bound <= 0.0:
                continue
            for child in self._children(node, score):
                self._serial += 1
                heapq.heappush(self.open, (-float(bound), self._serial, child))
        return found

    def _children(self, node: _Node, score: list[Array]) -> list[_Node]:
        """The node with one more unit fixed, to either sign; itself where none is left to fix."""
        layer = int(np.argmax([s.max() for s in score]))
        unit = int(score[layer].argmax())
        if score[layer][unit] <= 0.0:
            return [node]
        children = []
        for sign in (1, -1):
            signs = node.signs[layer].copy()
            signs[unit] = sign
            fixed = (*node.signs[:layer], signs, *node.signs[layer + 1 :])
            children.append(replace(node, signs=fixed))
        return children

    def _bound(self, nodes: list[_Node]) -> tuple[Array, list[_Node], list[list[Array]], Array]:
        """The best bounds found, the nodes with what attained them, scores, points to run."""
        layers = [self._relaxation(k, nodes) for k in range(len(self._below))]
        signs = [np.array([n.signs[k] for n in nodes])[:, None] for k in range(len(layers))]
        slopes = [np.array([n.slopes[k] for n in nodes])[:, None] for k in range(len(layers))]
        betas = [np.array([n.multipliers[k] for n in nodes])[:, None] for k in range(len(layers))]
        for k, sign in enumerate(signs):
            slopes[k] = np.where(sign == 1, 1.0, np.where(sign == -1, 0.0, slopes[k]))
        box = Box(self._box.lower[None, :], self._box.upper[None, :])
        best = np.full(len(nodes), np.inf)
        kept = [(a.copy(), b.copy()) for a, b in zip(slopes, betas, strict=True)]
        decay = 1.0
        points = []
        for step in range(STEPS + 1):
            signed = [b * s for b, s in zip(betas, signs, strict=True)]
            values, _ = upper_bounds(self._row, layers, box, slopes, signed)
            better = values[:, 0] < best
            best = np.where(better, values[:, 0], best)
            for (a, b), slope, beta in zip(kept, slopes, betas, strict=True):
                a[better], b[better] = slope[better], beta[better]
            if step == STEPS or (best <= 0.0).all():
                break
            coefficients, through = self._backward(layers, slopes, signed)
            point = np.where(coefficients[0] > 0.0, self._box.upper, self._box.lower)
            points.append(point[:, 0])
            forward = self._forward(layers, slopes, coefficients, point)
            for k, value in enumerate(forward):
                free = self._relu[k] & (signs[k] == 0)
                gradient = np.where(free, np.minimum(coefficients[k + 1], 0.0) * value, 0.0)
                slopes[k] = np.clip(slopes[k] - decay * SLOPE_STEP * _scaled(gradient), 0.0, 1.0)
                # A step for beta is a share of the coefficient that it has to make up for.
                size = np.abs(through[k]).max(axis=-1, keepdims=True)
                descent = _scaled(np.where(signs[k] != 0, signs[k] * value, 0.0))
                betas[k] = np.maximum(betas[k] - decay * MULTIPLIER_STEP * size * descent, 0.0)
            decay *= STEP_DECAY
        new = [
            replace(
                node,
                slopes=tuple(a[i, 0] for a, _ in kept),
                multipliers=tuple(b[i, 0] for _, b in kept),
            )
            for i, node in enumerate(nodes)
        ]
        scores = self._scores(layers, kept, signs)
        per_node = [[s[i] for s in scores] for i in range(len(nodes))]
        return best, new, per_node, np.concatenate(points) if points else self._box.lower[None, :]

    def _relaxation(self, k: int, nodes: list[_Node]) -> Relaxation:
        """The relaxation of a layer under each node's assumptions, shape (nodes, units)."""
        base = self._below[k]
        signs = np.array([n.signs[k] for n in nodes])
        on, off = signs == 1, signs == -1
        slope = np.where(on, 1.0, np.where(off, 0.0, base.upper_slope))
        return replace(
            base,
            upper_slope=slope,
            upper_offset=np.where(signs != 0, 0.0, base.upper_offset),
            lower_slope=np.where(signs != 0, slope, base.lower_slope),
            low=np.where(off, 0.0, base.low),
            high=np.where(off, 0.0, base.high),
        )

    def _backward(
        self, layers: list[Relaxation], slopes: list[Array], multipliers: list[Array]
    ) -> tuple[list[Array], list[Array]]:
        """Coefficients on x, h^1, ... and on g^1, ..., each of shape (nodes, 1, units)."""
        row = self._row.weight
        coefficients = [np.broadcast_to(row, (len(slopes[0]), *row.shape))]
        throughs = []
        for layer, slope, extra in zip(
            reversed(layers), reversed(slopes), reversed(multipliers), strict=True
        ):
            positive, negative = np.maximum(coefficients[-1], 0), np.minimum(coefficients[-1], 0)
            through = positive * layer.upper_slope[:, None] + negative * slope + extra
            throughs.append(through)
            coefficients.append(layer.pull_back(through))
        return coefficients[::-1], throughs[::-1]

    @staticmethod
    def _forward(
        layers: list[Relaxation], slopes: list[Array], coefficients: list[Array], point: Array
    ) -> list[Array]:
        """Pre-activations of the relaxed network at the maximisers, shape (nodes, 1, units)."""
        values = []
        for k, layer in enumerate(layers):
            value = layer.apply(point)
            values.append(value)
            above = layer.upper_slope[:, None] * value + layer.upper_offset[:, None]
            point = np.where(coefficients[k + 1] > 0.0, above, slopes[k] * value)
        return values

    def _scores(
        self,
        layers: list[Relaxation],
        kept: list[tuple[Array, Array]],
        signs: list[NDArray[np.int8]],
    ) -> list[Array]:
        """How much the relaxation of each unit loses, shape (nodes, units) a layer."""
        slopes = [a for a, _ in kept]
        signed = [b * s for (_, b), s in zip(kept, signs, strict=True)]
        coefficients, _ = self._backward(layers, slopes, signed)
        return [
            np.where(
                self._relu[k] & (signs[k][:, 0] == 0),
                np.abs(coefficients[k + 1][:, 0]) * layer.upper_offset + np.finfo(float).tiny,
                0.0,
            )
            for k, layer in enumerate(layers)
        ]


def _scaled(gradient: Array) -> Array:
    """The gradient with its largest entry of each node scaled to 1."""
    scale = np.abs(gradient).max(axis=-1, keepdims=True)
    return np.asarray(gradient / np.where(scale > 0.0, scale, 1.0))
