"""A crowd of points finds what few points show, and only inside the box."""

from __future__ import annotations

import numpy as np

from onnx_exact.attack.evolution import evolve_sign
from onnx_exact.deadline import Deadline
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.verdict import Status
from onnx_exact.network import Affine, Box, Chain


def peak(height: float) -> Chain:
    """A pyramid over the plane with its top, `height` above 0, at (0.3137, -0.7071)."""
    corners = Affine(
        [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], [-0.3137, 0.3137, 0.7071, -0.7071]
    )
    return Chain.of([corners, Affine([[-1.0] * 4], [height]), Affine([[1.0]], [0.0])])


def square() -> Box:
    return Box(np.full(2, -1.0), np.ones(2))


def test_a_peak_that_a_million_random_points_would_miss_is_found() -> None:
    knowledge = Knowledge(peak(1e-5), square())
    rng = np.random.default_rng(0)
    knowledge.show(knowledge.box.sample(rng, 10_000))
    assert not knowledge.seen_positive[1][0]
    assert evolve_sign(knowledge, 1, 0, True, rng, Deadline())
    assert knowledge.status(1)[0] == Status.UNSTABLE
    assert knowledge.box.contains(knowledge.witnesses)


def test_what_is_not_there_is_not_found() -> None:
    knowledge = Knowledge(peak(-1e-5), square())
    assert not evolve_sign(knowledge, 1, 0, True, np.random.default_rng(0), Deadline())
    assert not knowledge.seen_positive[1][0]


def test_a_deadline_that_has_passed_ends_the_search() -> None:
    knowledge = Knowledge(peak(1e-9), square())
    assert not evolve_sign(knowledge, 1, 0, True, np.random.default_rng(0), Deadline(0.0))
