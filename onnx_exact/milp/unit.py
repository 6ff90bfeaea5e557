"""One mixed-integer program for one open query: is the signed pre-activation ever positive?

Maximise g (or -g) with the rest of the chain as constraints and everything known as bounds. Only
the sign matters: solutions below the margin are cut off by an objective limit, so that the program
is infeasible, mostly at its root, where the sign does not occur; and the first point that shows the
sign in a forward pass ends the solve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_exact.bounds.chain_bounds import ChainBounds
from onnx_exact.milp.encode import OutOfTimeError, Target, encode_one, limit_time
from onnx_exact.milp.outcome import Outcome, solved
from onnx_exact.network.affine import Array
from onnx_exact.runtime.deadline import Deadline


@dataclass(frozen=True, eq=False)
class Answer:
    """What a program said about one query.

    Attributes:
        target: what was asked for.
        outcome: what the solver says.
        points: shape (points, inputs), what it came across that seems to show the sign.
    """

    target: Target
    outcome: Outcome
    points: Array


def ask(bounds: ChainBounds, target: Target, most_work: float, deadline: Deadline) -> Answer:
    """Solves the program of one query.

    Args:
        bounds: what is known, finite up to the query's layer.
        target: what is asked for.
        most_work: as `onnx_exact.milp.collect.Collector` counts it; OPEN where that is not enough.
        deadline: OPEN when it passes.
    """
    from onnx_exact.milp.collect import attach

    query = target.query
    own = bounds.chain.up_to(query.layer, query.unit, query.positive)
    found: list[Array] = []

    def shows(points: Array) -> bool:
        points = bounds.box.clip(points)
        values = own.forward(points)[:, 0]
        if not (values > 0.0).any():
            return False
        found.append(points[int(values.argmax())])
        return True

    try:
        encoding = encode_one(bounds, target, deadline)
    except OutOfTimeError:
        return Answer(target, Outcome.OPEN, np.empty((0, bounds.chain.n_in)))
    model = encoding.model
    model.setObjlimit(-target.margin * target.scale)
    limit_time(model, deadline)
    collector = attach(model, encoding.inputs, shows, most_work)
    outcome = solved(model, lambda: collector.outcome)
    if collector.error is not None:
        raise collector.error
    return Answer(target, outcome, np.array(found).reshape(-1, bounds.chain.n_in))
