"""Chains whose numbers are off: what is said holds of every chain that they may stand for."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from onnx_exact.certify.bounds import Bounds
from onnx_exact.certify.deviation import compare
from onnx_exact.certify.prove import prove_chain
from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Stability, Status
from onnx_exact.network import Affine, Box, Chain
from onnx_exact.network.affine import Error
from onnx_exact.reduce import ReduceOptions, reduce_chain
from onnx_exact.runtime.deadline import Deadline
from tests.nets import LITTLE, cube

SEEDS = range(12)
# Beside the sizes of the errors below, what evaluating a point rounds.
ROUNDING = 1e-9
WIDTHS = {"few inputs": (2, 5, 5, 4, 2), "many inputs": (10, 6, 6, 5, 2)}
every_shape = pytest.mark.parametrize("widths", list(WIDTHS.values()), ids=list(WIDTHS))


def network(seed: int, widths: tuple[int, ...], size: float) -> Chain:
    """Random layers whose entries are off by up to `size`; some of them are exact."""
    rng = np.random.default_rng(seed)
    affines = []
    for n, m in pairwise(widths):
        weight, bias = rng.normal(size=(m, n)) / np.sqrt(n), rng.normal(size=m) * 0.5
        error = None
        if rng.random() < 0.8:
            errors = rng.random((m, n)) * (rng.random((m, n)) < 0.7), rng.random(m)
            error = Error(size * errors[0], size * errors[1])
        affines.append(Affine(weight, bias, error))
    return Chain.of(affines)


def meant(chain: Chain, rng: np.random.Generator) -> Chain:
    """One of the chains that the numbers of a chain may stand for, often an extreme one."""
    affines = []
    for affine in (layer.affine for layer in chain.layers):
        weight, bias = affine.entries.copy(), affine.bias.copy()
        if affine.error is not None:
            weight += affine.error.weight * np.sign(rng.normal(size=weight.shape))
            bias += affine.error.bias * np.sign(rng.normal(size=bias.shape))
        affines.append(Affine(weight, bias))
    return Chain.of(affines)


def points_of(box: Box, stability: Stability, rng: np.random.Generator) -> np.ndarray:
    some = [box.sample(rng, 200), box.corners(rng, 50), stability.witnesses]
    return np.concatenate(some)


@every_shape
@pytest.mark.parametrize("size", [1e-3, 3e-2])
@pytest.mark.parametrize("method", ["bounds", "auto", "isa", "per-unit"])
def test_verdicts_bounds_and_witnesses_hold_whatever_was_meant(
    method: str, size: float, widths: tuple[int, ...]
) -> None:
    seen: Counter[Status] = Counter()
    for seed in SEEDS[:6]:
        chain, box = network(seed, widths, size), cube(widths[0])
        stability = analyze_chain(chain, box, Options(method=method, budgets=LITTLE))
        rng = np.random.default_rng(seed)
        for _ in range(20):
            true = meant(chain, rng)
            values = true.preactivations(points_of(box, stability, rng))
            shown = true.preactivations(stability.witnesses)
            for g, at, verdicts in zip(values, shown, stability.layers, strict=True):
                if verdicts is None:
                    continue
                assert (g <= verdicts.upper + ROUNDING).all()
                assert (g >= verdicts.lower - ROUNDING).all()
                assert (g[:, verdicts.where(Status.INACTIVE)] <= ROUNDING).all()
                assert (g[:, verdicts.where(Status.ACTIVE)] >= -ROUNDING).all()
                for unit in verdicts.where(Status.UNSTABLE):
                    assert at[:, unit].max() > 0.0 > at[:, unit].min()
            outputs = values[-1]
            assert (outputs <= stability.output_upper + ROUNDING).all()
            assert (outputs >= stability.output_lower - ROUNDING).all()
        for status in Status:
            seen[status] += stability.count(status)
    assert min(seen[s] for s in (Status.INACTIVE, Status.ACTIVE, Status.UNSTABLE)) > 0


@every_shape
def test_proofs_hold_whatever_was_meant(widths: tuple[int, ...]) -> None:
    for seed in SEEDS:
        chain, box = network(seed, widths, 1e-2), cube(widths[0])
        stability = analyze_chain(chain, box, Options(method="bounds"))
        bounds = prove_chain(chain, box, stability, Deadline()).bounds
        rng = np.random.default_rng(seed)
        for _ in range(20):
            values = meant(chain, rng).preactivations(points_of(box, stability, rng))
            for g, low, high in zip(values, bounds.lower, bounds.upper, strict=True):
                assert (g <= high + ROUNDING).all()
                assert (g >= low - ROUNDING).all()


@every_shape
@pytest.mark.parametrize("size", [1e-9, 1e-3])
def test_the_deviation_bound_holds_whatever_was_meant(size: float, widths: tuple[int, ...]) -> None:
    """An unchanged layer keeps its nodes, so that what it means is the same in both networks."""
    changed = kept = 0
    for seed in SEEDS:
        chain, box = network(seed, widths, size), cube(widths[0])
        stability = analyze_chain(chain, box, Options(method="bounds"))
        reduction = reduce_chain(chain, stability, box, np.dtype(np.float32), ReduceOptions())
        changed += reduction.changed
        found = compare(
            Bounds.of(chain, stability, box),
            box,
            reduction.chain,
            reduction.origins,
            reduction.gone,
        )
        rng = np.random.default_rng(seed)
        for _ in range(20):
            true = meant(chain, rng)
            same = {id(a): b for a, b in zip(chain.layers, true.layers, strict=True)}
            kept += sum(id(layer) in same for layer in reduction.chain.layers)
            new = Chain(tuple(same.get(id(layer), layer) for layer in reduction.chain.layers))
            points = points_of(box, stability, rng)
            off = np.abs(true.forward(points) - new.forward(points)).max(axis=0)
            assert (off <= found.outputs + ROUNDING).all()
        if not reduction.changed:
            assert found.outputs.max() == 0.0
    assert changed > 3
    assert kept > 3
