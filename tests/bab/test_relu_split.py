"""Branching on ReLUs: multipliers that hold are sound, and the tree agrees with the regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_exact.bab.relu_split.search import ReluSearch, split_sign
from onnx_exact.bab.relu_split.subproblems import Functional
from onnx_exact.bab.trees import LEAF, Leaves, Tree
from onnx_exact.bounds import crown
from onnx_exact.bounds.crown import Signs
from onnx_exact.budgets import BUDGETS
from onnx_exact.decide.branching import question_of, take
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.propagate import Layers
from onnx_exact.decide.verdict import Evidence, Status
from onnx_exact.network import Affine, Chain
from onnx_exact.network.query import Query
from onnx_exact.runtime.deadline import Deadline
from tests.nets import (
    MOST,
    assert_holds,
    bounded,
    chain_of,
    cube,
    exact_values,
    nasty_boxes,
    nasty_chains,
    random_chain,
    wrong_verdicts,
)
from tests.oracle.regions import enumerate_regions

# A tent of height 1 at x = 1/2, lowered by 5/4: never positive, which linear bounds miss.
TENT = chain_of(
    ([[1.0], [1.0], [1.0]], [0.0, -0.5, -1.0]), ([[2.0, -4.0, 2.0]], [-1.25]), relu_at_end=True
)


# Lowered by 17/16, where subgradient steps do not come to rest in time.
PEAK = chain_of(
    ([[1.0], [1.0], [1.0]], [0.0, -0.5, -1.0]), ([[2.0, -4.0, 2.0]], [-1.0625]), relu_at_end=True
)


# Lowered by 1: at its tip, and there alone, no bound can be below 0.
TOUCHING = chain_of(
    ([[1.0], [1.0], [1.0]], [0.0, -0.5, -1.0]), ([[2.0, -4.0, 2.0]], [-1.0]), relu_at_end=True
)


def settle(
    knowledge: Knowledge,
    below: Sequence[crown.Relaxation],
    layer: int,
    sign: tuple[int, bool],
    most: int = MOST,
    deadline: Deadline | None = None,
) -> int:
    """Asks for one sign and writes down what is found; the nodes it took."""
    question = question_of(knowledge, layer, [Query(layer, *sign)], below)
    found, nodes = split_sign(question, most, deadline or Deadline())
    take(knowledge, found)
    return nodes


def split_all(knowledge: Knowledge, most: int = MOST) -> list[bool]:
    """Asks for every open sign, layer by layer; whether each was settled."""
    layers = Layers(knowledge)
    done = []
    for index in knowledge.relu_layers:
        layers.refresh(index)
        for place, positive in enumerate((True, False)):
            for unit in range(knowledge.chain.layers[index].width):
                if knowledge.open_signs(index)[place][unit] and index:
                    settle(knowledge, layers.below(index), index, (unit, positive), most)
                    done.append(not knowledge.open_signs(index)[place][unit])
    return done


@settings(max_examples=200)
@given(st.data())
def test_multipliers_of_signs_that_hold_everywhere_are_sound(data: st.DataObject) -> None:
    """For a stably active unit any multiplier >= 0 does, for an inactive one any <= 0.

    Those that cancel a coefficient, wholly or but for an ulp, are the ones that are fooled.
    """
    chain = data.draw(nasty_chains())
    box = data.draw(nasty_boxes(chain.n_in))
    knowledge, layers = bounded(chain, box)
    last = len(chain.layers) - 1
    rows, below = chain.layers[last].affine, layers.below(last)
    multiplier = st.sampled_from([0.0, 1e-310, 1.0, 1e30]) | st.floats(0.0, 1e3)
    multipliers = []
    for k, layer in enumerate(below):
        sizes = np.array([[data.draw(multiplier) for _ in layer.low] for _ in range(rows.n_out)])
        if k == last - 1:
            near = np.abs(rows.weight) * data.draw(st.sampled_from([1.0, 1.0 - 2.0**-53]))
            sizes = np.where(data.draw(st.booleans()), near, sizes)
        signs = np.where(knowledge.lower[k] >= 0.0, 1.0, np.where(knowledge.upper[k] <= 0, -1.0, 0))
        multipliers.append(sizes * signs)
    slopes = [np.tile(layer.lower_slope, (rows.n_out, 1)) for layer in below]
    upper, _ = crown.upper_bounds(rows, below, box, slopes, multipliers)
    values = [value[-1] for value in exact_values(chain, box)]
    assert_holds(np.full(rows.n_out, -np.inf), upper, values)


def test_most_signs_are_settled_and_all_of_them_as_the_regions_say() -> None:
    settled: list[bool] = []
    for widths, shift in (((1, 6, 6, 4), 0.5), ((2, 5, 5, 4), 1.0), ((3, 5, 4, 4), 0.5)):
        for seed in range(4):
            chain, box = random_chain(seed, *widths, shift=shift), cube(widths[0], -1.0, 1.0)
            knowledge = Knowledge(chain, box)
            knowledge.show(box.corners(np.random.default_rng(0), 32))
            settled += split_all(knowledge)
            assert not wrong_verdicts(knowledge.freeze(), enumerate_regions(chain, box))
    assert len(settled) >= 10
    assert sum(settled) >= 0.6 * len(settled)


@pytest.mark.parametrize("chain", [TENT, PEAK])
def test_a_sign_that_linear_bounds_miss_is_excluded_by_cases(chain: Chain) -> None:
    knowledge, layers = bounded(chain, cube(1, -1.0, 2.0))
    assert knowledge.upper[1][0] > 0.0
    settle(knowledge, layers.below(1), 1, (0, True))
    assert knowledge.status(1).tolist() == [Status.INACTIVE]
    verdicts = knowledge.freeze().layers[1]
    assert verdicts is not None
    assert verdicts.evidence.tolist() == [Evidence.LINEAR]


def test_a_tent_that_just_reaches_beyond_zero_is_never_excluded() -> None:
    higher = chain_of(
        ([[1.0], [1.0], [1.0]], [0.0, -0.5, -1.0]),
        ([[2.0, -4.0, 2.0]], [-1.0 + 2.0**-30]),
        relu_at_end=True,
    )
    knowledge, layers = bounded(higher, cube(1, -1.0, 2.0))
    settle(knowledge, layers.below(1), 1, (0, True))
    assert knowledge.upper[1][0] >= 2.0**-30
    assert knowledge.status(1).tolist() != [Status.INACTIVE]


def test_a_passed_deadline_leaves_the_sign_open() -> None:
    knowledge, layers = bounded(TENT, cube(1, -1.0, 2.0))
    upper = knowledge.upper[1].copy()
    settle(knowledge, layers.below(1), 1, (0, True), deadline=Deadline(0.0))
    np.testing.assert_array_equal(knowledge.upper[1], upper)
    assert knowledge.open_signs(1)[0].all()


@pytest.mark.parametrize("least", [-1e16, -3e15, -7e14])
@pytest.mark.parametrize("factor", [1.1, 1 / 3, 0.3])
def test_a_multiplier_that_cancels_a_rounded_product_does_not_hide_its_rounding(
    least: float, factor: float
) -> None:
    """f g <= f s g + f t - m g, with m = fl(f s) and g in [1e20, 1e20 + 1e5] in truth.

    The coefficient that is left is 0, the rounding of f s times 1e20 is not.
    """
    affine = Affine(np.array([[1.0]]), np.array([1e20]))
    low, high = np.array([least]), np.array([1e20])
    relaxation = crown.relax(affine, True, low, high, np.array([1e20]))
    assert 0.0 < relaxation.upper_slope[0] < 1.0
    size = factor * relaxation.upper_slope[0]
    row, box = Affine(np.array([[factor]]), np.zeros(1)), cube(1, -1e5, 0.0)
    slopes, multipliers = [np.zeros((1, 1))], [np.array([[-size]])]
    upper, _ = crown.upper_bounds(row, [relaxation], box, slopes, multipliers)
    # What is bounded, in rationals, where x = 0: the line less the multiple of g.
    line = Fraction(factor) * (
        Fraction(float(relaxation.upper_slope[0])) * Fraction(1e20)
        + Fraction(float(relaxation.upper_offset[0]))
    )
    exact = line - Fraction(size) * Fraction(1e20)
    checkpoint = Fraction(factor) * Fraction(1e20)
    assert Fraction(float(upper[0])) >= min(exact, checkpoint)


@pytest.mark.parametrize("most", [1, 3, 15, 60])
def test_running_out_of_nodes_is_sound(most: int) -> None:
    for seed in range(8):
        chain, box = random_chain(seed, 3, 6, 6, 6, shift=1.0), cube(3, -1.0, 1.0)
        knowledge = Knowledge(chain, box)
        done = split_all(knowledge, most)
        assert most > 1 or not any(done)
        assert not wrong_verdicts(knowledge.freeze(), enumerate_regions(chain, box))


def tents(lowered: float, n: int = 16) -> Chain:
    """The sum of many tents, lowered by somewhat more than their heights."""
    corners = np.kron(np.eye(n), np.ones((3, 1)))
    heights = np.tile([2.0, -4.0, 2.0], n)[None, :]
    return chain_of(
        (corners.tolist(), np.tile([0.0, -0.5, -1.0], n).tolist()),
        (heights.tolist(), [-n - lowered]),
        relu_at_end=True,
    )


def test_what_will_not_end_in_as_many_nodes_is_given_up_long_before() -> None:
    """Hardly more than their heights: none may be left whole."""
    knowledge, layers = bounded(tents(2.0**-20), cube(16, -1.0, 2.0))
    patience = BUDGETS.relu_patience // knowledge.chain.layers[0].width
    nodes = settle(knowledge, layers.below(1), 1, (0, True), most=100 * patience)
    assert patience <= nodes < 2 * patience
    assert knowledge.upper[1][0] > 0.0


def test_a_node_that_many_steps_do_not_close_is_split_on_what_is_left() -> None:
    """What steps do not exclude is split until every unit is fixed."""
    knowledge, layers = bounded(TOUCHING, cube(1, -1.0, 2.0))
    search = ReluSearch(question_of(knowledge, 1, [Query(1, 0, True)], layers.below(1)))
    assert list(search.run(MOST, Deadline()))
    nodes = search.tree.preorder()
    listed = np.array(search.tree.splits)[nodes]
    ends = zip(nodes[listed == LEAF].tolist(), paths(listed.tolist()), strict=True)
    left = [path for node, path in ends if node not in search._closed]
    assert left
    # What the solver was asked counts as work as well.
    assert search.spent > search.nodes
    assert all(sorted(path) == search._functional.free.tolist() for path in left)


def test_a_node_that_nothing_closes_leaves_the_others_to_be_bounded() -> None:
    knowledge, layers = bounded(TOUCHING, cube(1, -1.0, 2.0))
    search = ReluSearch(question_of(knowledge, 1, [Query(1, 0, True)], layers.below(1)))
    assert list(search.run(MOST, Deadline()))
    assert not search.pending
    assert search.finished() is None
    assert 0.0 < search.done < 1.0


def leaves_of(tree: Tree, widths: Sequence[int]) -> list[Signs]:
    """The signs that each leaf assumes, one array a layer, shape (leaves, units)."""
    leaves: list[Signs] = []
    waiting = [np.zeros(sum(widths), dtype=np.int8)]
    for unit in tree.splits:
        signs = waiting.pop()
        if unit == LEAF:
            leaves.append(signs)
            continue
        for sign in (-1, 1):
            waiting.append(signs.copy())
            waiting[-1][unit] = sign
    assert not waiting
    return np.split(np.array(leaves), np.cumsum(widths)[:-1], axis=1)


def proved_trees(seed: int) -> tuple[Knowledge, Layers]:
    """A chain with splittings recorded, every layer bounded with what came out of them."""
    chain, box = random_chain(seed, 3, 6, 6, 6, shift=1.0), cube(3, -1.0, 1.0)
    knowledge = Knowledge(chain, box)
    split_all(knowledge)
    layers = Layers(knowledge)
    layers.refresh(len(chain.layers) - 1)
    return knowledge, layers


def test_a_recorded_tree_proves_its_sign_by_what_was_kept_of_its_leaves() -> None:
    """Bounded from nothing but their assumptions, slopes and multipliers, all exclude the sign."""
    proved = 0
    for seed in range(8):
        knowledge, layers = proved_trees(seed)
        for tree in knowledge.freeze().trees:
            below, leaves = layers.below(tree.layer), tree.leaves
            assert leaves is not None
            row = question_of(knowledge, tree.layer, tree.queries, below).rows
            functional = Functional(row, below, knowledge.box)
            widths = [r.affine.n_out for r in below]
            signs = np.concatenate(leaves_of(tree, widths), axis=1)
            multipliers, used = np.zeros(signs.shape), 0
            for leaf, path in enumerate(paths(tree.splits.tolist())):
                multipliers[leaf, path] = leaves.multipliers[used : used + len(path)]
                used += len(path)
            assert used == leaves.multipliers.size
            cases = functional.given(signs, (leaves.units, leaves.slopes), multipliers)
            assert (functional.bounds(cases) <= 0.0).all()
            proved += 1
    assert proved >= 3


def paths(splits: list[int]) -> list[list[int]]:
    """The units fixed on the way to each leaf."""
    found, waiting = [], [list[int]()]
    for unit in splits:
        path = waiting.pop()
        if unit == LEAF:
            found.append(path)
        else:
            waiting += [[*path, unit], [*path, unit]]
    return found


def test_a_known_tree_is_closed_without_any_step_and_another_gone_on_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    knowledge, layers = bounded(tents(0.5, 3), cube(3, -1.0, 2.0))
    question = question_of(knowledge, 1, [Query(1, 0, True)], layers.below(1))
    (tree,) = split_sign(question, MOST, Deadline())[0].trees
    assert tree.leaves is not None
    assert tree.splits.size > 3
    leaf = np.array([LEAF], dtype=np.int32)
    cut = Leaves(tree.leaves.units, tree.leaves.slopes[:1], tree.leaves.multipliers[:0])
    (again,) = split_sign(question, MOST, Deadline(), replace(tree, splits=leaf, leaves=cut))[
        0
    ].trees
    assert again.splits.size > 1
    monkeypatch.setattr(Functional, "improve", None)
    (same,) = split_sign(question, 0, Deadline(), tree)[0].trees
    np.testing.assert_array_equal(same.splits, tree.splits)
    assert same.leaves is not None
    np.testing.assert_array_equal(same.leaves.slopes, tree.leaves.slopes)
    np.testing.assert_array_equal(same.leaves.multipliers, tree.leaves.multipliers)


def test_the_leaves_of_a_recorded_tree_cover_the_box() -> None:
    for seed in range(8):
        knowledge, _ = proved_trees(seed)
        points = knowledge.box.sample(np.random.default_rng(seed), 500)
        values = knowledge.chain.preactivations(points)
        for tree in knowledge.trees:
            leaves = leaves_of(tree, [v.shape[1] for v in values[: tree.layer]])
            inside = np.ones((len(leaves[0]), len(points)), dtype=bool)
            for signs, value in zip(leaves, values, strict=False):
                inside &= (signs[:, None, :] * value >= 0.0).all(axis=2)
            assert inside.any(axis=0).all()


def test_a_recorded_tree_lists_a_node_before_its_children() -> None:
    splits = np.array([1, 2, LEAF, LEAF, LEAF], np.int32)
    first, second = leaves_of(Tree(2, np.zeros(1, np.intp), np.ones(1, bool), splits), [2, 1])
    assert first.tolist() == [[0, 1], [0, 1], [0, -1]]
    assert second.tolist() == [[1], [-1], [0]]
