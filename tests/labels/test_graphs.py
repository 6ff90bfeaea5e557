"""Channels that can go do, on one graph a feature, and the graph computes what it did."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from onnx_exact.domains import domain_of_run
from onnx_exact.graph.ranges import Ranges
from onnx_exact.graph.read import inputs_of
from onnx_exact.labels.narrow import Narrowed, narrow
from onnx_exact.validate import validate
from tests.labels.graphs import GRAPHS, SIDE, Net, built


def narrowed(model: ModelProto, align: int | None = 1) -> Narrowed | None:
    domain = domain_of_run("0:1", inputs_of(model), {}, rebase=False)
    return narrow(model, Ranges(model, domain.boxes).of, align)


def assert_same(old: ModelProto, new: ModelProto) -> None:
    """In onnxruntime, and as onnx checks it."""
    onnx.checker.check_model(new, full_check=True)
    domain = domain_of_run("0:1", inputs_of(old), {}, rebase=False)
    validate(old.SerializeToString(), new.SerializeToString(), inputs_of(old), domain)
    assert [v.SerializeToString() for v in old.graph.input] == [
        v.SerializeToString() for v in new.graph.input
    ]
    assert [v.SerializeToString() for v in old.graph.output] == [
        v.SerializeToString() for v in new.graph.output
    ]


@pytest.mark.parametrize("what", GRAPHS)
def test_channels_that_can_go_do(what: str) -> None:
    model = built(what)
    before = model.SerializeToString()
    found = narrowed(model)
    assert model.SerializeToString() == before
    gone = sum(c.before - c.after for c in found.channels) if found else 0
    assert gone == GRAPHS[what][1]
    if found is not None:
        assert_same(model, found.model)
        assert [n.op_type for n in found.model.graph.node] == [n.op_type for n in model.graph.node]
        assert narrowed(found.model) is None


@pytest.mark.parametrize(("dead", "left"), [(1, 32), (4, 28), (19, 16), (22, 12), (24, 8), (27, 5)])
def test_as_many_channels_stay_as_a_convolution_reads_fast(dead: int, left: int) -> None:
    net = Net()
    x = net.conv("x", 2, 32, dead=range(dead))
    model = net.model(net.head(net.conv(x, 32, 20, dead=range(3)), 20 * SIDE * SIDE))
    found = narrowed(model, None)
    assert found is not None
    assert_same(model, found.model)
    # What a matrix alone reads may be any number.
    after = {c.before: c.after for c in found.channels}
    assert after == ({20: 17} if left == 32 else {32: left, 20: 17})
    assert narrowed(found.model, None) is None


@pytest.mark.parametrize(("dead", "left"), [(4, 32), (13, 24), (19, 16), (27, 8)])
def test_whole_blocks_of_channels_stay_for_convolutions_of_groups(dead: int, left: int) -> None:
    net = Net()
    x = net.conv("x", 2, 32, dead=range(dead))
    weight, bias = net.rng.normal(size=(32, 1, 3, 3)), np.zeros(32)
    made = net.add("Conv", [x, net.constant(weight), net.constant(bias)], group=32, pads=[1] * 4)
    model = net.model(net.conv(net.add("Relu", [made]), 32, 3))
    found = narrowed(model, None)
    if left == 32:
        assert found is None
        return
    assert found is not None
    assert_same(model, found.model)
    assert {c.after for c in found.channels} == {left}


def test_channels_of_other_than_images_need_no_blocks() -> None:
    net = Net()
    weights = [net.rng.normal(size=(32, 2, 3)), net.rng.normal(size=(3, 32, 3))]
    bias = np.where(np.arange(32) < 19, -3e4, 0.0)
    x = net.add("Conv", ["x", net.constant(weights[0]), net.constant(bias)])
    model = net.model(
        net.add("Conv", [net.add("Relu", [x]), net.constant(weights[1])]), ("N", 2, 9)
    )
    found = narrowed(model, None)
    assert found is not None
    assert [(c.before, c.after) for c in found.channels] == [(32, 13)]


@pytest.mark.parametrize("align", [2, 4])
@pytest.mark.parametrize("what", ["plain", "residual", "Slice", "depthwise", "dense connections"])
def test_channels_stay_a_multiple_where_that_is_asked_for(what: str, align: int) -> None:
    model = built(what)
    found = narrowed(model, align)
    if found is not None:
        assert_same(model, found.model)
        assert all(c.after % align == 0 for c in found.channels)
        assert narrowed(found.model, align) is None


def test_a_dense_network_is_left_to_its_chains() -> None:
    from tests.verifier.build import FIRST, LAST, gemm_model

    assert narrowed(gemm_model([FIRST, LAST])) is None


def test_a_weight_that_is_no_number_keeps_what_it_reads() -> None:
    model = built("plain")
    tensor = next(t for t in model.graph.initializer if list(t.dims) == [4, 6, 3, 3])
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[0, 1, 0, 0] = np.inf
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    found = narrowed(model)
    assert found is None or all(c.before == 4 for c in found.channels)


def test_numbers_computed_of_shapes_are_no_channels() -> None:
    """A scalar goes through a Cast and a Div on its way to the target of a Reshape."""
    net = Net()
    x = net.conv("x", 2, 6, dead=[1])
    count = net.add("Gather", [net.add("Shape", [x]), net.constant(np.array(1))], axis=0)
    half = net.add("Div", [count, net.constant(np.array(2))])
    half = net.add("Cast", [net.add("Cast", [half], to=7)], to=7)
    parts = [
        net.add("Unsqueeze", [half, net.constant(np.array([0]))]),
        net.constant(np.array([-1])),
    ]
    first = net.add(
        "Slice", [net.add("Shape", [x]), *map(net.constant, (np.array([0]), np.array([1])))]
    )
    target = net.add("Concat", [first, *parts], axis=0)
    y = net.add("Reshape", [net.conv(x, 6, 4, dead=[0]), target])
    model = net.model(net.add("Relu", [y]))
    found = narrowed(model)
    if found is not None:
        assert_same(model, found.model)
