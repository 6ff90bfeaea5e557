"""One chain held against another: what is refused, what is reported, what is neither."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper

from onnx_exact import optimize
from onnx_exact.domains import resolve_domain
from onnx_exact.errors import ValidationError
from onnx_exact.graph.locate import locate_chains
from onnx_exact.graph.plain import is_plain
from onnx_exact.graph.splice import splice
from onnx_exact.network import Affine, Box, Chain, Layer
from onnx_exact.network.affine import Error
from onnx_exact.validate import ChainDeviation, Deviation, Rewritten, judge, validate
from onnx_exact.validate.forward import FLOAT64, run_forward
from tests.oracle.exact import exact_layers, outputs
from tests.side_by_side import Input
from tests.validate.networks import X, built, network, normalised, parameters, plain

WIDTH = 6


def moved(chain: Chain, layer: int, by: float) -> Chain:
    """The chain with every weight of a layer larger by a factor of 1 + by, in float32."""
    layers = list(chain.layers)
    old = layers[layer]
    layers[layer] = stored(old.affine.weight * (1.0 + by), old.affine.bias, old.relu)
    return Chain(tuple(layers))


def stored(weight: NDArray[Any], bias: NDArray[Any], relu: bool) -> Layer:
    """A layer in numbers of float32."""
    return Layer(Affine(weight.astype(np.float32), bias.astype(np.float32)), relu)


def judged(
    old: ModelProto,
    network: Chain,
    certified: float | None,
    written: Chain | None = None,
    **changes: Any,
) -> Deviation:
    (located,) = locate_chains(old)
    new = splice(old, [(located, written or network)])
    box = Box(np.zeros(WIDTH), np.ones(WIDTH))
    rewritten = Rewritten(located, network, box, certified, is_plain(old, located))
    return validate(
        old.SerializeToString(),
        new.SerializeToString(),
        [X],
        resolve_domain("0:1", [X], {}),
        original=old,
        chains=[replace(rewritten, **changes)],
    )


def chain_of(made: ModelProto) -> Chain:
    return locate_chains(made)[0].chain


def test_new_chain_within_its_certified_deviation_is_accepted() -> None:
    old = plain()
    off = moved(chain_of(old), 2, 1e-6)
    (chain,) = judged(old, off, certified=1e-3).chains
    assert 1e-8 < chain.float64 < 1e-3
    assert not chain.unexpected


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_new_chain_beyond_its_certified_deviation_is_refused_however_little(layer: int) -> None:
    old = plain()
    with pytest.raises(ValidationError, match="the new chain is not the old one") as caught:
        judged(old, moved(chain_of(old), layer, 1e-6), certified=1e-12)
    assert caught.value.counterexample is not None


def test_written_chain_that_is_not_the_reduced_one_is_refused_whatever_is_certified() -> None:
    old = plain()
    chain = chain_of(old)
    with pytest.raises(ValidationError, match="the chain that was written is not the reduced one"):
        judged(old, chain, certified=1.0, written=moved(chain, 1, 1e-6))


def test_more_than_the_originals_own_rounding_is_reported_not_refused() -> None:
    old = plain()
    (chain,) = judged(old, moved(chain_of(old), 2, 1e-4), certified=1e-2).chains
    assert chain.unexpected
    assert chain.observed > chain.expected > chain.rounding > 0.0


def test_more_than_rounding_can_do_is_refused_where_nothing_is_certified() -> None:
    old = plain()
    judged(old, moved(chain_of(old), 2, 1e-7), certified=None)
    with pytest.raises(ValidationError, match="more than rounding can"):
        judged(old, moved(chain_of(old), 2, 1e-2), certified=None)


def test_what_reading_may_have_rounded_off_is_allowed() -> None:
    old = plain()
    located = locate_chains(old)[0]
    off = moved(located.chain, 2, 1e-7)
    with pytest.raises(ValidationError, match="the new chain is not the old one"):
        judged(old, off, certified=0.0)
    first, second, last = located.chain.layers
    error = Error(np.full(last.affine.weight.shape, 1e-6), np.full(last.affine.bias.shape, 1e-6))
    uncertain = Layer(Affine(last.affine.weight, last.affine.bias, error), relu=False)
    chain = Chain((first, second, uncertain))
    judged(old, off, certified=0.0, located=replace(located, chain=chain))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nodes_that_cancel_in_a_layer_that_stays_are_allowed_their_rounding(dtype: Any) -> None:
    """Reading 2^20 - 2^20 rounds nothing; the nodes, one after another, do."""
    (w0, b0), (w1, b1), (w2, _) = parameters()
    nodes = [
        helper.make_node("Gemm", ["x", "W0", "b0"], ["g0"], transB=1),
        helper.make_node("Relu", ["g0"], ["h0"]),
        helper.make_node("Gemm", ["h0", "W1", "b1"], ["g1"], transB=1),
        helper.make_node("Relu", ["g1"], ["h1"]),
        helper.make_node("Gemm", ["h1", "W2", "high"], ["g2"], transB=1),
        helper.make_node("Sub", ["g2", "high"], ["g3"]),
        helper.make_node("Relu", ["g3"], ["h3"]),
        helper.make_node("Gemm", ["h3", "W3"], ["f"], transB=1),
    ]
    constants = {"W0": w0, "b0": b0, "W1": w1, "b1": b1, "W2": w2, "high": np.full(4, 2.0**20)}
    constants["W3"] = np.random.default_rng(0).normal(size=(2, 4))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    old = built(
        nodes,
        [("f", kind)],
        [Input("x", (None, WIDTH), kind)],
        **{name: v.astype(dtype) for name, v in constants.items()},
    )
    _, report = optimize(old, domain="0:1")
    assert report.changed
    assert report.deviation is not None
    assert not report.deviation.chains[0].unexpected


def test_chain_is_judged_at_points_of_its_domain_alone() -> None:
    """A unit that is off over the domain, and on where rounding in front of the chain leaves it."""
    edge = float(np.float32(1) - np.finfo(np.float32).epsneg)
    first, second = np.eye(WIDTH), np.ones((1, WIDTH))
    bias = np.full(WIDTH, -0.5)
    bias[0] = -edge
    nodes = [
        helper.make_node("Gemm", ["x", "W", "b"], ["g"], transB=1),
        helper.make_node("Relu", ["g"], ["h"]),
        helper.make_node("Gemm", ["h", "V"], ["f"], transB=1),
    ]
    constants = {"W": first, "b": bias, "V": second}
    old = built(nodes, **{name: np.asarray(v, np.float32) for name, v in constants.items()})
    chain = chain_of(old)
    without = Chain(
        (
            Layer(chain.layers[0].affine.rows(np.arange(1, WIDTH)), relu=True),
            Layer(Affine(second[:, 1:], np.zeros(1)), relu=False),
        )
    )
    upper = np.ones(WIDTH)
    with pytest.raises(ValidationError, match="the new chain is not the old one"):
        judged(old, without, certified=0.0)
    upper[0] = edge
    judged(old, without, certified=0.0, box=Box(np.zeros(WIDTH), upper))


def test_nothing_finite_may_become_infinite() -> None:
    """The same numbers over the reals, but for a sum that overflows on the way in float32."""
    nodes, constants = network()
    old = built(nodes, **constants)
    chain = chain_of(old)
    far = 1.5 * 2.0**123
    scales = ((2.0**63, 2.0**63), (far / 2.0**63, far), (1.0 / far, 1.0))
    layers = tuple(
        stored(layer.affine.weight * scale, layer.affine.bias * shift, layer.relu)
        for layer, (scale, shift) in zip(chain.layers, scales, strict=True)
    )
    with pytest.raises(ValidationError, match="nan or infinit"):
        judged(old, Chain(layers), certified=1.0)


def test_chain_that_was_not_read_right_is_refused() -> None:
    """Where a layer was folded from several nodes a runtime does not tell by how much it rounds."""
    old = normalised(np.float32, 0.0)
    (located,) = locate_chains(old)
    wrong = moved(located.chain, 2, 1e-3)
    judged(old, located.chain, certified=0.0)
    with pytest.raises(ValidationError, match="the chain that was read is not the original's"):
        judged(
            old,
            wrong,
            certified=0.0,
            located=replace(located, chain=wrong),
        )


def test_chain_that_reads_another_tensor_is_refused() -> None:
    nodes, constants = network()
    inputs = [X, Input("z", (None, 15))]
    old = built(nodes, inputs=inputs, **constants)
    (located,) = locate_chains(old)
    new = ModelProto()
    new.CopyFrom(old)
    new.graph.node[-1].input[0] = "z"
    rewritten = Rewritten(located, located.chain, Box(np.zeros(6), np.ones(6)), 0.0, True)
    domain = resolve_domain(["x=0:1", "z=0:1"], inputs, {})
    with pytest.raises(ValidationError, match="reads the tensor 'z'"):
        validate(
            old.SerializeToString(),
            new.SerializeToString(),
            inputs,
            domain,
            original=old,
            chains=[rewritten],
        )


@pytest.mark.parametrize("seed", range(20))
def test_float64_values_are_within_their_bounds_of_the_exact_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    widths = (3, 9, 7, 2)
    layers = tuple(
        Layer(Affine(cancelling(rng, m, n), rng.normal(size=m)), relu=m != 2)
        for n, m in pairwise(widths)
    )
    points = rng.normal(size=(5, 3))
    found = run_forward(Chain(layers), points, FLOAT64)
    for row, point in enumerate(points):
        exact = outputs(exact_layers(Chain(layers)), [Fraction(float(v)) for v in point])
        for value, right, bound in zip(found.values[row], exact, found.float64, strict=True):
            assert abs(Fraction(float(value)) - right) <= Fraction(float(bound))
    assert found.float64.max() < 1e-3 * np.abs(found.values).max()


def cancelling(rng: np.random.Generator, m: int, n: int) -> NDArray[np.float64]:
    return rng.normal(size=(m, n)) * 10.0 ** rng.integers(-3, 4, (m, n))


def test_deviation_is_unexpected_beyond_what_rounding_is_expected_to_do() -> None:
    seen = ChainDeviation("f", observed=2.0, rounding=0.1, expected=1.0, float64=0.0)
    assert seen.unexpected
    assert not replace(seen, observed=1.0).unexpected


def test_points_are_judged_some_at_a_time_to_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = plain()
    off = moved(chain_of(old), 2, 1e-7)
    whole = judged(old, off, certified=1e-3)
    monkeypatch.setattr(judge, "ENTRIES_AT_ONCE", 5 * 18)
    assert judged(old, off, certified=1e-3) == whole
    with pytest.raises(ValidationError, match="the new chain is not the old one") as caught:
        judged(old, off, certified=1e-12)
    assert caught.value.counterexample is not None
