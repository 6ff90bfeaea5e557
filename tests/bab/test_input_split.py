"""Branching on the input box against the exact regions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnx_exact.bab.input_split import search as branch
from onnx_exact.bab.input_split.search import BoxSearch
from onnx_exact.bab.trees import LEAF, Tree
from onnx_exact.bounds.alpha_crown import optimize
from onnx_exact.decide.branching import BoxBranching
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.propagate import Layers
from onnx_exact.decide.verdict import Evidence, Status
from onnx_exact.network import Affine, Box, Chain
from onnx_exact.network.affine import Array
from onnx_exact.runtime.deadline import Deadline
from tests.nets import (
    MOST,
    bounded,
    box_of,
    branched,
    chain_of,
    cube,
    question_on,
    random_chain,
    relaxations_of,
    statuses,
    wrong_verdicts,
)
from tests.oracle.regions import enumerate_regions

# |x - 1/3| - 1/4 has both signs; |x - 1/3| + 1/64 is positive, which intervals cannot see.
FOLDED = chain_of(
    ([[1.0], [-1.0]], [-1 / 3, 1 / 3]), ([[1.0, 1.0], [1.0, 1.0]], [-0.25, 2**-6]), relu_at_end=True
)


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
    below = relaxations_of(knowledge.chain, knowledge.box)[:1]
    assert BoxBranching(knowledge, 1, below).run(below, MOST, Deadline(0.0)) is False
    for old, new in zip(before, knowledge.open_signs(1), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(knowledge.lower[1], lower)


@pytest.mark.parametrize("most", [1, 2, 3, 20])
def test_running_out_of_parts_is_sound(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(branch, "BATCH", 2)
    unsettled = 0
    for seed in range(6):
        chain, box = random_chain(seed, 2, 5, 5, 6, shift=1.0), cube(2, -1.0, 1.0)
        knowledge = Knowledge(chain, box)
        unsettled += not all(branched(knowledge, most=most))
        assert not wrong_verdicts(knowledge.freeze(), enumerate_regions(chain, box))
    assert unsettled > 0 or most == 20


def test_first_layer_signs_within_rounding_are_shown_in_rationals() -> None:
    """0.1 + 0.2 - 0.3 > 0 by less than a forward pass can tell."""
    chain = chain_of(([[1.0, 1.0, -1.0]] * 4, [0.0] * 4), ([[1.0] * 4], [0.0]))
    knowledge = Knowledge(chain, box_of([0.0, 0.0, 0.3], [0.1, 0.2, 0.4]))
    branched(knowledge)
    assert statuses(knowledge.freeze())[0] == [Status.UNSTABLE] * 4


def test_corners_of_first_layer_units_are_those_of_the_unit_itself() -> None:
    """Each of two units is positive in a corner of its own, to which its own row points."""
    chain = chain_of(([[1.0, -1.0], [-1.0, 1.0]], [-0.99, -0.99]), ([[1.0, 1.0]], [0.0]))
    knowledge, _ = bounded(chain, cube(2))
    assert BoxBranching(knowledge, 0, []).run([], MOST, Deadline()) is True
    assert knowledge.seen_positive[0].all()


def test_a_box_of_the_largest_numbers_is_split_without_overflow() -> None:
    largest = np.finfo(np.float64).max
    knowledge = Knowledge(FOLDED, box_of([-largest], [largest]))
    branched(knowledge, most=200)
    for status, exact in zip(statuses(knowledge.freeze()), [[Status.UNSTABLE] * 2], strict=False):
        assert all(s in (Status.UNDECIDED, e) for s, e in zip(status, exact, strict=True))


def test_a_box_that_is_a_point_is_not_split_for_ever() -> None:
    chain = chain_of(([[1.0, 1.0, -1.0]], [0.0]), ([[1.0]], [0.0]))
    knowledge = Knowledge(chain, box_of([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]))
    branched(knowledge)
    assert statuses(knowledge.freeze())[0] in ([Status.UNDECIDED], [Status.ACTIVE])


def leaves(tree: Tree, box: Box) -> list[list[tuple[Array, Array]]]:
    """For every leaf of a tree the boxes from the root to it."""
    found, waiting = [], [[(box.lower, box.upper)]]
    for side in tree.splits:
        path = waiting.pop()
        if side == LEAF:
            found.append(path)
            continue
        low, high = path[-1]
        middle = 0.5 * low[side] + 0.5 * high[side]
        left, right = high.copy(), low.copy()
        left[side] = right[side] = middle
        waiting += [[*path, (right, high)], [*path, (low, left)]]
    assert not waiting
    return found


def bounded_anew(knowledge: Knowledge, tree: Tree, low: Array, high: Array) -> Array:
    """Bounds on a tree's signs over one part, with nothing to go by but the bounds of the box."""
    part = Knowledge(knowledge.chain, Box(low, high))
    layers = Layers(part)
    for index in range(tree.layer):
        part.tighten(index, Evidence.LINEAR, knowledge.lower[index], knowledge.upper[index])
        layers.bound(index)
        layers.relax(index)
    affine = knowledge.chain.layers[tree.layer].affine
    sign = np.where(tree.positive, 1.0, -1.0)
    rows = Affine(affine.weight[tree.units] * sign[:, None], affine.bias[tree.units] * sign)
    below = layers.below(tree.layer)
    return optimize(rows, below, part.box, 40).bounds


def proves(knowledge: Knowledge, tree: Tree) -> bool:
    """Whether on the way to every leaf each sign of a tree is excluded."""

    def excluded(path: list[tuple[Array, Array]]) -> bool:
        left = np.ones(len(tree.units), dtype=bool)
        # What the leaf itself excludes is not bounded above it once more.
        for low, high in reversed(path):
            left &= bounded_anew(knowledge, tree, low, high) > 0.0
            if not left.any():
                return True
        return False

    return all(excluded(path) for path in leaves(tree, knowledge.box))


@pytest.mark.parametrize("seed", range(6))
def test_recorded_trees_prove_their_signs_from_nothing_but_their_splits(seed: int) -> None:
    chain, box = random_chain(seed, 3, 6, 6, 6, shift=1.0), cube(3, -1.0, 1.0)
    knowledge = Knowledge(chain, box)
    branched(knowledge)
    truth = enumerate_regions(chain, box)
    for tree in knowledge.trees:
        assert proves(knowledge, tree)
        statuses_there = truth.statuses[tree.layer]
        for unit, positive in zip(tree.units, tree.positive, strict=True):
            assert statuses_there[unit] == (Status.INACTIVE if positive else Status.ACTIVE)


def test_every_sign_that_splitting_settles_has_a_tree() -> None:
    count = 0
    for seed in range(8):
        chain, box = random_chain(seed, 3, 6, 6, 6, shift=1.0), cube(3, -1.0, 1.0)
        knowledge = Knowledge(chain, box)
        layers = Layers(knowledge)
        for index in knowledge.relu_layers:
            layers.refresh(index)
            before = knowledge.open_signs(index)
            below = layers.below(index)
            BoxBranching(knowledge, index, below).run(below, MOST, Deadline())
            seen = knowledge.seen_positive[index], knowledge.seen_negative[index]
            trees = [tree for tree in knowledge.trees if tree.layer == index]
            for was_open, shown, positive in zip(before, seen, (True, False), strict=True):
                proved = np.flatnonzero(was_open & ~shown)
                named = [t.units[t.positive == positive] for t in trees]
                assert sorted(np.concatenate([*named, []])) == proved.tolist()
                count += proved.size
    assert count > 0


def test_a_tree_without_its_splits_proves_nothing() -> None:
    """So that the replay above can fail."""
    wave = chain_of(
        ([[1.0], [1.0], [1.0]], [0.0, -0.5, -1.0]),
        ([[2.0, -4.0, 2.0]], [-1.0625]),
        relu_at_end=True,
    )
    knowledge, _ = bounded(wave, cube(1, -1.0, 2.0))
    branched(knowledge)
    (tree,) = knowledge.trees
    assert tree.splits.size > 1
    assert proves(knowledge, tree)
    assert not proves(knowledge, replace(tree, splits=np.array([LEAF], dtype=np.int32)))


def test_a_search_goes_on_where_it_was_broken_off() -> None:
    chain, box = random_chain(1, 3, 8, 8, 8, shift=1.0), cube(3, -1.0, 1.0)
    whole, bits = Knowledge(chain, box), Knowledge(chain, box)
    branched(whole)
    layers = Layers(bits)
    for index in bits.relu_layers:
        layers.refresh(index)
        below = layers.below(index)
        search = BoxBranching(bits, index, below)
        steps = 0
        while not search.run(below, MOST, Steps(1)):
            steps += 1
            assert steps < 10_000
    assert statuses(bits.freeze()) == statuses(whole.freeze())
    assert [t.splits.tolist() for t in bits.trees] == [t.splits.tolist() for t in whole.trees]


def test_several_processes_find_what_one_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    from joblib import parallel_config

    # So that several batches wait for one another.
    monkeypatch.setattr(branch, "BATCH", 2)
    monkeypatch.setattr(branch, "AGAIN", np.inf)
    chain, box = random_chain(8, 3, 6, 6, 6, shift=1.0), cube(3, -1.0, 1.0)
    alone, together = Knowledge(chain, box), Knowledge(chain, box)
    branched(alone)
    with parallel_config(backend="threading"):
        assert all(branched(together, jobs=2))
    np.testing.assert_array_equal(together.witnesses, alone.witnesses)
    for found, expected in zip(together.trees, alone.trees, strict=True):
        np.testing.assert_array_equal(found.splits, expected.splits)
    assert alone.trees


class Steps(Deadline):
    """Passes after some looks at it."""

    def __init__(self, steps: int) -> None:
        super().__init__(None)
        self.steps = steps

    @property
    def passed(self) -> bool:
        self.steps -= 1
        return self.steps < 0


def search_on(chain: Chain, box: Box, layer: int = 1) -> BoxSearch:
    """For the positive signs of a layer."""
    knowledge, _ = bounded(chain, box)
    return BoxSearch(question_on(knowledge, layer))


def test_the_share_that_is_done_grows_to_all_of_the_box() -> None:
    wave = chain_of(
        ([[1.0], [1.0], [1.0]], [0.0, -0.5, -1.0]),
        ([[2.0, -4.0, 2.0]], [-1.0625]),
        relu_at_end=True,
    )
    search = search_on(wave, cube(1, -1.0, 2.0))
    done = []
    for _ in search.run(MOST, Deadline()):
        done.append(search.done)
    assert search.done == pytest.approx(1.0)
    assert len(search.tree) > 3
    assert all(0.0 <= share <= 1.0 + 1e-9 for share in done)


def test_what_will_not_end_in_as_many_parts_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """|x| + |y| - |x + y| - |x - y| is 0 along two lines, so that most of the box is soon done."""
    monkeypatch.setattr(BoxSearch, "patience", 200)
    halves = [[1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [-1, -1], [1, -1], [-1, 1]]
    signs = [[1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0]]
    chain = chain_of((halves, [0.0] * 8), (signs, [-1e-9]), relu_at_end=True)
    nodes = []
    for lenience in (1e9, 0.0):
        monkeypatch.setattr(BoxSearch, "lenience", lenience)
        search = search_on(chain, cube(2, -1.0, 1.0))
        assert list(search.run(2_000, Deadline()))
        assert search.open.all()
        nodes.append(search.nodes)
    assert nodes[0] >= 2_000 > nodes[1] >= 200
