"""Branching on the input box against the exact regions."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_exact.deadline import Deadline
from onnx_exact.stability import branch
from onnx_exact.stability.branch import branch_layer
from onnx_exact.stability.knowledge import Knowledge
from onnx_exact.stability.layers import Layers
from onnx_exact.stability.verdict import Status
from tests.oracle.regions import enumerate_regions
from tests.stability.nets import (
    bounded,
    box_of,
    chain_of,
    cube,
    random_chain,
    statuses,
    wrong_verdicts,
)

# |x - 1/3| - 1/4 has both signs; |x - 1/3| + 1/64 is positive, which intervals cannot see.
FOLDED = chain_of(
    ([[1.0], [-1.0]], [-1 / 3, 1 / 3]), ([[1.0, 1.0], [1.0, 1.0]], [-0.25, 2**-6]), relu_at_end=True
)


def branched(knowledge: Knowledge, seconds: float | None = None) -> list[bool]:
    layers = Layers(knowledge)
    done = []
    for index in knowledge.relu_layers:
        layers.refresh(index)
        if any(signs.any() for signs in knowledge.open_signs(index)):
            done.append(branch_layer(knowledge, index, Deadline(seconds)))
    return done


@pytest.mark.parametrize(
    ("widths", "shift"),
    [
        ((1, 6, 6, 4), 0.0),
        ((1, 6, 6, 4), 1.0),
        ((2, 5, 5, 4), 0.0),
        ((2, 5, 5, 4), 1.0),
        ((3, 5, 4, 4), 0.5),
        ((4, 4, 3), 1.0),
        ((5, 3, 3, 3), 1.0),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_every_unit_is_settled_as_the_regions_say(
    widths: tuple[int, ...], shift: float, seed: int
) -> None:
    chain, box = random_chain(seed, *widths, shift=shift), cube(widths[0], -1.0, 1.0)
    knowledge = Knowledge(chain, box)
    assert all(branched(knowledge))
    truth = enumerate_regions(chain, box)
    assert statuses(knowledge.freeze()) == [list(layer) for layer in truth.statuses]


def test_a_sign_that_only_parts_of_the_box_exclude_is_settled() -> None:
    chain = chain_of(
        ([[1.0], [-1.0]], [-1 / 3, 1 / 3]), ([[-1.0, -1.0]], [-(2**-6)]), relu_at_end=True
    )
    wave = chain_of(
        ([[1.0], [1.0], [1.0]], [0.0, -0.5, -1.0]),
        ([[2.0, -4.0, 2.0]], [-1.0625]),
        relu_at_end=True,
    )
    for network, box in ((chain, cube(1)), (wave, cube(1, -1.0, 2.0))):
        knowledge, _ = bounded(network, box)
        branched(knowledge)
        assert statuses(knowledge.freeze())[1] == [Status.INACTIVE]


def test_a_passed_deadline_leaves_the_signs_open() -> None:
    knowledge, _ = bounded(FOLDED, cube(1))
    before = [s.copy() for s in knowledge.open_signs(1)]
    assert any(s.any() for s in before)
    lower = knowledge.lower[1].copy()
    assert branch_layer(knowledge, 1, Deadline(0.0)) is False
    for old, new in zip(before, knowledge.open_signs(1), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(knowledge.lower[1], lower)


@pytest.mark.parametrize("most", [1, 2, 5, 20])
def test_running_out_of_parts_is_sound(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(branch, "MOST_PARTS", most)
    monkeypatch.setattr(branch, "BATCH", 2)
    unsettled = 0
    for seed in range(6):
        chain, box = random_chain(seed, 2, 5, 5, 6, shift=1.0), cube(2, -1.0, 1.0)
        knowledge = Knowledge(chain, box)
        unsettled += not all(branched(knowledge))
        assert not wrong_verdicts(knowledge.freeze(), enumerate_regions(chain, box))
    assert unsettled > 0 or most == 20


def test_first_layer_signs_within_rounding_are_shown_in_rationals() -> None:
    """0.1 + 0.2 - 0.3 > 0 by less than a forward pass can tell."""
    chain = chain_of(([[1.0, 1.0, -1.0]] * 4, [0.0] * 4), ([[1.0] * 4], [0.0]))
    knowledge = Knowledge(chain, box_of([0.0, 0.0, 0.3], [0.1, 0.2, 0.4]))
    branched(knowledge, seconds=0.5)
    assert statuses(knowledge.freeze())[0] == [Status.UNSTABLE] * 4


def test_corners_of_first_layer_units_are_those_of_the_unit_itself() -> None:
    """Each of two units is positive in a corner of its own, to which its own row points."""
    chain = chain_of(([[1.0, -1.0], [-1.0, 1.0]], [-0.99, -0.99]), ([[1.0, 1.0]], [0.0]))
    knowledge, _ = bounded(chain, cube(2))
    assert branch_layer(knowledge, 0, Deadline()) is True
    assert knowledge.seen_positive[0].all()


def test_a_box_of_the_largest_numbers_is_split_without_overflow() -> None:
    largest = np.finfo(np.float64).max
    knowledge = Knowledge(FOLDED, box_of([-largest], [largest]))
    branched(knowledge, seconds=0.5)
    for status, exact in zip(statuses(knowledge.freeze()), [[Status.UNSTABLE] * 2], strict=False):
        assert all(s in (Status.UNDECIDED, e) for s, e in zip(status, exact, strict=True))


def test_a_box_that_is_a_point_is_not_split_for_ever() -> None:
    chain = chain_of(([[1.0, 1.0, -1.0]], [0.0]), ([[1.0]], [0.0]))
    knowledge = Knowledge(chain, box_of([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]))
    branched(knowledge, seconds=0.5)
    assert statuses(knowledge.freeze())[0] in ([Status.UNDECIDED], [Status.ACTIVE])
