"""Channels that are constant but not 0 go as well: their readers get what they made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from tests.labels.graphs import SIDE, Net
from tests.labels.test_graphs import assert_same, narrowed

Made = tuple[str, dict[str, Any]]


def front(net: Net, constant: Sequence[int] = (1, 4), before: int = 2, x: str = "x") -> str:
    """Six channels, some of them a bias alone."""
    y = net.conv(x, before, 6)
    weight, bias = list(net.tensors)[-2:]
    net.tensors[weight][list(constant)] = 0.0
    net.tensors[bias][list(constant)] = np.linspace(0.5, 2.5, len(constant))
    return y


def conv(net: Net, x: str, **options: Any) -> str:
    """Three channels of six."""
    weight = net.constant(net.rng.normal(size=(3, 6, 3, 3)))
    return str(net.add("Conv", [x, weight, net.constant(net.rng.normal(size=3))], **options))


def padded(net: Net) -> str:
    return conv(net, front(net), pads=[1, 1, 1, 1])


def strided(net: Net) -> str:
    return conv(net, front(net), pads=[1, 2, 0, 1], strides=[2, 1], dilations=[1, 2])


def same_padding(net: Net) -> str:
    return conv(net, front(net), auto_pad="SAME_LOWER", strides=[2, 2])


def not_padded(net: Net) -> str:
    return conv(net, front(net))


def without_bias(net: Net) -> str:
    return str(net.add("Conv", [front(net), net.constant(net.rng.normal(size=(3, 6, 3, 3)))]))


def two_readers(net: Net) -> str:
    x = front(net)
    y = conv(net, net.add("Neg", [x]), pads=[1, 1, 1, 1])
    z = conv(net, net.add("Tanh", [x]), pads=[1, 1, 1, 1])
    return str(net.add("Add", [y, z]))


def shared_bias(net: Net) -> str:
    x = front(net)
    bias = net.constant(net.rng.normal(size=3))
    parts = [
        net.add("Conv", [x, net.constant(net.rng.normal(size=(3, 6, 1, 1))), bias])
        for _ in range(2)
    ]
    return str(net.add("Add", parts))


def normalised(net: Net) -> str:
    numbers = [net.constant(net.rng.uniform(0.5, 1.5, size=6)) for _ in range(4)]
    x = net.add("BatchNormalization", [front(net), *numbers])
    return conv(net, net.add("LeakyRelu", [x]), pads=[1, 1, 1, 1])


def depthwise(net: Net) -> str:
    """Its own padding makes the constants differ by position."""
    return conv(net, net.conv(front(net), 6, 6, group=6), pads=[1, 1, 1, 1])


def pooled(net: Net) -> str:
    x = net.add("AveragePool", [front(net)], kernel_shape=[2, 2], strides=[2, 2])
    return conv(net, x, pads=[1, 1, 1, 1])


def flattened(net: Net) -> str:
    return net.head(front(net), 6 * SIDE * SIDE)


def behind_global_pooling(net: Net) -> str:
    return net.head(net.add("GlobalAveragePool", [front(net)]), 6)


def multiplied(net: Net) -> str:
    x = net.add("Transpose", [front(net)], perm=[0, 2, 3, 1])
    return str(net.add("MatMul", [x, net.constant(net.rng.normal(size=(6, 3)))]))


def shuffled(net: Net) -> str:
    x = net.add("Split", [front(net)], outputs=2, axis=1)
    return conv(net, net.add("Concat", [x[1], x[0]], axis=1), pads=[1, 1, 1, 1])


def in_a_row(net: Net) -> str:
    """What reads nothing but constants is a constant as well."""
    y = net.conv(front(net, range(5)), 6, 6)
    weight = list(net.tensors)[-2]
    net.tensors[weight][:2, 5] = 0.0
    return conv(net, y, pads=[1, 1, 1, 1])


def scaled_product(net: Net) -> str:
    flat = net.add("Flatten", [net.add("GlobalMaxPool", [front(net)])])
    weight, bias = net.constant(net.rng.normal(size=(3, 6))), net.constant(net.rng.normal(size=3))
    return str(net.add("Gemm", [flat, weight, bias], transB=1, alpha=0.5, beta=2.0))


def transposed(net: Net) -> str:
    """Overlaps differ at the border."""
    weight = net.constant(net.rng.normal(size=(6, 3, 3, 3)))
    return str(net.add("ConvTranspose", [front(net), weight], strides=[2, 2]))


def given_out(net: Net) -> str:
    return front(net)


def residual(net: Net) -> str:
    """The other summand is no constant."""
    return conv(net, net.add("Add", [front(net), net.conv("x", 2, 6)]), pads=[1, 1, 1, 1])


def grouped(net: Net) -> str:
    weight = net.constant(net.rng.normal(size=(4, 3, 3, 3)))
    return str(net.add("Conv", [front(net), weight], group=2))


# What goes of 6 channels (and of the 6 of a second layer, where there is one).
CASES: list[tuple[Callable[[Net], str], int]] = [
    *((padded, 2), (strided, 2), (same_padding, 2), (not_padded, 2), (without_bias, 2)),
    *((two_readers, 2), (shared_bias, 2), (normalised, 2), (depthwise, 4), (pooled, 2)),
    *((flattened, 2), (behind_global_pooling, 2), (multiplied, 2), (shuffled, 2)),
    *((in_a_row, 7), (scaled_product, 2)),
    *((transposed, 0), (given_out, 0), (residual, 0), (grouped, 0)),
]


def model_of(make: Callable[[Net], str], sizes: Sequence[Any] = (SIDE, SIDE)) -> ModelProto:
    net = Net()
    return net.model(make(net), ("N", 2, *sizes))


@pytest.mark.parametrize(("make", "gone"), CASES, ids=[make.__name__ for make, _ in CASES])
def test_constant_channels_go(make: Callable[[Net], str], gone: int) -> None:
    model = model_of(make)
    found = narrowed(model)
    assert (found is None) == (gone == 0)
    if found is not None:
        assert sum(c.before - c.after for c in found.channels) == gone
        assert_same(model, found.model)
        assert narrowed(found.model) is None


@pytest.mark.parametrize(
    ("make", "gone"), [(not_padded, 2), (padded, 0), (pooled, 0), (same_padding, 0)]
)
def test_where_sizes_are_not_known_only_what_is_alike_everywhere_goes(
    make: Callable[[Net], str], gone: int
) -> None:
    model = model_of(make, ("H", "W"))
    found = narrowed(model)
    assert (sum(c.before - c.after for c in found.channels) if found else 0) == gone


def test_a_map_is_stored_by_what_differs_in_it() -> None:
    net = Net()
    x = front(net, range(5))
    model = net.model(conv(net, x, pads=[1, 1, 1, 1]), ("N", 2, 40, 40))
    found = narrowed(model)
    assert found is not None
    assert_same(model, found.model)
    added = [n for n in found.model.graph.node if n.op_type == "Add"]
    assert len(added) == 1
    largest = max(numpy_helper.to_array(t).size for t in found.model.graph.initializer)
    assert largest < 40 * 40
    assert found.parameters[1] < found.parameters[0]


def test_no_constant_is_lost_where_a_channel_hardly_varies() -> None:
    """A weight near 0 is no 0."""
    net = Net()
    y = padded(net)
    weight = net.tensors["c0"]
    weight[1, 0, 0, 0] = 1e-7
    assert weight[1].any()
    found = narrowed(net.model(y))
    assert found is not None
    assert [(c.before, c.after) for c in found.channels] == [(6, 5)]


def test_no_file_grows_by_its_maps() -> None:
    """Few weights, and positions that all differ."""
    net = Net()
    x = net.add("Mul", [front(net), net.constant(net.rng.uniform(1, 2, size=(1, 1, SIDE, SIDE)))])
    model = net.model(conv(net, x, pads=[1, 1, 1, 1]))
    assert narrowed(model) is None
