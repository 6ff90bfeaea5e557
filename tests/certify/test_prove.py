"""Proofs from scratch: what they claim holds, and what does not hold is not proved."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from onnx_exact.bab.relu_split.subproblems import Functional
from onnx_exact.bab.trees import LEAF, Leaves, Tree
from onnx_exact.bounds.cases import SLOPE_STEPS
from onnx_exact.bounds.crown import upper_bounds
from onnx_exact.budgets import BUDGETS
from onnx_exact.certify import prove
from onnx_exact.certify.proof import ChainProof, Proof
from onnx_exact.certify.prove import prove_chain
from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Evidence, Stability, Status
from onnx_exact.network import Affine, Box, Chain
from onnx_exact.runtime.deadline import Deadline
from tests.nets import chain_of, cube, random_chain, relaxations_of
from tests.oracle.exact import exact_layers, preactivations
from tests.oracle.networks import SOURCES, random_case
from tests.oracle.regions import enumerate_regions

NETWORKS = 60  # of each family
SECONDS = 600.0
STABLE = (Status.INACTIVE, Status.ACTIVE)

# |x + y| + |x - y| = 2 max(|x|, |y|), lowered by 5/2: never positive over [-1, 1], where the linear
# relaxation of each unit alone allows up to 3/2.
CROSS = chain_of(
    ([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], [0.0] * 4),
    ([[1.0, 1.0, 1.0, 1.0]], [-2.5]),
    relu_at_end=True,
)
SQUARE = cube(2, -1.0, 1.0)


def decided(chain: Chain, box: Box) -> Stability:
    return analyze_chain(chain, box, Options(method="bounds"))


def proved(chain: Chain, box: Box, stability: Stability) -> ChainProof:
    return prove_chain(chain, box, stability, Deadline(SECONDS))


def claimed(stability: Stability, layer: int, unit: int, status: Status) -> Stability:
    """The verdicts with one that a solver is said to have found."""
    layers = list(stability.layers)
    verdicts = layers[layer]
    assert verdicts is not None
    changed, evidence = verdicts.status.copy(), verdicts.evidence.copy()
    changed[unit], evidence[unit] = status, Evidence.SOLVER
    layers[layer] = replace(verdicts, status=changed, evidence=evidence)
    return replace(stability, layers=tuple(layers), trees=())


def kinds(proof: ChainProof, layer: int) -> list[Proof]:
    found = proof.layers[layer]
    assert found is not None
    return [Proof(int(p)) for p in found.proof]


@pytest.mark.parametrize("family", SOURCES)
def test_what_is_proved_agrees_with_the_exact_ranges(family: str) -> None:
    stable = unproved = 0
    for seed in range(NETWORKS):
        case = random_case(family, seed)
        stability = decided(case.chain, case.box)
        proof = proved(case.chain, case.box, stability)
        ranges = enumerate_regions(case.chain, case.box).ranges
        for index, layer in enumerate(proof.layers):
            lower, upper = proof.bounds.lower[index], proof.bounds.upper[index]
            for unit, (least, most) in enumerate(ranges[index]):
                assert Fraction(float(lower[unit])) <= least
                assert most <= Fraction(float(upper[unit]))
            if layer is None:
                continue
            verdicts = stability.layers[index]
            assert verdicts is not None
            same = (layer.status == verdicts.status) | (layer.status == Status.UNDECIDED)
            assert same.all()
            for unit, status in enumerate(verdicts.status):
                kind = Proof(int(layer.proof[unit]))
                if status in STABLE:
                    stable += 1
                    unproved += kind is Proof.NONE
                    assert kind in (Proof.BOUNDS, Proof.SLOPES, Proof.TREE, Proof.NONE)
                elif status == Status.UNSTABLE:
                    assert kind in (Proof.WITNESS, Proof.UNSHOWN)
                else:
                    assert kind is Proof.NONE
    assert stable > NETWORKS
    assert unproved <= stable // 100


@pytest.mark.parametrize("family", SOURCES)
def test_a_wrong_claim_is_never_proved(family: str) -> None:
    wrong = 0
    for seed in range(NETWORKS // 10):
        case = random_case(family, seed)
        stability = decided(case.chain, case.box)
        for index, verdicts in enumerate(stability.layers):
            if verdicts is None:
                continue
            for unit in verdicts.where(Status.UNSTABLE):
                for status in STABLE:
                    forged = claimed(stability, index, int(unit), status)
                    assert kinds(proved(case.chain, case.box, forged), index)[unit] is Proof.NONE
                    wrong += 1
    assert wrong > NETWORKS // 5


def test_nothing_rests_on_a_claim_that_is_not_proved() -> None:
    """The second layer's unit is stable only if the first one's is what is claimed."""
    chain = chain_of(([[1.0]], [-0.5]), ([[1.0]], [0.0]), ([[1.0]], [-0.25]), ([[1.0]], [0.0]))
    stability = decided(chain, cube(1))
    forged = claimed(claimed(stability, 0, 0, Status.INACTIVE), 2, 0, Status.INACTIVE)
    proof = proved(chain, cube(1), forged)
    assert kinds(proof, 0) == [Proof.NONE]
    assert kinds(proof, 2) == [Proof.NONE]
    assert proof.layers[0] is not None
    assert proof.layers[0].loose.tolist() == [0]


def many_inputs(chain: Chain) -> tuple[Chain, Box]:
    """The chain with ten inputs more, which nobody reads: too many to split the box."""
    first = chain.layers[0].affine
    wide = np.hstack([first.weight, np.zeros((first.n_out, 10))])
    layers = list(chain.layers)
    layers[0] = replace(layers[0], affine=Affine(wide, first.bias))
    return Chain(tuple(layers)), cube(first.n_in + 10, -1.0, 1.0)


def test_a_solvers_claim_is_proved_by_splitting_on_relus() -> None:
    chain, box = many_inputs(CROSS)
    forged = claimed(decided(chain, box), 1, 0, Status.INACTIVE)
    proof = proved(chain, box, forged)
    assert kinds(proof, 1) == [Proof.TREE]
    (tree,) = proof.trees
    assert tree.leaves is not None
    leaves = (tree.splits == LEAF).sum()
    assert tree.leaves.slopes.shape == (leaves, 4)
    assert len(tree.splits) == 2 * leaves - 1
    assert (tree.leaves.multipliers >= 0.0).all()
    assert tree.leaves.multipliers.size == sum(depths(tree.splits.tolist()))
    assert proof.bounds.upper[1][0] <= 0.0


def test_a_solvers_claim_is_proved_by_splitting_the_box() -> None:
    forged = claimed(decided(CROSS, SQUARE), 1, 0, Status.INACTIVE)
    proof = proved(CROSS, SQUARE, forged)
    assert kinds(proof, 1) == [Proof.TREE]
    (tree,) = proof.trees
    assert tree.leaves is None
    assert (tree.units.tolist(), tree.positive.tolist()) == ([0], [True])
    assert (tree.splits != LEAF).sum() + 1 == (tree.splits == LEAF).sum()


def depths(nodes: list[int]) -> list[int]:
    """The depth of each leaf of a preorder list."""
    found, waiting = [], [0]
    for node in nodes:
        depth = waiting.pop()
        if node == LEAF:
            found.append(depth)
        else:
            waiting += [depth + 1, depth + 1]
    assert not waiting
    return found


def test_a_known_splitting_is_followed() -> None:
    chain, box = many_inputs(CROSS)
    forged = claimed(decided(chain, box), 1, 0, Status.INACTIVE)
    for first, second in ((3, 1), (0, 2)):
        splits = [first, second, LEAF, LEAF, 3 - second, LEAF, LEAF]
        leaves = Leaves(
            np.zeros(0, np.intp), np.zeros((4, 0), np.uint8), np.zeros(8, dtype=np.float32)
        )
        tree = Tree(1, np.array([0]), np.array([True]), np.array(splits, np.int32), leaves)
        (found,) = proved(chain, box, replace(forged, trees=(tree,))).trees
        assert found.leaves is not None
        assert found.splits[:2].tolist() == splits[:2]


def test_a_known_splitting_that_does_not_suffice_is_split_further() -> None:
    forged = claimed(decided(CROSS, SQUARE), 1, 0, Status.INACTIVE)
    sides = np.array([1, LEAF, LEAF], dtype=np.int32)
    coarse = Tree(1, np.array([0]), np.array([True]), sides)
    (tree,) = proved(CROSS, SQUARE, replace(forged, trees=(coarse,))).trees
    assert tree.leaves is None
    assert tree.splits[0] == 1
    assert len(tree.splits) > 3


def test_a_splitting_that_hardly_proves_anything_is_soon_demoted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prove, "BUDGETS", replace(BUDGETS, replay_least=1, replay_times=0.0))
    for chain, box in ((CROSS, SQUARE), many_inputs(CROSS)):
        forged = claimed(decided(chain, box), 1, 0, Status.INACTIVE)
        proof = proved(chain, box, forged)
        assert kinds(proof, 1) == [Proof.NONE]
        assert not proof.trees


def test_what_deciding_kept_is_what_is_proved_without_a_step_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The tree of a sign that deciding split on ReLUs for holds as it is."""
    chain, box = many_inputs(CROSS)
    stability = analyze_chain(chain, box)
    (kept,) = stability.trees
    monkeypatch.setattr(Functional, "improve", None)
    (found,) = proved(chain, box, stability).trees
    np.testing.assert_array_equal(found.splits, kept.splits)
    assert kept.leaves is not None
    assert found.leaves is not None
    np.testing.assert_array_equal(found.leaves.multipliers, kept.leaves.multipliers)


def test_what_cannot_be_proved_in_the_bytes_at_hand_is_undecided() -> None:
    forged = claimed(decided(CROSS, SQUARE), 1, 0, Status.INACTIVE)
    proof = prove_chain(CROSS, SQUARE, forged, Deadline(SECONDS), most_bytes=1)
    assert kinds(proof, 1) == [Proof.NONE]
    assert kinds(proof, 0)[1] is Proof.UNSHOWN
    assert proof.witnesses.shape == (0, 2)


@pytest.mark.parametrize("family", SOURCES)
def test_witnesses_show_both_signs_exactly(family: str) -> None:
    shown = 0
    for seed in range(NETWORKS // 2):
        case = random_case(family, seed)
        stability = decided(case.chain, case.box)
        proof = proved(case.chain, case.box, stability)
        points = proof.witnesses.astype(np.float64)
        assert case.box.contains(points)
        layers = exact_layers(case.chain)
        values = [preactivations(layers, [Fraction(x) for x in p]) for p in points.tolist()]
        for index in range(len(case.chain.layers)):
            for unit, kind in enumerate(kinds(proof, index) if proof.layers[index] else []):
                if kind is Proof.WITNESS:
                    at = [value[index][unit] for value in values]
                    assert min(at) < 0 < max(at)
                    shown += 1
        assert len(points) <= len(stability.witnesses)
    assert shown > NETWORKS


def test_witnesses_are_single_precision_where_nothing_is_lost() -> None:
    chain = chain_of(([[1.0, -1.0]], [0.1]), ([[1.0]], [0.0]))
    assert proved(chain, cube(2), decided(chain, cube(2))).witnesses.dtype == np.float32
    # The only points that show a sign are closer together than single precision tells apart.
    near = 1.0 + 2.0**-40
    thin = Box(np.array([near]), np.array([near + 2.0**-45]))
    chain = chain_of(([[1.0]], [-near - 2.0**-46]), ([[1.0]], [0.0]))
    proof = proved(chain, thin, decided(chain, thin))
    assert kinds(proof, 0) == [Proof.WITNESS]
    assert proof.witnesses.dtype == np.float64


def test_rows_of_slopes_give_the_bounds_they_claim() -> None:
    """From nothing but what is written, the bound of every row excludes its sign."""
    rows = 0
    for seed in range(40):
        chain, box = random_chain(seed, 6, 10, 10, 6, shift=-0.3), cube(6, -1.0, 1.0)
        stability = decided(chain, box)
        proof = proved(chain, box, stability)
        for index, layer in enumerate(proof.layers):
            if layer is None or layer.slopes is None:
                continue
            below = relaxations_of(chain, box)[:index]
            loose = [p.loose for p in proof.layers[:index] if p is not None]
            slopes, start = [], 0
            for relaxation, units in zip(below, loose, strict=True):
                slopes.append(np.tile(relaxation.lower_slope, (len(layer.slopes.values), 1)))
                own = layer.slopes.values[:, start : start + units.size] / SLOPE_STEPS
                slopes[-1][:, units] = own
                start += units.size
            sign = np.where(layer.slopes.positive, 1.0, -1.0)
            affine = chain.layers[index].affine
            functionals = Affine(
                affine.weight[layer.slopes.unit] * sign[:, None],
                affine.bias[layer.slopes.unit] * sign,
            )
            bounds, _ = upper_bounds(functionals, below, box, slopes)
            assert (bounds <= 0.0).all()
            rows += len(bounds)
    assert rows


def test_a_sum_of_zeros_needs_no_margin() -> None:
    """All inputs are at least 0, all weights negative: the maximum is 0, without any rounding."""
    chain = chain_of(
        ([[1.0, -1.0], [-1.0, 1.0]], [0.0, 0.0]), ([[-1.0, -3.0]], [0.0]), ([[1.0]], [0.0])
    )
    proof = proved(chain, cube(2), decided(chain, cube(2)))
    assert kinds(proof, 1) == [Proof.BOUNDS]
    assert proof.bounds.upper[1][0] == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_proofs_without_time_hold_all_the_same(seed: int) -> None:
    """Bounds are there, and what takes longer is left to be taken for granted."""
    chain, box = random_chain(seed, 3, 6, 6, 4, shift=1.0), cube(3, -1.0, 1.0)
    stability = decided(chain, box)
    proof = prove_chain(chain, box, stability, Deadline(0.0))
    assert not proof.trees
    truth = enumerate_regions(chain, box)
    for index, ranges in enumerate(truth.ranges):
        for unit, (least, most) in enumerate(ranges):
            assert proof.bounds.lower[index][unit] <= least
            assert most <= proof.bounds.upper[index][unit]
