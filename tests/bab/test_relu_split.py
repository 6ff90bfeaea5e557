"""Branching on ReLUs: multipliers that hold are sound, and the tree agrees with the regions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_exact.bab.relu_split import search as splits
from onnx_exact.bab.relu_split.dual_simplex import Program
from onnx_exact.bab.relu_split.search import split_sign
from onnx_exact.bab.relu_split.subproblems import Functional, Signs
from onnx_exact.bab.trees import LEAF, ReluTree
from onnx_exact.bounds import crown
from onnx_exact.deadline import Deadline
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.propagate import Layers
from onnx_exact.decide.verdict import Evidence, Status
from onnx_exact.network import Affine, Chain
from tests.clock import Ticking
from tests.nets import (
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


def split_all(knowledge: Knowledge, seconds: float | None = None) -> list[bool]:
    """Asks for every open sign, layer by layer."""
    layers = Layers(knowledge)
    done = []
    for index in knowledge.relu_layers:
        layers.refresh(index)
        for place, positive in enumerate((True, False)):
            for unit in range(knowledge.chain.layers[index].width):
                if knowledge.open_signs(index)[place][unit] and index:
                    below = layers.below(index)
                    done.append(
                        split_sign(knowledge, index, unit, positive, below, Deadline(seconds))
                    )
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
    assert split_sign(knowledge, 1, 0, True, layers.below(1), Deadline())
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
    split_sign(knowledge, 1, 0, True, layers.below(1), Deadline())
    assert knowledge.upper[1][0] >= 2.0**-30
    assert knowledge.status(1).tolist() != [Status.INACTIVE]


def test_a_passed_deadline_leaves_the_sign_open() -> None:
    knowledge, layers = bounded(TENT, cube(1, -1.0, 2.0))
    upper = knowledge.upper[1].copy()
    assert split_sign(knowledge, 1, 0, True, layers.below(1), Deadline(0.0)) is False
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


@pytest.mark.parametrize("seconds", [0.0, 1e-4, 1e-3, 1e-2])
def test_running_out_of_time_is_sound(seconds: float) -> None:
    for seed in range(8):
        chain, box = random_chain(seed, 3, 6, 6, 6, shift=1.0), cube(3, -1.0, 1.0)
        knowledge = Knowledge(chain, box)
        done = split_all(knowledge, seconds)
        assert seconds > 0.0 or not any(done)
        assert not wrong_verdicts(knowledge.freeze(), enumerate_regions(chain, box))


def test_what_will_not_end_in_time_is_given_up_long_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum of many tents, lowered by hardly more than their heights: none may be left whole."""
    n = 16
    corners = np.kron(np.eye(n), np.ones((3, 1)))
    heights = np.tile([2.0, -4.0, 2.0], n)[None, :]
    chain = chain_of(
        (corners.tolist(), np.tile([0.0, -0.5, -1.0], n).tolist()),
        (heights.tolist(), [-n - 2.0**-20]),
        relu_at_end=True,
    )
    knowledge, layers = bounded(chain, cube(n, -1.0, 2.0))
    clock = Ticking(0.01)
    monkeypatch.setattr(splits, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr("onnx_exact.deadline.monotonic", clock)
    deadline = Deadline(40.0)
    assert split_sign(knowledge, 1, 0, True, layers.below(1), deadline) is False
    assert 20.0 < deadline.remaining < 40.0 - splits.PATIENCE
    assert knowledge.upper[1][0] > 0.0


def leaves_of(tree: ReluTree, widths: Sequence[int]) -> list[Signs]:
    """The signs that each leaf assumes, one array a layer, shape (leaves, units)."""
    leaves: list[list[Signs]] = []
    waiting = [[np.zeros(n, dtype=np.int8) for n in widths]]
    for layer, unit in tree.splits:
        signs = waiting.pop()
        if layer == LEAF:
            leaves.append(signs)
            continue
        for sign in (-1, 1):
            waiting.append([s.copy() for s in signs])
            waiting[-1][layer][unit] = sign
    assert not waiting
    return [np.array(layer) for layer in zip(*leaves, strict=True)]


def proved_trees(seed: int) -> tuple[Knowledge, Layers]:
    """A chain with splittings recorded, every layer bounded with what came out of them."""
    chain, box = random_chain(seed, 3, 6, 6, 6, shift=1.0), cube(3, -1.0, 1.0)
    knowledge = Knowledge(chain, box)
    split_all(knowledge)
    layers = Layers(knowledge)
    layers.refresh(len(chain.layers) - 1)
    return knowledge, layers


def test_a_recorded_tree_proves_its_sign_again() -> None:
    """Its leaves, bounded from nothing but their assumptions, all exclude the sign."""
    proved = 0
    for seed in range(8):
        knowledge, layers = proved_trees(seed)
        for tree in knowledge.freeze().trees:
            assert isinstance(tree, ReluTree)
            affine = knowledge.chain.layers[tree.layer].affine
            sign = 1.0 if tree.positive else -1.0
            row = Affine(sign * affine.weight[[tree.unit]], sign * affine.bias[[tree.unit]])
            below = layers.below(tree.layer)
            functional = Functional(row, below, knowledge.box)
            program = Program(row, below, knowledge.box)
            for signs in zip(*leaves_of(tree, [r.affine.n_out for r in below]), strict=True):
                optimum = program.solve(signs, seconds=600.0)
                assert optimum is not None
                assert (functional.bounds(optimum.cases) <= 0.0).any()
            proved += 1
    assert proved >= 3


def test_the_leaves_of_a_recorded_tree_cover_the_box() -> None:
    for seed in range(8):
        knowledge, _ = proved_trees(seed)
        points = knowledge.box.sample(np.random.default_rng(seed), 500)
        values = knowledge.chain.preactivations(points)
        for tree in knowledge.trees:
            assert isinstance(tree, ReluTree)
            leaves = leaves_of(tree, [v.shape[1] for v in values[: tree.layer]])
            inside = np.ones((len(leaves[0]), len(points)), dtype=bool)
            for signs, value in zip(leaves, values, strict=False):
                inside &= (signs[:, None, :] * value >= 0.0).all(axis=2)
            assert inside.any(axis=0).all()


def test_a_recorded_tree_lists_a_node_before_its_children() -> None:
    splits_of = np.array([[0, 1], [1, 0], [LEAF, LEAF], [LEAF, LEAF], [LEAF, LEAF]], np.int32)
    first, second = leaves_of(ReluTree(2, 0, True, splits_of), [2, 1])
    assert first.tolist() == [[0, 1], [0, 1], [0, -1]]
    assert second.tolist() == [[1], [-1], [0]]
