"""A crowd of points finds what few points show, and only inside the box."""

from __future__ import annotations

import numpy as np

from onnx_exact.attack.evolution import evolve
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.searches import evolve_query
from onnx_exact.decide.verdict import Status
from onnx_exact.network import Box, Chain
from onnx_exact.network.query import Query
from onnx_exact.runtime.deadline import Deadline
from tests.nets import chain_of

TOP = Query(1, 0, positive=True)


def peak(height: float) -> Chain:
    """A pyramid over the plane with its top, `height` above 0, at (0.3137, -0.7071)."""
    corners = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], [-0.3137, 0.3137, 0.7071, -0.7071]
    return chain_of(corners, ([[-1.0] * 4], [height]), ([[1.0]], [0.0]))


def square() -> Box:
    return Box(np.full(2, -1.0), np.ones(2))


def test_a_peak_that_a_million_random_points_would_miss_is_found() -> None:
    knowledge = Knowledge(peak(1e-5), square())
    rng = np.random.default_rng(0)
    knowledge.show(knowledge.box.sample(rng, 10_000))
    assert not knowledge.seen_positive[1][0]
    evolve_query(knowledge, TOP, rng, Deadline())
    assert not knowledge.is_open(TOP)
    assert knowledge.status(1)[0] == Status.UNSTABLE
    assert knowledge.box.contains(knowledge.witnesses)


def test_what_is_not_there_is_not_found() -> None:
    knowledge = Knowledge(peak(-1e-5), square())
    target = knowledge.chain.up_to(1, 0, positive=True)
    assert not any(map(len, evolve(target, square(), np.random.default_rng(0))))
    evolve_query(knowledge, TOP, np.random.default_rng(0), Deadline())
    assert not knowledge.seen_positive[1][0]


def test_a_deadline_that_has_passed_ends_the_search() -> None:
    knowledge = Knowledge(peak(1e-9), square())
    evolve_query(knowledge, TOP, np.random.default_rng(0), Deadline(0.0))
    assert knowledge.is_open(TOP)
