"""How far a graph may be off, against what perturbed graphs were seen to be in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnx_exact import optimize
from onnx_exact.domains import domain_of_run
from onnx_exact.graph.doubled import doubled
from onnx_exact.graph.index import Index
from onnx_exact.graph.ranges import Ranges
from onnx_exact.graph.read import inputs_of
from onnx_exact.labels.apart import PASSES, SLOPES, outputs_apart
from onnx_exact.labels.narrow import narrow
from tests.graph.build import run
from tests.labels.graphs import Net
from tests.labels.test_constants import CASES as CONSTANT
from tests.labels.test_constants import model_of

OFF = 1e-3
SHAPE = (2, 4, 6, 6)


def ints(net: Net, *values: int) -> str:
    return net.constant(np.array(values, np.int64))


def weights(net: Net, *shape: int) -> str:
    return net.constant(net.rng.normal(size=shape))


# What a node makes of the tensor "h", which is off.
NODES: dict[str, Callable[[Net, str], str]] = {
    **{
        op: lambda net, h, op=op: net.add(op, [h])  # type: ignore[misc]
        for op in ("Abs", "Identity", "Neg", "Relu", "GlobalAveragePool", "GlobalMaxPool", "Elu")
    },
    **{
        op: lambda net, h, op=op: net.add(op, [h])  # type: ignore[misc]
        for op in ("Flatten", "LeakyRelu", "HardSigmoid", "Celu", "Selu", "Transpose", "Dropout")
    },
    **{
        op: lambda net, h, op=op: net.add(op, [h])  # type: ignore[misc]
        for op in SLOPES
        if op not in ("Gelu", "Selu")
    },
    "Elu, steep": lambda net, h: net.add("Elu", [h], alpha=3.0),
    "LeakyRelu, falling": lambda net, h: net.add("LeakyRelu", [h], alpha=-2.0),
    "HardSigmoid, steep": lambda net, h: net.add("HardSigmoid", [h], alpha=1.5),
    "PRelu": lambda net, h: net.add("PRelu", [h, weights(net, 4, 1, 1)]),
    "Conv": lambda net, h: net.add("Conv", [h, weights(net, 3, 4, 3, 3)], pads=[1] * 4),
    "Conv in groups": lambda net, h: net.add("Conv", [h, weights(net, 4, 2, 3, 3)], group=2),
    "ConvTranspose": lambda net, h: net.add("ConvTranspose", [h, weights(net, 4, 3, 2, 2)]),
    "ConvTranspose in groups": lambda net, h: net.add(
        "ConvTranspose", [h, weights(net, 4, 3, 2, 2)], group=2
    ),
    "Gemm": lambda net, h: net.add(
        "Gemm", [net.add("Flatten", [h]), weights(net, 144, 3), weights(net, 3)], alpha=-2.0
    ),
    "Gemm, turned": lambda net, h: net.add(
        "Gemm", [net.add("Flatten", [h]), weights(net, 3, 144)], transB=1
    ),
    "MatMul": lambda net, h: net.add("MatMul", [h, weights(net, 6, 5)]),
    "MatMul, stacked": lambda net, h: net.add("MatMul", [h, weights(net, 4, 6, 5)]),
    "BatchNormalization": lambda net, h: net.add(
        "BatchNormalization",
        [h, *(weights(net, 4) for _ in "gbm"), net.constant(net.rng.uniform(0.1, 2, 4))],
    ),
    "Add": lambda net, h: net.add("Add", [h, net.add("Neg", [net.add("Sigmoid", [h])])]),
    "Sub": lambda net, h: net.add("Sub", [weights(net, 4, 1, 1), h]),
    "Sum": lambda net, h: net.add("Sum", [h, h, weights(net, 6)]),
    "Max": lambda net, h: net.add("Max", [h, weights(net, 4, 1, 1)]),
    "Min": lambda net, h: net.add("Min", [h, net.add("Neg", [h])]),
    "Mul": lambda net, h: net.add("Mul", [h, net.add("Sigmoid", [h])]),
    "Mul by constants": lambda net, h: net.add("Mul", [weights(net, 4, 1, 1), h]),
    "Clip": lambda net, h: net.add("Clip", [h, net.constant(-0.3), net.constant(0.4)]),
    "Concat": lambda net, h: net.add("Concat", [h, net.add("Relu", [h])], axis=1),
    "AveragePool": lambda net, h: net.add("AveragePool", [h], kernel_shape=[3, 3], pads=[1] * 4),
    "MaxPool": lambda net, h: net.add("MaxPool", [h], kernel_shape=[2, 2]),
    "Pad": lambda net, h: net.add("Pad", [h, ints(net, 0, 0, 1, 1, 0, 0, 0, 1)]),
    "Reshape": lambda net, h: net.add("Reshape", [h, ints(net, 0, -1)]),
    "Slice": lambda net, h: net.add("Slice", [h, ints(net, 1), ints(net, 3), ints(net, 1)]),
    "Split": lambda net, h: net.add("Split", [h], outputs=2, axis=1)[1],
    "Gather": lambda net, h: net.add("Gather", [h, ints(net, 2, 0)], axis=1),
    "Squeeze": lambda net, h: net.add("Squeeze", [net.add("Unsqueeze", [h, ints(net, 0)])]),
    "Expand": lambda net, h: net.add("Expand", [h, ints(net, 3, 1, 1, 1, 1)]),
    "Tile": lambda net, h: net.add("Tile", [h, ints(net, 1, 2, 1, 1)]),
    "DepthToSpace": lambda net, h: net.add(
        "SpaceToDepth", [net.add("DepthToSpace", [h], blocksize=2)], blocksize=3
    ),
    "ReduceMax": lambda net, h: net.add("ReduceMax", [h], axes=[2]),
    "ReduceMean": lambda net, h: net.add("ReduceMean", [h], axes=[1, 2], keepdims=0),
    "ReduceMin": lambda net, h: net.add("ReduceMin", [h], axes=[3]),
    "Resize": lambda net, h: net.add(
        "Resize", [h, "", net.constant(np.array([1, 1, 2, 2], np.float32))], mode="linear"
    ),
    "Cast to the same type": lambda net, h: net.add("Cast", [h], to=1),
}
JUMPS: dict[str, Callable[[Net, str], str]] = {
    "Floor": lambda net, h: net.add("Floor", [h]),
    "ThresholdedRelu": lambda net, h: net.add("ThresholdedRelu", [h]),
    "Cast to half": lambda net, h: net.add("Cast", [net.add("Cast", [h], to=10)], to=1),
    "Exp": lambda net, h: net.add("Exp", [h]),
    "two that vary": lambda net, h: net.add("MatMul", [h, net.add("Relu", [h])]),
    "Gemm, transposed": lambda net, h: net.add(
        "Gemm", [net.add("Flatten", [h]), weights(net, 2, 3)], transA=1
    ),
}


def built(make: Callable[[Net, str], str]) -> ModelProto:
    """`make` behind h = x + e, with e = 0."""
    net = Net(seed=2)
    h = net.add("Add", ["x", net.constant(np.zeros(SHAPE), "e")])
    return net.model(make(net, h), SHAPE)


def with_shift(model: ModelProto, shift: Any) -> ModelProto:
    other = ModelProto()
    other.CopyFrom(model)
    for tensor in other.graph.initializer:
        if tensor.name == "e":
            tensor.CopyFrom(numpy_helper.from_array(shift.astype(np.float32), "e"))
    return other


def bound(model: ModelProto, off: float) -> float:
    domain = domain_of_run("-1:1", inputs_of(model), {}, rebase=False)
    return outputs_apart(Index(model), Ranges(model, domain.boxes).of, {"t0_0": off})


@pytest.mark.parametrize("what", NODES)
def test_outputs_are_never_further_off(what: str) -> None:
    model = built(NODES[what])
    most = bound(model, OFF)
    assert 0.0 < most < math.inf
    rng = np.random.default_rng(7)
    for number in range(12):
        signs = rng.choice([-1.0, 1.0], SHAPE)
        shift = OFF * (signs if number % 2 else rng.uniform(-1, 1, SHAPE))
        x = rng.uniform(-1, 1, SHAPE).astype(np.float32)
        both = (model, with_shift(model, shift))
        a, b = (np.asarray(run(m, {"x": x})[0], np.float64) for m in both)
        assert np.abs(a - b).max() <= most * (1 + 1e-3) + 1e-6 * np.abs(a).max()


@pytest.mark.parametrize("what", JUMPS)
def test_what_has_no_bound_has_none(what: str) -> None:
    model = built(JUMPS[what])
    assert bound(model, OFF) == math.inf
    assert bound(model, 0.0) == 0.0


def test_every_operator_of_the_tables_is_tried() -> None:
    tried = {node.op_type for make in NODES.values() for node in built(make).graph.node}
    # ONNX has Gelu from set 20 on.
    assert (PASSES | SLOPES.keys()) - tried <= {"Gelu"}


def test_what_a_branch_reads_has_no_bound() -> None:
    net = Net()
    h = net.add("Add", ["x", net.constant(np.zeros(SHAPE), "e")])
    inner = helper.make_empty_tensor_value_info("inner")
    parts = [
        helper.make_graph([helper.make_node(op, [h], ["inner"])], op, [], [inner])
        for op in ("Neg", "Abs")
    ]
    flag = net.constant(np.array(True))
    y = net.add("If", [flag], then_branch=parts[0], else_branch=parts[1])
    model = net.model(y, SHAPE)
    assert bound(model, OFF) == math.inf


@pytest.mark.parametrize("make", [make for make, _ in CONSTANT], ids=lambda make: make.__name__)
def test_models_without_constant_channels_are_within_their_bound(
    make: Callable[[Net], str],
) -> None:
    """In float64, where next to nothing is rounded."""
    model = model_of(make)
    domain = domain_of_run("0:1", inputs_of(model), {}, rebase=False)
    twice = doubled(model)
    assert twice is not None
    exact = Ranges(twice, domain.boxes).of
    found = narrow(model, Ranges(model, domain.boxes).of, 1, exact=exact)
    if found is None:
        return
    new = doubled(found.model)
    assert new is not None
    size = [2, *(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:])]
    rng = np.random.default_rng(1)
    sessions = [ReferenceEvaluator(m) for m in (twice, new)]
    for number in range(6):
        x = rng.integers(0, 2, size).astype(float) if number % 2 else rng.random(size)
        for a, b in zip(*(s.run(None, {"x": x}) for s in sessions), strict=True):
            assert np.abs(a - b).max() <= found.deviation + 1e-12 * np.abs(a).max()


def test_constant_channels_stay_where_nothing_bounds_what_they_are_rounded_to() -> None:
    for last, gone in (("Floor", False), ("Relu", True)):
        net = Net()
        x = net.conv("x", 2, 4)
        weight, bias = net.rng.normal(size=(6, 4, 1, 1)), net.rng.normal(size=6)
        weight[[1, 4]], bias[[1, 4]] = 0.0, [0.75, 1.1]
        y = net.add("Conv", [x, net.constant(weight), net.constant(bias)])
        z = net.add("Conv", [y, net.constant(net.rng.normal(size=(3, 6, 1, 1)))])
        model = net.model(net.add(last, [z]))
        _, report = optimize(model, domain="0:1", align=1)
        assert bool(report.channels) is gone
        assert (report.channels_deviation > 0.0) is gone


def test_doubled_models_are_in_float64_and_those_that_name_a_type_are_none() -> None:
    model = built(NODES["Conv"])
    twice = doubled(model)
    assert twice is not None
    x = np.random.default_rng(0).random(SHAPE)
    (y,) = ReferenceEvaluator(twice).run(None, {"x": x})
    (z,) = ReferenceEvaluator(model).run(None, {"x": x.astype(np.float32)})
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, z, rtol=1e-4, atol=1e-5)
    assert doubled(built(NODES["Cast to the same type"])) is None
