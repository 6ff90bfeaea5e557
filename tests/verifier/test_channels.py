"""Channels that went: honest results are accepted, whatever else is said of them is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from onnx_exact.domains import domain_of_run
from onnx_exact.errors import NotVerifiedError, UncheckedError
from onnx_exact.graph.ranges import Ranges
from onnx_exact.graph.read import inputs_of
from onnx_exact.labels.narrow import Narrowed, narrow
from onnx_exact.network import Box
from onnx_exact.pipeline import optimize_file
from onnx_exact.stages.checkable import against_channels
from onnx_exact.verified import verify
from onnx_exact.verifier.channels import RULES
from tests.labels.graphs import GRAPHS, SIDE, Net, built
from tests.verifier.build import Written, read

# Nothing goes in these, or what LSTM makes is nothing that the checker knows to be 0.
STAY = {"grouped", "LSTM in front", "flattened to a number"}
REFUSED = (NotVerifiedError, UncheckedError)
CERTIFIED = [what for what in GRAPHS if what not in STAY]
TRIALS = 25


def written(model: ModelProto, folder: Path) -> Written:
    old, new, certificate = (folder / name for name in ("in.onnx", "out.onnx", "proof.npz"))
    onnx.save(model, old)
    optimize_file(old, new, domain="0:1", certificate=certificate, align=1)
    return read(old, new, certificate)


def outputs(model: ModelProto, points: list[dict[str, Any]]) -> list[Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return [value for point in points for value in session.run(None, point)]


@cache
def points_of(what: str) -> list[dict[str, Any]]:
    """Inputs of a graph, corners of the domain among them."""
    rng, found = np.random.default_rng(3), []
    for number in range(6):
        point = {}
        for value in built(what).graph.input:
            tensor = value.type.tensor_type
            sizes = [dim.dim_value or 8 - 6 * (k == 0) for k, dim in enumerate(tensor.shape.dim)]
            kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            drawn = rng.integers(0, 2, sizes) if number % 2 else rng.random(sizes)
            point[value.name] = np.asarray(drawn).astype(kind)
        found.append(point)
    return found


def assert_the_same(what: str, old: ModelProto, new: ModelProto) -> None:
    for a, b in zip(*(outputs(m, points_of(what)) for m in (old, new)), strict=True):
        size = 1.0 + np.abs(a.astype(float)).max(initial=0.0)
        assert a.shape == b.shape
        assert (
            np.abs(a.astype(float) - b).max(initial=0.0)
            <= (2e-3 if what == "float16" else 1e-5) * size
        )


@pytest.mark.parametrize("what", GRAPHS)
def test_honest_results_are_verified(what: str, tmp_path: Path) -> None:
    made = written(built(what), tmp_path)
    assert verify(made.old, made.new, made.certificate).verified
    assert ("channels" in made.header) is (what not in STAY)
    assert_the_same(what, onnx.load(made.old), onnx.load(made.new))


def test_every_rule_is_tried() -> None:
    through = set()
    for what in GRAPHS:
        found = honest(what)
        for node in built(what).graph.node if found else ():
            if found is not None and found.cuts.keys() & {*node.input, *node.output}:
                through.add(node.op_type)
    entrywise = {op for op, rule in RULES.items() if rule is RULES["Relu"]}
    assert RULES.keys() - entrywise - through <= {
        "ReduceMax",
        "ReduceMin",
        "ReduceSum",
        "Squeeze",
        "Unsqueeze",
        "Upsample",
    }


def honest(what: str) -> Narrowed | None:
    model = built(what)
    return narrow(model, bounds_of(model), 1, constants=False)


def bounds_of(model: ModelProto) -> Callable[[str], Box]:
    domain = domain_of_run("0:1", inputs_of(model), {}, rebase=False)
    return Ranges(model, domain.boxes, checked=True).of


def lying(model: ModelProto, seed: int) -> Callable[[str], Box]:
    """Bounds that say of some channels that they are always 0."""
    truth, made = bounds_of(model), {name for node in model.graph.node for name in node.output}

    def bounds(tensor: str) -> Box:
        box = truth(tensor)
        if tensor not in made or box.lower.ndim < 2:
            return box
        rng = np.random.default_rng([seed, *tensor.encode()])
        count, flat = box.lower.shape[1], box.lower.ndim == 2
        # What was flattened has as many entries for each channel.
        each = SIDE**2 if flat and count % SIDE**2 == 0 else 1
        gone = (rng.random(count // each) < 0.25).repeat(each)
        gone = gone.reshape(1, count, *[1] * (box.lower.ndim - 2))
        return Box(*(np.where(gone, 0.0, side) for side in (box.lower, box.upper)))

    return bounds


@pytest.mark.parametrize("what", CERTIFIED)
def test_a_result_that_rests_on_a_lie_about_zeros_is_refused(what: str) -> None:
    """Whatever is accepted all the same computes what the original does."""
    model = built(what)
    domain = domain_of_run("0:1", inputs_of(model), {}, rebase=False)
    refused = 0
    for seed in range(TRIALS):
        found = narrow(model, lying(model, seed), 1, constants=False)
        if found is None:
            continue
        if against_channels(source_of(model), found, domain):
            refused += 1
        else:
            assert_the_same(what, model, found.model)
    assert refused or what in (
        "channels that nobody reads",
        "groups that nobody reads",
        "all channels dead",
        "shifted by position",
    )


def source_of(model: ModelProto) -> Any:
    from onnx_exact.graph.read import read_model

    return read_model(model)


def forged(made: Written, model: ModelProto) -> Written:
    """The same certificate for another result."""
    onnx.save(model, made.new)
    data = made.new.read_bytes()
    mark = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    return made.changed({"result": mark})


def changed_constants(model: ModelProto) -> Iterator[ModelProto]:
    """The model with one number of one constant changed, each constant in turn."""
    for place, tensor in enumerate(model.graph.initializer):
        values = numpy_helper.to_array(tensor).copy()
        if not values.size or tensor.data_type == TensorProto.BOOL:
            continue
        for at in {0, values.size - 1}:
            other = ModelProto()
            other.CopyFrom(model)
            anew = values.copy()
            anew.reshape(-1)[at] += 1
            other.graph.initializer[place].CopyFrom(numpy_helper.from_array(anew, tensor.name))
            yield other


@pytest.mark.parametrize("what", CERTIFIED)
def test_a_result_with_another_number_is_refused(what: str, tmp_path: Path) -> None:
    made = written(built(what), tmp_path)
    honest = onnx.load(made.new)
    for other in changed_constants(honest):
        lie = forged(made, other)
        try:
            verify(lie.old, lie.new, lie.certificate)
        except REFUSED:
            continue
        except onnx_errors():
            continue
        # What is not read, or has no effect over the domain.
        assert_the_same(what, onnx.load(made.old), other)


def onnx_errors() -> tuple[type[Exception], ...]:
    from onnx_exact.errors import ModelError

    return (ModelError,)


def lies_about_cuts(made: Written) -> Iterator[Written]:
    """Other things to say of the channels of an honest result."""
    heads = made.header["channels"]
    for number, head in enumerate(heads):
        name = f"k{number}_kept"
        kept = made.arrays[name]
        for other in (np.roll(kept, 1), ~kept, np.ones_like(kept), np.zeros_like(kept), kept[:-1]):
            if not np.array_equal(other, kept):
                yield made.changed(**{name: other})
        yield made.changed(**{name: np.append(kept, True)})
        yield made.changed(**{name: kept.astype(np.uint8)})
        yield made.changed(**{name: None})
        for axis in (0, head["axis"] + 1, -3, "1", True, None, 2**70):
            if axis != head["axis"] or axis is True:
                yield made.changed(
                    {"channels": [*heads[:number], head | {"axis": axis}, *heads[number + 1 :]]}
                )
        for tensor in ("nothing", "x", heads[number - 1]["tensor"] if len(heads) > 1 else "", 5):
            yield made.changed(
                {"channels": [*heads[:number], head | {"tensor": tensor}, *heads[number + 1 :]]}
            )
    for channels in ([], None, {}, [[]], heads[:-1], [*heads, heads[0]]):
        yield made.changed({"channels": channels})


@pytest.mark.parametrize("what", ["plain", "residual", "Slice", "depthwise", "Reshape", "Split"])
def test_other_things_said_of_channels_are_refused(what: str, tmp_path: Path) -> None:
    made = written(built(what), tmp_path)
    count = 0
    for lie in lies_about_cuts(made):
        count += 1
        with pytest.raises(REFUSED):
            verify(lie.old, lie.new, lie.certificate)
    assert count > 20


def test_channels_of_another_domain_are_refused(tmp_path: Path) -> None:
    """Channels that are dead over [0, 1] are not over [0, 1e6]."""
    made = written(built("plain"), tmp_path)
    sides = {"lower": 0.0, "upper": 1e6}
    model = onnx.load(made.new)
    del model.metadata_props[:]
    lie = forged(made, model).changed({"domain": {"x": sides}})
    with pytest.raises(UncheckedError, match="may not be 0"):
        verify(lie.old, lie.new, lie.certificate)


def test_an_output_that_would_be_cut_is_refused() -> None:
    model = built("given out")
    found = honest("given out")
    assert found is not None
    name = next(v.name for v in model.graph.output)
    cuts = found.cuts | {name: {1: np.array([True, True, False])}}
    domain = domain_of_run("0:1", inputs_of(model), {}, rebase=False)
    assert "would be cut" in against_channels(source_of(model), replace(found, cuts=cuts), domain)


def test_a_constant_that_is_given_out_is_not_cut() -> None:
    model = built("plain")
    found = honest("plain")
    assert found is not None
    weight = next(n for n in model.graph.node if n.op_type == "Conv").input[1]
    sizes = next(list(t.dims) for t in model.graph.initializer if t.name == weight)
    for made in (model, found.model):
        given = onnx.helper.make_tensor_value_info(weight, TensorProto.FLOAT, sizes)
        made.graph.output.append(given)
    domain = domain_of_run("0:1", inputs_of(model), {}, rebase=False)
    assert against_channels(source_of(model), found, domain)


def test_a_cut_that_training_would_see_is_refused() -> None:
    """A Dropout that may train draws for all entries."""
    net = Net()
    x = net.conv("x", 2, 6, dead=[1])
    y = net.add("Dropout", [x, net.constant(np.float32(0.5)), net.constant(np.array(True))])
    model = net.model(net.conv(y, 6, 3))
    found = narrow(model, bounds_of(model), 1, constants=False)
    assert found is None


def refusal(
    net: Net, output: str, cuts: dict[str, Any], shape: Sequence[Any] = ("N", 2, SIDE, SIDE)
) -> str:
    """Why a result that is the original is none for these cuts."""
    model = net.model(output, shape)
    found = honest("plain")
    assert found is not None
    domain = domain_of_run("0:1", inputs_of(model), {}, rebase=False)
    return against_channels(source_of(model), replace(found, model=model, cuts=cuts), domain)


def test_a_constant_behind_an_identity_is_not_cut() -> None:
    net = Net()
    same = net.add("Identity", [net.constant(net.rng.normal(size=(1, 2, 1, 1)))])
    output = net.add("Add", ["x", same])
    assert "the constant" in refusal(net, output, {same: {1: np.array([True, False])}})


def test_channels_beside_a_slice_along_an_open_axis_stay() -> None:
    """Its size may be another one between those that are tried."""
    net = Net()
    x = net.conv("x", 2, 6, dead=[1])
    ends = (net.constant(np.array([value])) for value in (3, -3, 3, -1))
    y = net.add("Slice", [x, *ends])
    output = net.conv(y, 6, 3)
    cuts = {"t0_0": {1: np.arange(6) != 1}}
    assert "an open Slice" in refusal(net, output, cuts, ("N", 2, SIDE, "W"))


def test_channels_that_may_not_be_numbers_are_read_even_with_weights_of_0() -> None:
    net = Net()
    x = net.add("Conv", ["x", net.constant(net.rng.normal(size=(4, 2, 1, 1)))])
    root, weight = net.add("Sqrt", [x]), net.rng.normal(size=(3, 4, 1, 1))
    weight[:, 1] = 0.0
    model = net.model(net.add("Conv", [root, net.constant(weight)]))
    found = narrow(model, bounds_of(model), 1, constants=False)
    assert found is not None
    domain = domain_of_run("0:1", inputs_of(model), {}, rebase=False)
    assert "nothing bounds" in against_channels(source_of(model), found, domain)


KEPT = np.arange(6) != 1


def refusal_without(model: ModelProto, along: dict[str, int], *cut: str) -> str:
    """Why the model without entry 1 of some constants, along these axes, and of tensors is none."""
    new = ModelProto()
    new.CopyFrom(model)
    for tensor in new.graph.initializer:
        if tensor.name in along:
            values = numpy_helper.to_array(tensor).compress(KEPT, axis=along[tensor.name])
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    found = honest("plain")
    assert found is not None
    made = replace(found, model=new, cuts={name: {1: KEPT} for name in cut})
    domain = domain_of_run("0:1", inputs_of(model), {}, rebase=False)
    return against_channels(source_of(model), made, domain)


def quantised_filters(net: Net) -> str:
    """Filters of which the second one's numbers are 0."""
    weight = net.rng.integers(1, 127, size=(6, 2, 3, 3)).astype(np.int8)
    weight[1] = 0
    constants = net.constant(weight, "stored"), net.constant(np.array(0.01), "scale")
    return str(net.add("DequantizeLinear", constants))


def test_quantised_filters_of_0_go() -> None:
    net = Net()
    x = net.add("Relu", [net.add("Conv", ["x", quantised_filters(net)], pads=[1] * 4)])
    last = net.constant(net.rng.normal(size=(3, 6, 1, 1)), "last")
    model = net.model(net.add("Conv", [x, last]))
    assert not refusal_without(model, {"stored": 0, "last": 1}, "t1_0", "t2_0")


def test_a_quantised_weight_that_another_node_reads_stays() -> None:
    net = Net()
    real = quantised_filters(net)
    x = net.add("Relu", [net.add("Conv", ["x", real], pads=[1] * 4)])
    last = net.constant(net.rng.normal(size=(3, 6, 1, 1)), "last")
    y = net.add("Add", [net.add("Conv", [x, last]), net.add("ReduceMax", [real], keepdims=0)])
    said = refusal_without(net.model(y), {"stored": 0, "last": 1}, "t1_0", "t2_0")
    assert "reads beside its input" in said


def test_a_quantised_weight_is_not_cut_itself() -> None:
    net = Net()
    real = quantised_filters(net)
    output = net.conv(net.add("Conv", ["x", real], pads=[1] * 4), 6, 3)
    assert "the constant" in refusal(net, output, {real: {0: KEPT}})


@pytest.mark.parametrize("index", [1, -3, 0, 2])
def test_the_number_of_channels_is_not_read_where_some_have_gone(index: int) -> None:
    net = Net()
    x = net.conv("x", 2, 6, dead=[1])
    size = net.add("Gather", [net.add("Shape", [x]), net.constant(np.array(index))])
    y = net.add("Add", [net.conv(x, 6, 3), net.add("Cast", [size], to=TensorProto.FLOAT)])
    said = refusal_without(net.model(y), {"c0": 0, "c1": 0, "c3": 1}, "t0_0", "t1_0")
    assert ("a size of what is cut" in said) is (index in (1, -3))


def test_a_reshape_to_the_number_of_channels_is_refused() -> None:
    """Whoever reads sizes whole reads that of the channels too."""
    net = Net()
    x = net.conv("x", 2, 6, dead=[1])
    y = net.add("Reshape", [x, net.add("Shape", [x])])
    model = net.model(net.conv(y, 6, 3))
    said = refusal_without(model, {"c0": 0, "c1": 0, "c2": 1}, "t0_0", "t1_0", "t3_0")
    assert "sizes of what is cut" in said
