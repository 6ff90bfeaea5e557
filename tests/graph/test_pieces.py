"""Operators that are linear in pieces: one piece where the domain leaves no other, or a barrier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from onnx_exact import optimize
from onnx_exact.graph import LocatedChain, Ranges
from onnx_exact.network import Box
from tests.graph.build import Builder, run

Op = Callable[[Builder, str], str]


def number(b: Builder, value: Any) -> str:
    return b.constant(np.asarray(value, np.float32))


OPERATORS: dict[str, Op] = {
    "LeakyRelu": lambda b, x: b.node("LeakyRelu", x, alpha=0.25),
    "LeakyRelu by default": lambda b, x: b.node("LeakyRelu", x),
    "PRelu": lambda b, x: b.node("PRelu", x, number(b, [0.5, -1.0, 0.1, 2.0])),
    "Abs": lambda b, x: b.node("Abs", x),
    "Clip": lambda b, x: b.node("Clip", x, number(b, -1.0), number(b, 2.0)),
    "Clip at 0": lambda b, x: b.node("Clip", x, number(b, 0.0), number(b, 2.0)),
    "Max": lambda b, x: b.node("Max", x, number(b, [0.5, -1.0, 0.0, 2.0])),
    "Min": lambda b, x: b.node("Min", x, number(b, 1.0)),
    "HardSigmoid": lambda b, x: b.node("HardSigmoid", x),
    "HardSigmoid alpha": lambda b, x: b.node("HardSigmoid", x, alpha=0.7, beta=0.3),
    "ThresholdedRelu": lambda b, x: b.node("ThresholdedRelu", x, alpha=0.0),
}
SPREADS = [(-3.0, -2.5), (-0.9, -0.1), (-0.5, 0.5), (0.1, 0.9), (0.6, 1.4), (2.5, 4.0), (-4.0, 4.0)]


def model_of(name: str, low: float, high: float) -> tuple[ModelProto, Any]:
    """Units that go from `low` to `high`, the operator, and a layer behind it."""
    b = Builder()
    middle, radius = (low + high) / 2.0, (high - low) / 2.0
    y = b.node("Gemm", "x", number(b, radius * np.eye(4)), number(b, np.full(4, middle)))
    y = b.node("Gemm", OPERATORS[name](b, y), b.weight(4, 3), b.weight(3))
    model = b.model([b.relu(y)], {"x": ["batch", 4]})
    return model, {"x": Box(-np.ones((1, 4)), np.ones((1, 4)))}


def is_joined(chains: tuple[LocatedChain, ...]) -> bool:
    """Whether one chain holds both layers."""
    return any(sum(len(site.dense) for site in chain.sites) == 2 for chain in chains)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("spread", SPREADS)
def test_chain_that_goes_through_an_operator_computes_what_it_does(
    name: str, spread: tuple[float, float]
) -> None:
    model, domain = model_of(name, *spread)
    points = np.random.default_rng(0).uniform(-1, 1, (200, 4)).astype(np.float32)
    points[0], points[1] = -1.0, 1.0
    for chain in Ranges(model, domain).chains:
        before, after = run(model, {"x": points}, [chain.input, chain.output])
        np.testing.assert_allclose(chain.chain.forward(before), after, atol=1e-5)
    new, _ = optimize(model, domain="-1:1")
    (old,), (found,) = run(model, {"x": points}), run(new, {"x": points})
    np.testing.assert_allclose(found, old, atol=1e-5)


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_is_gone_through_where_it_has_one_piece_and_nowhere_else(name: str) -> None:
    joined = [is_joined(Ranges(*model_of(name, *spread)).chains) for spread in SPREADS]
    assert any(joined)
    whole = name in ("ThresholdedRelu",)
    assert joined[-1] == whole


def test_without_a_domain_only_what_is_a_relu_everywhere_is_one() -> None:
    through = []
    for name in OPERATORS:
        model, _ = model_of(name, -0.5, 0.5)
        if any(chain.chain.relu_units > 3 for chain in Ranges(model, {}).chains):
            through.append(name)
    assert through == ["ThresholdedRelu"]


def test_clip_at_a_ceiling_is_a_relu_below_it_alone() -> None:
    for high, units in ((1.9, 7), (2.1, 3)):
        model, domain = model_of("Clip at 0", -1.0, high)
        assert sum(chain.chain.relu_units for chain in Ranges(model, domain).chains) == units


def test_pieces_are_left_alone_where_they_are_not_wanted() -> None:
    model, domain = model_of("LeakyRelu", 0.1, 0.9)
    assert is_joined(Ranges(model, domain).chains)
    assert not is_joined(Ranges(model, domain, checked=True).chains)
