"""Networks with verdicts, written down by hand, and what holds of every reduction of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Evidence, LayerVerdicts, Stability, Status
from onnx_exact.network import Affine, Box, Chain
from onnx_exact.reduce import ReduceOptions, Reduction, reduce_chain
from onnx_exact.reduce.state import State
from tests.oracle.regions import enumerate_regions, largest_difference

Rows = Sequence[Sequence[float]]
F16, F32, F64 = (np.dtype(f"float{bits}") for bits in (16, 32, 64))
PUBLISHED, ALL = (ReduceOptions(reductions=name) for name in ("published", "all"))
every_kind = pytest.mark.parametrize("options", [PUBLISHED, ALL], ids=["published", "all"])


def affine(weight: Rows, bias: Sequence[float]) -> Affine:
    return Affine(np.array(weight, dtype=np.float64), np.array(bias, dtype=np.float64))


def state(*affines: Affine, low: float = 0.0, high: float = 1.0, dtype: Any = np.float32) -> State:
    """Alternating layers over a box with the same sides everywhere, decided by bounds alone."""
    chain = Chain.of(affines)
    box = Box(np.full(chain.n_in, low), np.full(chain.n_in, high))
    stability = analyze_chain(chain, box, Options(method="bounds"))
    return State.of(chain, stability, box, np.dtype(dtype))


def numbers(state: State) -> list[tuple[list[list[float]], list[float]]]:
    """The weights and biases of every layer."""
    return [
        (layer.affine.weight.tolist(), layer.affine.bias.tolist()) for layer in state.chain.layers
    ]


def reduced(
    chain: Chain,
    box: Box,
    dtype: np.dtype[np.floating[Any]] = F32,
    options: ReduceOptions = PUBLISHED,
    stability: Stability | None = None,
) -> Reduction:
    """The reduction by verdicts from bounds alone, or by those that are given."""
    stability = stability or analyze_chain(chain, box, Options(method="bounds"))
    reduction = reduce_chain(chain, stability, box, dtype, options)
    assert_consistent(chain, reduction, dtype)
    return reduction


def assert_consistent(chain: Chain, reduction: Reduction, dtype: Any) -> None:
    """What holds of every reduction."""
    new = reduction.chain
    assert reduction.changed is (new is not chain)
    assert (new.n_in, new.n_out) == (chain.n_in, chain.n_out)
    assert new.connections <= chain.connections
    assert len(reduction.layers) == len(chain.layers)
    for layer, tally in zip(chain.layers, reduction.layers, strict=True):
        assert tally.units == layer.width
        gone = (tally.removed, tally.negligible, tally.merged, tally.folded)
        assert tally.units == sum(gone) + tally.units_after
        assert min(*gone, tally.units_after) >= 0
    assert sum(t.units_after for t in reduction.layers) == sum(x.width for x in new.layers)
    for layer in new.layers:
        assert 0 not in layer.affine.weight.shape
        for values in (layer.affine.weight, layer.affine.bias):
            np.testing.assert_array_equal(values, values.astype(dtype).astype(np.float64))
    if not reduction.changed:
        assert reduction.removal_only
        assert all(t.units == t.units_after for t in reduction.layers)
    for refusal in reduction.refused:
        assert refusal.reason
        assert all(np.isfinite(number) for number in refusal.numbers.values())


def difference(chain: Chain, new: Chain, box: Box) -> float:
    """The largest difference of any output over the box, exactly."""
    return float(max(largest_difference(enumerate_regions(chain, box).regions, new)))


def verdicts(*statuses: list[Status] | None, bound: float = 10.0) -> Stability:
    """Verdicts as said, with bounds to match."""
    layers = []
    for layer in statuses:
        if layer is None:
            layers.append(None)
            continue
        status = np.array(layer, dtype=np.int8)
        low = np.where(status == Status.ACTIVE, 0.0, -bound)
        high = np.where(status == Status.INACTIVE, 0.0, bound)
        none = np.zeros(status.size, dtype=bool)
        evidence = np.full(status.size, Evidence.LINEAR, dtype=np.int8)
        layers.append(LayerVerdicts(status, evidence, low, high, none, none))
    width = 1
    return Stability(tuple(layers), np.zeros((0, 1)), np.full(width, -bound), np.full(width, bound))
