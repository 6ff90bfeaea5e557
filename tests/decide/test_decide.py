"""The order of the means: whatever the method, the time and the seed, verdicts are sound."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_exact.bab.question import Found, Question
from onnx_exact.budgets import BUDGETS
from onnx_exact.decide import branching, programs
from onnx_exact.decide import propagate as layers
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.rounds import Rounds
from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Evidence, Status
from onnx_exact.methods import METHODS
from onnx_exact.network import Affine, Box, Chain, Layer
from onnx_exact.network.affine import Array
from onnx_exact.runtime.deadline import Deadline
from tests.clock import Ticking
from tests.nets import (
    box_of,
    by_intervals,
    chain_of,
    cube,
    random_chain,
    statuses,
    wrong_verdicts,
)
from tests.oracle.networks import random_case
from tests.oracle.regions import enumerate_regions

INF = np.inf
SOLVING = [method for method in METHODS if method != "bounds"]


@pytest.mark.parametrize("seed", range(200, 206))
def test_all_methods_agree_with_the_regions(seed: int) -> None:
    case = random_case("normal", seed)
    truth = enumerate_regions(case.chain, case.box)
    for method in METHODS:
        stability = analyze_chain(case.chain, case.box, Options(method=method))
        assert not wrong_verdicts(stability, truth), method
        if method in ("auto", "per-unit"):
            assert stability.count(Status.UNDECIDED) == 0, method


@pytest.mark.parametrize("method", METHODS)
def test_a_deadline_that_has_passed_leaves_everything_sound(method: str) -> None:
    undecided = 0
    for seed in range(5):
        chain, box = random_chain(seed, 3, 5, 5, 4, shift=1.0), cube(3, -1.0, 1.0)
        stability = analyze_chain(chain, box, Options(method=method, deadline=Deadline(0.0)))
        truth = enumerate_regions(chain, box)
        assert not wrong_verdicts(stability, truth)
        undecided += stability.count(Status.UNDECIDED)
        for verdicts, ranges in zip(stability.layers, truth.ranges, strict=True):
            assert verdicts is not None
            for low, high, (least, most) in zip(
                verdicts.lower, verdicts.upper, ranges, strict=True
            ):
                assert low <= least <= most <= high
    assert undecided > 0


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_verdicts_and_witnesses(method: str) -> None:
    chain, box = random_chain(11, 3, 6, 6, 4, shift=1.0), cube(3, -1.0, 1.0)
    first, second = (analyze_chain(chain, box, Options(method=method, seed=5)) for _ in range(2))
    assert statuses(first) == statuses(second)
    np.testing.assert_array_equal(first.witnesses, second.witnesses)
    for a, b in zip(first.layers, second.layers, strict=True):
        np.testing.assert_array_equal(a.lower, b.lower)
        np.testing.assert_array_equal(a.evidence, b.evidence)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("low", "high"), [([-INF, -INF], [INF, INF]), ([0.0, 0.0], [INF, 1.0]), ([0, -INF], [1, -1])]
)
def test_unbounded_boxes_are_decided_as_far_as_signs_go(
    method: str, low: list[float], high: list[float]
) -> None:
    chain = chain_of(
        ([[1, 0], [1, 1], [-1, 0], [0, 0], [0, 0]], [0.5, 0.5, 0.0, 1.0, -1.0]),
        ([[1, 0, 0, 1, 1], [-1, 0, -1, 0, 0]], [0.25, -0.25]),
        relu_at_end=True,
    )
    box = box_of(low, high)
    stability = analyze_chain(chain, box, Options(method=method, deadline=Deadline(600.0)))
    first, second = statuses(stability)
    assert first[3:] == [Status.ACTIVE, Status.INACTIVE]
    assert second == [Status.ACTIVE, Status.INACTIVE]
    assert first[2] is (Status.INACTIVE if low[0] == 0 else Status.UNSTABLE) or method == "per-unit"
    assert box.contains(stability.witnesses)
    assert np.isfinite(stability.witnesses).all()


def test_an_unbounded_box_is_as_right_as_ever_larger_boxes() -> None:
    """What is stable over all inputs is stable over each box."""
    for seed in range(10):
        chain = random_chain(seed, 2, 4, 3, 2, shift=0.5)
        stability = analyze_chain(chain, box_of([0.0, -INF], [INF, INF]))
        for radius in (1.0, 100.0):
            box = box_of([0.0, -radius], [radius, radius])
            truth = enumerate_regions(chain, box)
            for verdicts, ranges in zip(stability.layers, truth.ranges, strict=True):
                for i, (least, most) in enumerate(ranges):
                    assert verdicts.status[i] != Status.INACTIVE or most <= 0
                    assert verdicts.status[i] != Status.ACTIVE or least >= 0


def test_extremes_of_the_first_layer_show_its_signs_without_rationals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each unit is positive close to one corner of 2^20 only, and nearly always negative."""
    rng = np.random.default_rng(0)
    weight = rng.choice([-1.0, 1.0], (150, 20))
    first = Affine(weight, 0.5 - np.maximum(weight, 0.0).sum(axis=1))
    chain = Chain.of([first, Affine(np.ones((1, 150)), np.zeros(1))])
    monkeypatch.setattr(layers, "exact_extremes", None)
    stability = analyze_chain(chain, cube(20))
    assert statuses(stability)[0] == [Status.UNSTABLE] * 150


def test_what_few_points_and_bounds_decide_takes_few_points(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chain, box, run = random_chain(2, 50, 200, 100), cube(50, -1.0, 1.0), []
    original = Chain.preactivations

    def counted(self: Chain, x: Array) -> list[Array]:
        run.append(len(x))
        return original(self, x)

    monkeypatch.setattr(Chain, "preactivations", counted)
    assert analyze_chain(chain, box).count(Status.UNDECIDED) == 0
    assert sum(run) < 100


def test_samples_count_once_they_are_clipped_into_the_box() -> None:
    narrow = chain_of(([[1.0]], [-1.0 + 1e-9]), ([[1.0]], [0.0]))
    samples = np.array([[7.0], [-3.0]])
    options = Options(method="per-unit", deadline=Deadline(0.0))
    without = analyze_chain(narrow, cube(1), options)
    assert statuses(without)[0] == [Status.UNDECIDED]
    stability = analyze_chain(narrow, cube(1), options, samples=samples)
    assert statuses(stability)[0] == [Status.UNSTABLE]
    assert sorted(stability.witnesses[:, 0]) == [0.0, 1.0]


def test_layers_without_relu_have_bounds_and_no_verdicts() -> None:
    one = Affine(np.array([[1.0, 1.0]]), np.zeros(1))
    two = Affine(np.array([[1.0], [-1.0]]), np.array([0.0, 0.5]))
    chain = Chain((Layer(one, False), Layer(two, True), Layer(one, False)))
    stability = analyze_chain(chain, cube(2))
    assert stability.layers[0] is None
    assert stability.layers[2] is None
    assert statuses(stability)[1] == [Status.ACTIVE, Status.UNSTABLE]
    assert stability.output_lower[0] <= 0.5
    assert stability.output_upper[0] >= 2.0


def test_evidence_says_which_means_decided() -> None:
    stability = analyze_chain(
        chain_of(
            ([[1.0], [-1.0], [1.0]], [0.0, 0.0, 5.0]),
            ([[1, 1, 0]] * 2, [-3, -0.5]),
            relu_at_end=True,
        ),
        cube(1, -1.0, 1.0),
    )
    first, second = (layer.evidence.tolist() for layer in stability.layers)
    assert first == [Evidence.WITNESS, Evidence.WITNESS, Evidence.INTERVAL]
    assert second == [Evidence.INTERVAL, Evidence.WITNESS]


def test_bounds_never_start_a_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("a solver was started")

    monkeypatch.setattr(Rounds, "_solve_programs", fail)
    monkeypatch.setattr(Rounds, "_solve_relaxation", fail)
    for seed in range(5):
        chain = random_chain(seed, 3, 5, 5, 4, shift=1.0)
        analyze_chain(chain, cube(3, -1.0, 1.0), Options(method="bounds"))


@pytest.mark.parametrize("method", SOLVING)
def test_many_inputs_and_a_short_time_end_in_time(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time for a hundred looks at the clock, and few are taken once it is up."""
    clock = Ticking(0.01)
    monkeypatch.setattr("onnx_exact.runtime.deadline.monotonic", clock)
    chain, box = random_chain(0, 40, 60, 60, 20, shift=0.5), cube(40, -0.03, 0.03)
    end = clock.now + 1.0
    stability = analyze_chain(chain, box, Options(method=method, deadline=Deadline(1.0)))
    assert stability.count(Status.UNDECIDED) > 0
    assert clock.now < end + 0.5
    random = box.sample(np.random.default_rng(99), 2000)
    for verdicts, g in zip(stability.layers, chain.preactivations(random), strict=True):
        assert (g >= verdicts.lower - 1e-9).all()
        assert not (g[:, verdicts.where(Status.INACTIVE)] > 1e-9).any()
        assert not (g[:, verdicts.where(Status.ACTIVE)] < -1e-9).any()


def test_a_box_that_is_a_point_decides_by_the_signs_there() -> None:
    chain = random_chain(4, 3, 6, 6, 4)
    point = np.array([0.25, -0.5, 1.0])
    stability = analyze_chain(chain, Box(point, point))
    for verdicts, g in zip(stability.layers, chain.preactivations(point[None]), strict=True):
        expected = np.where(g[0] > 0, Status.ACTIVE, Status.INACTIVE)
        np.testing.assert_array_equal(verdicts.status, expected)


def test_signs_are_split_first_where_the_least_share_of_the_range_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not where the bound itself is least; a unit whose bounds coincide is no trouble."""
    chain = chain_of(([[1.0], [-1.0]], [0.0, 0.0]), (np.ones((3, 2)).tolist(), [0.0] * 3))
    knowledge = Knowledge(chain, cube(1, -1.0, 1.0))
    decider = Rounds(knowledge, Options())
    decider._layers.refresh(1)
    knowledge.lower[1], knowledge.upper[1] = np.array([-9.0, -0.5, 1.0]), np.array([1.0, 0.5, 1.0])
    asked: list[tuple[int, bool]] = []

    def split(question: Question, *_: object) -> tuple[Found, int]:
        asked.append((int(question.units[0]), bool(question.positive[0])))
        return Found(np.zeros((0, 1))), 1

    monkeypatch.setattr(branching, "split_sign", split)
    decider._split(1, decider._by_bound(1), 0)
    assert asked[0] == (0, True)
    assert asked[-1] == (0, False)
    assert {(1, True), (1, False)} <= set(asked[1:-1])


def test_the_last_rounds_have_more_work_for_each_program_and_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing settles the one query that is open, whoever is asked."""
    asked: list[tuple[float, float]] = []

    def settle(knowledge: Knowledge, layer: int, limit: Deadline, work: float, jobs: int) -> None:
        asked.append((work, limit.remaining))

    monkeypatch.setattr(programs, "settle_layer", settle)
    for name in ("_search", "_branch", "_split", "_optimize_slopes"):
        monkeypatch.setattr(Rounds, name, lambda *_: None)
    # |x + y| + |x - y| < 5/2, which no linear bound shows.
    halves = ([[1, 1], [1, -1], [-1, 1], [-1, -1]], [0.0] * 4)
    chain = chain_of(halves, ([[1, 1, 1, 1]], [-2.5]), relu_at_end=True)
    assert analyze_chain(chain, cube(2, -1.0, 1.0)).count(Status.UNDECIDED) == 1
    assert asked == [(work, INF) for work in BUDGETS.program_work]


@pytest.mark.parametrize("seed", range(3))
def test_bounds_that_came_too_late_are_by_intervals_alone(seed: int) -> None:
    chain, box = random_chain(seed, 3, 5, 5, 4, shift=1.0), cube(3, -1.0, 1.0)
    closed = Deadline(0.0)
    stability = analyze_chain(chain, box, Options(deadline=closed, latest=closed))
    assert not wrong_verdicts(stability, enumerate_regions(chain, box))
    expected = by_intervals(chain, box)
    for index, verdicts in enumerate(stability.layers):
        assert verdicts is not None
        np.testing.assert_array_equal(verdicts.lower, expected.lower[index])
        np.testing.assert_array_equal(verdicts.upper, expected.upper[index])
