"""One mixed-integer program for one open sign: is the signed pre-activation ever positive?

Maximise g (or -g) with the rest of the chain as constraints and everything known as bounds. Only
the sign matters: solutions below -delta are cut off by an objective limit, so that the program is
infeasible, mostly at its root, where the sign does not occur; and the first point that shows the
sign in a forward pass ends the solve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_exact.deadline import Deadline
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.milp.encode import Candidate, OutOfTimeError, encode_one, limit_time
from onnx_exact.milp.outcome import Outcome, solved
from onnx_exact.network.affine import Array


@dataclass(frozen=True, eq=False)
class SignAnswer:
    """What a program said about one candidate.

    Attributes:
        candidate: the sign asked for.
        outcome: what the solver says.
        points: shape (points, inputs), what it came across that seems to show the sign.
        seconds: how long it took.
    """

    candidate: Candidate
    outcome: Outcome
    points: Array
    seconds: float


def ask(knowledge: Knowledge, candidate: Candidate, seconds: float) -> SignAnswer:
    """Solves the program of one candidate within `seconds`; `knowledge` is only read."""
    from onnx_exact.milp.collect import attach

    own = knowledge.chain.up_to(candidate.layer, candidate.unit, candidate.positive)
    found: list[Array] = []

    def shows(points: Array) -> bool:
        points = knowledge.box.clip(points)
        values = own.forward(points)[:, 0]
        if not (values > 0.0).any():
            return False
        found.append(points[int(values.argmax())])
        return True

    deadline = Deadline(seconds)
    try:
        encoding = encode_one(knowledge, candidate, deadline)
    except OutOfTimeError:
        return SignAnswer(candidate, Outcome.OPEN, np.empty((0, knowledge.chain.n_in)), seconds)
    model = encoding.model
    model.setObjlimit(-candidate.delta * candidate.scale)
    limit_time(model, deadline.remaining)
    collector = attach(model, encoding.inputs, shows)
    outcome = solved(model, lambda: collector.shown or collector.error is not None)
    if collector.error is not None:
        raise collector.error
    points = np.array(found).reshape(-1, knowledge.chain.n_in)
    return SignAnswer(candidate, outcome, points, float(model.getSolvingTime()))
