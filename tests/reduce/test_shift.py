"""`--goal verify`: what plain intervals see of a reduced network is what was decided."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.goals import unstable
from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Status
from onnx_exact.domains import resolve_domain
from onnx_exact.graph.locate import locate_chains
from onnx_exact.graph.ranges import Ranges
from onnx_exact.graph.read import inputs_of
from onnx_exact.methods import DEPLOY, VERIFY
from onnx_exact.network import Affine, Box, Chain
from onnx_exact.pipeline import optimize
from onnx_exact.reduce import ReduceOptions, reduce_chain
from onnx_exact.reduce.shift import shifted
from tests.oracle.networks import random_case
from tests.reduce.states import affine, state

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
CASES = {
    "mnist_2x100_l1": (ROOT / "models" / "mnist_2x100_l1.onnx", "mnistfc_prop_1_0.05.vnnlib"),
    "mnist-net_256x2": (SHARED / "models" / "mnist-net_256x2.onnx", "mnistfc_prop_1_0.05.vnnlib"),
    "mnist-net_256x4": (SHARED / "models" / "mnist-net_256x4.onnx", "mnistfc_prop_0_0.03.vnnlib"),
}
# Intervals are so wide here that the budgets do not admit every shift.
DEEP = [SHARED / "models" / f"ACASXU_run2a_{net}_batch_2000.onnx" for net in ("1_1", "3_3")]


def unstable_by_intervals(chain: Chain, box: Box) -> int:
    return unstable(chain, box.lower, box.upper)


def left(path: Path, where: str, goal: str) -> tuple[int, int]:
    """What is unstable by intervals after reducing, and what was not decided as stable."""
    domain = SHARED / "domains" / where
    if not (path.exists() and domain.exists()):
        pytest.skip(f"{path.name} or {where} is not there")
    new, report = optimize(path, domain=str(domain), method="bounds", goal=goal)
    assert report.totals.connections_after is not None
    assert report.totals.connections_after < report.totals.connections_before
    (located,) = locate_chains(new)
    boxes = resolve_domain(domain, inputs_of(new), {}).boxes
    box = Ranges(new, boxes).chain_domain(located).box
    layers = report.chains[0].layers
    open_ = sum(layer.unstable + layer.undecided for layer in layers)
    return unstable_by_intervals(located.chain, box), open_


@pytest.mark.parametrize("name", CASES)
def test_what_is_unstable_by_intervals_is_unstable(name: str) -> None:
    found, open_ = left(*CASES[name], VERIFY)
    assert found <= open_


@pytest.mark.parametrize("path", DEEP, ids=lambda path: path.stem)
def test_less_is_unstable_by_intervals_than_without_the_goal(path: Path) -> None:
    found, deployed = (left(path, "acasxu_prop_3.vnnlib", goal)[0] for goal in (VERIFY, DEPLOY))
    assert found < deployed


def test_a_unit_is_lifted_by_what_intervals_fall_short_of() -> None:
    """relu(x + y) - relu(x) + 1/4 = y + 1/4 is active, but intervals give it -3/4."""
    before = state(
        affine([[1, 0], [1, 1]], [0, 0]),
        affine([[-1, 1], [1, -1]], [0.25, 0.5]),
        affine([[1, 1]], [0.25]),
    )
    assert before.layers[1].status.tolist() == [Status.ACTIVE, Status.UNSTABLE]
    after = shifted(before, 1.0)
    lifted = after.chain.layers[1].affine.bias
    assert 1.0 <= lifted[0] <= 1.0 + 1e-6
    assert lifted[1] == 0.5
    assert after.chain.layers[2].affine.bias.tolist() == [0.25 - (lifted[0] - 0.25)]
    x = np.random.default_rng(0).random((50, 2))
    np.testing.assert_allclose(after.chain.forward(x), before.chain.forward(x), atol=1e-7)
    assert after.layers[1].origin.place.tolist() == [-1, 1]


def test_a_unit_that_may_not_be_rounded_stays() -> None:
    third = float(np.float32(1 / 3))
    before = state(
        affine([[1, 0], [1, 1]], [0, 0]),
        affine([[-third, third], [1, -1]], [0, 0.5]),
        Affine(np.array([[third, 1.0]]), np.array([third])),
    )
    assert shifted(before, 0.0) is before


@pytest.mark.parametrize("family", ["normal", "dyadic"])
def test_a_lifted_network_is_not_called_one_with_units_removed_alone(family: str) -> None:
    """Also where the published reductions did nothing but remove units before."""
    removed = 0
    for seed in range(40):
        case = random_case(family, seed)
        stability = analyze_chain(case.chain, case.box, Options())
        options = ReduceOptions(reductions="published", goal="verify")
        found = reduce_chain(case.chain, stability, case.box, np.dtype(np.float32), options)
        points = case.box.sample(np.random.default_rng(0), 50)
        before, after = (chain.forward(points) for chain in (case.chain, found.chain))
        if found.changed and found.removal_only:
            removed += 1
            np.testing.assert_allclose(after, before, rtol=1e-12, atol=1e-12)
    assert removed
