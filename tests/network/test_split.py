"""Chains with bypasses."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_exact.network import Affine, Layer, SplitChain


def layer(n_in: int, n_out: int, relu: bool = True, seed: int = 0) -> Layer:
    rng = np.random.default_rng(seed)
    return Layer(Affine(rng.normal(size=(n_out, n_in)), rng.normal(size=n_out)), relu)


def test_a_bypass_adds_what_the_layer_before_reads() -> None:
    first, second, third = layer(3, 2), layer(2, 4), layer(4, 1, relu=False)
    around = np.random.default_rng(1).normal(size=(4, 3))
    chain = SplitChain((first, second, third), (None, around, None))
    x = np.random.default_rng(2).normal(size=(50, 3))
    h = np.maximum(first.affine.apply(x), 0)
    h = np.maximum(second.affine.apply(h) + x @ around.T, 0)
    np.testing.assert_array_equal(chain.forward(x), third.affine.apply(h))


def test_what_is_counted() -> None:
    around = np.ones((4, 3))
    chain = SplitChain((layer(3, 2), layer(2, 4, relu=False)), (None, around))
    assert (chain.n_in, chain.n_out, chain.relu_units) == (3, 4, 2)
    assert chain.connections == 3 * 2 + 2 * 4 + 3 * 4
    assert chain.parameters == chain.connections + 2 + 4
    assert chain.input_read.shape == (2 + 4, 3)
    assert SplitChain((layer(3, 2),), (None,)).input_read.shape == (2, 3)


@pytest.mark.parametrize(
    "bypasses",
    [(np.ones((2, 3)), None), (None,), (None, np.ones((4, 2)))],
    ids=["around nothing", "too few", "of another width"],
)
def test_bypasses_that_do_not_fit_are_refused(bypasses: tuple[np.ndarray | None, ...]) -> None:
    with pytest.raises(ValueError, match="bypass"):
        SplitChain((layer(3, 2), layer(2, 4)), bypasses)


def test_layers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="2 outputs feed 5 inputs"):
        SplitChain((layer(3, 2), layer(5, 4)), (None, None))
