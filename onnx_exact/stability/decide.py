"""Which means decide the units of a chain, in which order, and within what time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from onnx_exact.deadline import Deadline
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.stability import crown
from onnx_exact.stability.attack import extreme_corners, first_points
from onnx_exact.stability.interval import exact_extremes, interval_bounds
from onnx_exact.stability.knowledge import Knowledge
from onnx_exact.stability.verdict import Evidence, Stability, Status


def _silent(stage: str, detail: str) -> None:
    """Reports nothing."""


@dataclass(frozen=True)
class Options:
    """How a chain is decided.

    Attributes:
        method: of `onnx_exact.methods.METHODS`.
        deadline: what is open when it passes is UNDECIDED.
        seed: of every random choice.
        progress: called with a stage and a detail.
    """

    method: str = "auto"
    deadline: Deadline = field(default_factory=Deadline)
    seed: int = 0
    progress: Callable[[str, str], None] = _silent


def analyze_chain(
    chain: Chain, box: Box, options: Options | None = None, samples: Array | None = None
) -> Stability:
    """Decides the ReLU units of a chain over a box.

    Args:
        chain: the network.
        box: shape (inputs,), may be infinite.
        options: method, time, seed.
        samples: points to try as witnesses, shape (points, inputs); clipped into the box.

    Returns:
        Verdicts and sound bounds. What could not be decided in time is UNDECIDED.
    """
    options = options or Options()
    knowledge = Knowledge(chain, box)
    options.progress("witnesses", "first points")
    knowledge.show(first_points(chain.layers[0].affine, box, options.seed))
    if samples is not None:
        knowledge.show(samples)
    bound_layers(knowledge, options)
    if options.method != "bounds" and box.finite and knowledge.undecided:
        from onnx_exact.stability.milp.solve import settle_with_one_milp

        settle_with_one_milp(knowledge, options.deadline, options.progress)
    return knowledge.freeze()


def bound_layers(knowledge: Knowledge, options: Options) -> None:
    """Bounds every layer from the first to the last, each with the ones before it decided."""
    chain, box = knowledge.chain, knowledge.box
    relaxations: list[crown.Relaxation] = []
    low, high = box.lower, box.upper
    for index, layer in enumerate(chain.layers):
        options.progress("bounds", f"layer {index + 1} of {len(chain.layers)}")
        knowledge.tighten(index, Evidence.INTERVAL, *interval_bounds(layer.affine, low, high))
        if index == 0:
            _settle_ties(knowledge)
        elif box.finite and not options.deadline.passed:
            _bound_backward(knowledge, index, relaxations)
        low, high = knowledge.lower[index], knowledge.upper[index]
        if box.finite:
            reach = np.maximum(np.abs(box.lower), np.abs(box.upper))
            before = relaxations[-1].magnitude if relaxations else reach
            relaxations.append(crown.relax(layer.affine, layer.relu, low, high, before))
        if layer.relu:
            low, high = np.maximum(low, 0.0), np.maximum(high, 0.0)


def _settle_ties(knowledge: Knowledge) -> None:
    """Decides in rationals the first-layer units whose sign the slack for rounding leaves open."""
    affine, box = knowledge.chain.layers[0].affine, knowledge.box
    if not (box.finite and knowledge.chain.layers[0].relu):
        return
    lower, upper = knowledge.lower[0].copy(), knowledge.upper[0].copy()
    for unit in np.flatnonzero(knowledge.status(0) == Status.UNDECIDED):
        least, most = exact_extremes(affine, int(unit), box.lower, box.upper)
        lower[unit] = max(lower[unit], 0.0) if least >= 0 else lower[unit]
        upper[unit] = min(upper[unit], 0.0) if most <= 0 else upper[unit]
    knowledge.tighten(0, Evidence.INTERVAL, lower, upper)


def _bound_backward(knowledge: Knowledge, index: int, before: list[crown.Relaxation]) -> None:
    """Linear bounds on a layer's open units, and the corners these bounds suggest."""
    layer, box = knowledge.chain.layers[index], knowledge.box
    undecided = knowledge.status(index) == Status.UNDECIDED
    wanted = undecided if layer.relu else np.ones_like(undecided)
    unstable = knowledge.status(index) == Status.UNSTABLE
    for sign, chosen in ((1.0, wanted | unstable), (-1.0, wanted | unstable)):
        units = np.flatnonzero(chosen)
        if not units.size:
            continue
        rows = Affine(sign * layer.affine.weight[units], sign * layer.affine.bias[units])
        bounds, coefficients = crown.upper_bounds(rows, before, box)
        full = np.full(layer.width, np.inf)
        full[units] = bounds
        upper, lower = (full, None) if sign > 0 else (None, -full)
        knowledge.tighten(index, Evidence.LINEAR, lower, upper)
        knowledge.show(extreme_corners(coefficients, box)[0])
