"""The published algorithms: as the papers have them, and never wrong."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_exact.bounds.interval import interval_bounds
from onnx_exact.decide import published
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.propagate import bound_by_intervals
from onnx_exact.decide.published import decide_at_once, decide_one_by_one
from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Evidence, Status
from onnx_exact.runtime.deadline import Deadline
from tests.nets import cube, random_chain, statuses, wrong_verdicts
from tests.oracle.networks import SOURCES, random_case
from tests.oracle.regions import enumerate_regions


def silent(stage: str, detail: str) -> None:
    pass


@pytest.mark.parametrize("family", SOURCES)
@pytest.mark.parametrize("seed", range(300, 310))
def test_both_agree_with_auto_and_with_the_regions(family: str, seed: int) -> None:
    case = random_case(family, seed)
    truth = enumerate_regions(case.chain, case.box)
    found = {
        method: analyze_chain(case.chain, case.box, Options(method=method))
        for method in ("auto", "isa", "per-unit")
    }
    for method, stability in found.items():
        assert not wrong_verdicts(stability, truth), method
    for method in ("isa", "per-unit"):
        for ours, theirs in zip(found["auto"].layers, found[method].layers, strict=True):
            if ours is None or theirs is None:
                continue
            both = (ours.status != Status.UNDECIDED) & (theirs.status != Status.UNDECIDED)
            # A unit that is 0 throughout is both stable ones: each may have found either.
            zero = (ours.lower >= 0.0) & (ours.upper <= 0.0)
            zero |= (theirs.lower >= 0.0) & (theirs.upper <= 0.0)
            same = ours.status == theirs.status
            np.testing.assert_array_equal(both & ~same & ~zero, False)


def test_interval_bounds_go_from_layer_to_layer() -> None:
    chain, box = random_chain(0, 3, 4, 2), cube(3)
    knowledge = Knowledge(chain, box)
    for index in (0, 1):
        bound_by_intervals(knowledge, index)
    first = interval_bounds(chain.layers[0].affine, box.lower, box.upper)
    clipped = [np.maximum(bound, 0.0) for bound in first]
    second = interval_bounds(chain.layers[1].affine, clipped[0], clipped[1])
    for index, bounds in enumerate((first, second)):
        np.testing.assert_array_equal(knowledge.lower[index], bounds[0])
        np.testing.assert_array_equal(knowledge.upper[index], bounds[1])


def test_one_by_one_goes_layer_by_layer_with_earlier_verdicts_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chain = random_chain(1, 2, 4, 4, 3, shift=0.5)
    knowledge = Knowledge(chain, cube(2, -1.0, 1.0), believing=True)
    original, asked = published.settle_layer, []

    def settle(knowledge: Knowledge, layer: int, deadline: Deadline, jobs: int) -> None:
        before = [(knowledge.status(i) != Status.UNDECIDED).all() for i in range(layer)]
        assert all(before)
        assert not np.isfinite(knowledge.lower[-1]).any() or layer == 2
        asked.append(layer)
        original(knowledge, layer, deadline, jobs=jobs)

    monkeypatch.setattr(published, "settle_layer", settle)
    decide_one_by_one(knowledge, Deadline(), 1, silent)
    assert asked == [0, 1, 2]


@pytest.mark.parametrize("decide", [decide_at_once, decide_one_by_one])
def test_a_unit_is_never_stable_because_the_time_was_up(decide: object) -> None:
    knowledge = Knowledge(random_chain(0, 8, 20, 20, 10), cube(8, -1.0, 1.0))
    if decide is decide_at_once:
        decide_at_once(knowledge, Deadline(0.0), silent)
    else:
        decide_one_by_one(knowledge, Deadline(0.0), 1, silent)
    frozen = knowledge.freeze()
    assert frozen.count(Status.UNDECIDED) > 0
    for layer in frozen.layers:
        assert not (layer.evidence == Evidence.SOLVER).any()


def test_the_one_program_looks_at_samples_only_while_there_are_candidates() -> None:
    knowledge = Knowledge(random_chain(1, 2, 4, 3), cube(2, -1.0, 1.0))
    many, looked = np.random.default_rng(0).uniform(-1.0, 1.0, (1000, 2)), []
    show = knowledge.show
    knowledge.show = lambda points: looked.append(len(points)) or show(points)  # type: ignore
    decide_at_once(knowledge, Deadline(0.0), silent, [many, many[:7], many[:5]])
    assert knowledge.open_units == 0
    assert looked == [1000]


def test_the_one_program_looks_at_samples_only_while_there_is_time() -> None:
    knowledge = Knowledge(random_chain(1, 8, 20, 20), cube(8, -1.0, 1.0))
    few, looked = np.zeros((3, 8)), []
    show = knowledge.show
    knowledge.show = lambda points: looked.append(len(points)) or show(points)  # type: ignore
    decide_at_once(knowledge, Deadline(0.0), silent, [few, few])
    assert looked == [3]


def test_samples_spare_the_one_program_and_are_not_asked_for_by_per_unit() -> None:
    chain, box = random_chain(1, 2, 4, 3), cube(2, -1.0, 1.0)
    closed = Deadline(0.0)
    isa = analyze_chain(chain, box, Options(method="isa", deadline=closed))
    per_unit = analyze_chain(chain, box, Options(method="per-unit", deadline=closed))
    assert len(isa.witnesses) > 0
    assert len(per_unit.witnesses) == 0
    assert statuses(isa) != statuses(per_unit)
