"""Splitting by the compiled kernel against the exact regions, points, and the kernel in numpy."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from onnx_exact.bab.input_split import compiled as subtrees
from onnx_exact.bab.input_split import search as branch
from onnx_exact.bab.input_split.compiled import Explorer, Start, Subtree, allowances
from onnx_exact.bab.trees import LEAF, Growing
from onnx_exact.bounds.interval import exact_extremes
from onnx_exact.decide.branching import BoxBranching
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.propagate import Layers
from onnx_exact.network import Affine, Box, Chain
from onnx_exact.network.affine import Array
from tests.bab.test_input_split import Steps, proves
from tests.nets import MOST, branched, chain_of, cube, question_on, random_chain, statuses
from tests.oracle.exact import exact_layers, preactivations
from tests.oracle.regions import enumerate_regions

pytest.importorskip("numba", reason="the kernel is compiled by numba, which is not installed")


def refreshed(chain: Chain, box: Box) -> Knowledge:
    """Bounds of all layers, by nothing but bounds."""
    knowledge = Knowledge(chain, box)
    layers = Layers(knowledge)
    for index in range(len(chain.layers)):
        layers.bound(index)
        layers.relax(index)
    return knowledge


def settled(chain: Chain, box: Box, jobs: int = 1) -> Knowledge:
    """Every layer by the kernel alone."""
    knowledge = Knowledge(chain, box)
    assert all(branched(knowledge, jobs=jobs, compiled=True))
    return knowledge


def explorer_of(knowledge: Knowledge) -> Explorer:
    """Of the last layer's units."""
    question = question_on(knowledge, len(knowledge.chain.layers) - 1)
    return Explorer(question, 2 ** np.arange(question.units.size, dtype=np.uint64))


def start_of(knowledge: Knowledge, box: Box, signs: int) -> Start:
    units = sum(layer.width for layer in knowledge.chain.layers[:-1])
    stable = np.zeros(units, dtype=np.int8)
    return Start(box.lower, box.upper, stable, np.ones(signs, dtype=bool))


def parts_of(subtree: Subtree, box: Box) -> list[tuple[int, Array, Array]]:
    """The leaves of a subtree, with their boxes."""
    found, waiting = [], [(0, box.lower, box.upper)]
    while waiting:
        node, low, high = waiting.pop()
        side, first = subtree.sides[node], int(subtree.children[node])
        if side == LEAF:
            found.append((node, low, high))
            continue
        middle = 0.5 * low[side] + 0.5 * high[side]
        left, right = high.copy(), low.copy()
        left[side] = right[side] = middle
        waiting += [(first, low, left), (first + 1, right, high)]
    return found


@pytest.mark.parametrize(
    ("widths", "shift"),
    [((1, 6, 6, 4), 0.0), ((2, 5, 5, 4), 1.0), ((3, 5, 4, 4), 0.5), ((5, 3, 3, 3), 1.0)],
)
@pytest.mark.parametrize("seed", range(4))
def test_every_unit_is_settled_as_the_regions_say(
    widths: tuple[int, ...], shift: float, seed: int
) -> None:
    chain, box = random_chain(seed, *widths, shift=shift), cube(widths[0], -1.0, 1.0)
    truth = enumerate_regions(chain, box)
    assert statuses(settled(chain, box).freeze()) == [list(layer) for layer in truth.statuses]


def test_recorded_trees_prove_their_signs_from_nothing_but_their_splits() -> None:
    nodes = 0
    for seed in range(6):
        chain, box = random_chain(seed, 3, 6, 6, 6, shift=1.0), cube(3, -1.0, 1.0)
        knowledge = settled(chain, box)
        for tree in knowledge.trees:
            assert proves(knowledge, tree)
            nodes += tree.splits.size
    assert nodes > 20


def test_a_search_goes_on_where_it_was_broken_off_and_in_several_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subtrees, "MOST_NODES", 20)
    monkeypatch.setattr(branch, "KERNEL_ROUND", 2)
    chain, box = random_chain(8, 3, 6, 6, 6, shift=1.0), cube(3, -1.0, 1.0)
    whole, together, bits = settled(chain, box), settled(chain, box, jobs=2), Knowledge(chain, box)
    layers, steps = Layers(bits), 0
    for index in bits.relu_layers:
        layers.refresh(index)
        below = layers.below(index)
        search = BoxBranching(bits, index, below)
        while not search.run(below, MOST, Steps(3), compiled=True):
            steps += 1
            assert steps < 10_000
    assert steps > 3
    for other in (together, bits):
        assert statuses(other.freeze()) == statuses(whole.freeze())
        assert [t.splits.tolist() for t in other.trees] == [t.splits.tolist() for t in whole.trees]


@pytest.mark.parametrize("seed", range(6))
def test_no_point_of_a_part_is_positive_where_the_kernel_excludes_it(seed: int) -> None:
    chain, box = random_chain(seed, 4, 9, 9, 9, 6, shift=0.7), cube(4, -1.0, 1.0)
    knowledge, rng = refreshed(chain, box), np.random.default_rng(seed)
    points = rng.uniform(-1.0, 1.0, (4000, 4))
    values = chain.preactivations(points)[-1]
    subtree = explorer_of(knowledge).explore(start_of(knowledge, box, 6))
    unfinished, excluded = set(subtree.nodes.tolist()), 0
    for node, low, high in parts_of(subtree, box):
        if node in unfinished:
            continue
        inside = ((points >= low) & (points <= high)).all(axis=1)
        # What no point shows has been excluded here.
        asked = ~subtree.given_up
        assert (values[inside][:, asked] <= 1e-9).all()
        excluded += int(asked.any())
    assert excluded or subtree.given_up.all()
    shown = chain.preactivations(subtree.points)[-1].max(axis=1, initial=-np.inf)
    assert (shown > 0.0).all()


@pytest.mark.parametrize("seed", range(8))
def test_a_maximum_just_above_zero_is_never_excluded(seed: int) -> None:
    """Positive by less than sums are rounded: the bound has to know of its rounding."""
    affine, excluded_without = _almost_nothing(seed), 0
    for without in (False, True):
        knowledge = refreshed(affine, cube(4, -1.0, 1.0))
        explorer = explorer_of(knowledge)
        # The margin would cover it as well.
        explorer._rows = explorer._rows._replace(bias=affine.layers[-1].affine.bias)
        if without:
            explorer._rows.slack[:] = 0.0
            explorer._net.slack[:] = 0.0
        subtree = explorer.explore(start_of(knowledge, knowledge.box, 20))
        reached = subtree.left[0] if subtree.sides[0] != LEAF else np.uint64(0)
        for sign in range(20):
            kept = bool(int(reached) >> sign & 1) or bool(subtree.given_up[sign])
            if without:
                excluded_without += not kept
            else:
                assert kept
    assert excluded_without


def _almost_nothing(seed: int) -> Chain:
    """Units whose exact maximum over the cube is positive, by a last place of their terms."""
    rng = np.random.default_rng(seed)
    first = Affine(rng.standard_normal((6, 4)), rng.uniform(20.0, 30.0, 6))
    weight = rng.standard_normal((20, 6)) * 1e3
    biases = []
    for unit in range(20):
        exact = [
            sum(
                Fraction(float(weight[unit, k])) * Fraction(float(first.weight[k, d]))
                for k in range(6)
            )
            for d in range(4)
        ]
        constant = sum(
            Fraction(float(weight[unit, k])) * Fraction(float(first.bias[k])) for k in range(6)
        )
        greatest = sum(abs(a) for a in exact) + constant
        biases.append(float(np.nextafter(-float(greatest), np.inf)))
    return Chain.of([first, Affine(weight, np.array(biases))], relu_at_end=True)


def test_units_almost_nothing_are_positive_at_a_corner() -> None:
    """So that the test above is about what it says."""
    chain = _almost_nothing(0)
    weight = chain.layers[1].affine.weight @ chain.layers[0].affine.weight
    for unit in range(20):
        corner = [Fraction(int(v)) for v in np.where(weight[unit] > 0.0, 1, -1)]
        value = preactivations(exact_layers(chain), corner)[-1][unit]
        assert 0 < value < Fraction(1, 10**9)


@pytest.mark.parametrize("seed", range(4))
def test_allowances_cover_what_rounding_does_to_a_linear_functional(seed: int) -> None:
    rng = np.random.default_rng(seed)
    affine = Affine(rng.standard_normal((30, 40)) * 1e6, rng.standard_normal(30))
    box = cube(40, -1.0, 1.0)
    knowledge = Knowledge(chain_of((affine.weight.tolist(), affine.bias.tolist())), box)
    slack = allowances(question_on(knowledge, 0), affine, 0)
    rounded = np.abs(affine.weight).sum(axis=1) + affine.bias
    for unit in range(30):
        _, greatest, _ = exact_extremes(affine, unit, box.lower, box.upper)
        assert abs(Fraction(float(rounded[unit])) - greatest) <= Fraction(float(slack[unit]))


def test_the_kernel_is_not_for_what_it_was_not_made_for() -> None:
    box = cube(2, -1.0, 1.0)
    chain = random_chain(0, 2, 4, 4)
    first, last = (layer.affine for layer in chain.layers)

    def suits(affine: Affine) -> bool:
        knowledge = refreshed(Chain.of([first, affine], relu_at_end=True), box)
        return Explorer.suits(question_on(knowledge, 1))

    assert suits(last)
    assert not Explorer.suits(question_on(refreshed(chain, box), 0))
    assert not Explorer.suits(question_on(Knowledge(chain, box), 1))
    for size in (1e200, 1e307):
        assert not suits(Affine(last.weight * size, last.bias))
    assert not suits(Affine(np.ones((65, 4)), np.zeros(65)))


def test_without_numba_arrays_do_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    chain, box = random_chain(3, 3, 6, 6, 6, shift=1.0), cube(3, -1.0, 1.0)
    compiled = settled(chain, box)
    monkeypatch.setattr(subtrees, "find_spec", lambda name: None)
    assert statuses(settled(chain, box).freeze()) == statuses(compiled.freeze())


def test_what_varies_along_a_side_is_split_along_it_even_where_slopes_cancel() -> None:
    """The units below vary with the second input alone, and their sum, through upper lines, not."""
    chain = chain_of(
        ([[1e-9, 1.0], [1e-9, -1.0], [0.0, 1.0]], [0.0, 0.0, 0.25]),
        ([[1.0, 1.0, -0.5]], [-2.0]),
        ([[1.0]], [-0.01]),
        relu_at_end=True,
    )
    knowledge = settled(chain, cube(2, -1.0, 1.0))
    assert not knowledge.open_units


def test_preorder_lists_what_is_kept() -> None:
    tree = Growing()
    tree.split(0, 0)
    tree.split(1, 1)
    tree.split(3, 2)
    assert tree.preorder().tolist() == [0, 1, 3, 5, 6, 4, 2]
    kept = np.array(tree.splits) != LEAF
    kept[3] = False
    assert tree.preorder(kept).tolist() == [0, 1, 3, 4, 2]
    kept[0] = False
    assert tree.preorder(kept).tolist() == [0]


def test_a_tree_grown_again_is_the_same() -> None:
    splits = np.array([2, 1, LEAF, 0, LEAF, LEAF, LEAF], dtype=np.int32)
    tree = Growing()
    leaves = tree.regrow(splits)
    nodes = tree.preorder()
    assert np.array(tree.splits)[nodes].tolist() == splits.tolist()
    assert leaves == nodes[splits == LEAF].tolist()
