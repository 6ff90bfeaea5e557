"""What is done before deciding: exact, and the verdicts on it hold of the chain itself."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.reducing.inflations import KINDS, Setting, f32, inflated
from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Stability, Status
from onnx_exact.network import Affine, Box, Chain
from onnx_exact.reduce.simplify import by_intervals, carried_back, simplified
from tests.nets import cube, random_chain

F32 = np.dtype(np.float32)
EXACT = ("duplicates", "multiples", "negatives", "always_on", "constants", "split", "split_scaled")
BOUNDS = Options(method="bounds")


def larger(seed: int, *names: str) -> tuple[Chain, Chain, Box]:
    original = random_chain(seed, 3, 6, 6, 2, shift=0.5)
    affines = [layer.affine for layer in original.layers]
    layers = [(f32(a.weight), f32(a.bias)) for a in affines]
    made = inflated(layers, names, Setting(np.random.default_rng(seed), 1.0, True))
    return (
        Chain.of([Affine(*pair) for pair in layers]),
        Chain.of([Affine(*pair) for pair in made]),
        cube(3),
    )


def decided(chain: Chain, box: Box) -> Stability:
    found = simplified(chain, box)
    own = analyze_chain(chain, box, BOUNDS)
    return (
        own if found is None else carried_back(own, found, analyze_chain(found.chain, box, BOUNDS))
    )


@pytest.mark.parametrize("name", EXACT)
def test_what_was_put_in_is_gone_before_deciding(name: str) -> None:
    smaller = 0
    for seed in range(5):
        original, chain, box = larger(seed, name)
        found = simplified(chain, box)
        assert found is not None
        x = box.sample(np.random.default_rng(0), 50)
        np.testing.assert_allclose(found.chain.forward(x), chain.forward(x), rtol=1e-12, atol=1e-12)
        smaller += found.chain.relu_units <= original.relu_units
    assert smaller >= 4


@pytest.mark.parametrize("name", KINDS)
def test_verdicts_and_bounds_hold(name: str) -> None:
    for seed in range(4):
        _, chain, box = larger(seed, name)
        rng = np.random.default_rng(1)
        points = np.vstack([box.sample(rng, 300), box.corners(rng, 8)])
        stability = decided(chain, box)
        for verdicts, g in zip(stability.layers, chain.preactivations(points), strict=True):
            if verdicts is None:
                continue
            room = 1e-9 * (1.0 + np.abs(g).max())
            assert (g >= verdicts.lower - room).all()
            assert (g <= verdicts.upper + room).all()
            assert (g[:, verdicts.status == Status.ACTIVE] >= -room).all()
            assert (g[:, verdicts.status == Status.INACTIVE] <= room).all()


def test_a_split_network_is_decided_as_well_as_the_original() -> None:
    for seed in range(5):
        original, chain, box = larger(seed, "split_scaled")
        plain = analyze_chain(chain, box, BOUNDS).count(Status.UNDECIDED)
        by_way = decided(chain, box).count(Status.UNDECIDED)
        assert by_way <= plain
        wanted = analyze_chain(original, box, BOUNDS)
        found = simplified(chain, box)
        assert found is not None
        assert analyze_chain(found.chain, box, BOUNDS).count(Status.UNSTABLE) >= wanted.count(
            Status.UNSTABLE
        ) - wanted.count(Status.UNDECIDED)


def test_a_chain_of_which_units_are_removed_alone_is_decided_as_it_is() -> None:
    chain = random_chain(3, 3, 6, 6, 2, shift=-0.5)
    assert simplified(chain, cube(3)) is None


def test_intervals_say_what_they_say() -> None:
    chain = Chain.of(
        [
            Affine(np.array([[1.0], [-1.0], [1.0]]), np.array([0.0, 0.0, -0.5])),
            Affine(np.ones((1, 3)), np.zeros(1)),
        ]
    )
    (first, last) = by_intervals(chain, cube(1)).layers
    assert last is None
    assert first is not None
    assert first.status.tolist() == [Status.ACTIVE, Status.INACTIVE, Status.UNDECIDED]
