"""What a file says beside what it computes, where channels go; and what `optimize` makes of it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from onnx_exact.cli import main
from onnx_exact.pipeline import optimize, optimize_file
from onnx_exact.report.text import lines, to_text
from tests.labels.graphs import Net, built
from tests.labels.test_constants import flattened, model_of, padded
from tests.labels.test_graphs import assert_same, narrowed


def test_words_stay_and_shapes_are_corrected() -> None:
    model = built("plain")
    for tensor in model.graph.initializer:
        tensor.doc_string = f"about {tensor.name}"
    for node in model.graph.node:
        node.doc_string = "layer"
    inferred = onnx.shape_inference.infer_shapes(model)
    model.graph.value_info.extend(inferred.graph.value_info)
    found = narrowed(model)
    assert found is not None
    assert [t.doc_string for t in found.model.graph.initializer] == [
        t.doc_string for t in model.graph.initializer
    ]
    assert all(node.doc_string == "layer" for node in found.model.graph.node)
    assert_same(model, found.model)
    channels = {
        v.name: v.type.tensor_type.shape.dim[1].dim_value for v in found.model.graph.value_info
    }
    assert channels["t0_0"] == 4


def test_what_is_said_of_how_a_tensor_is_quantised_goes_with_its_size() -> None:
    model = built("plain")
    for name in ("t0_0", "x", model.graph.initializer[0].name):
        annotation = model.graph.quantization_annotation.add(tensor_name=name)
        pair = annotation.quant_parameter_tensor_names.add()
        pair.key, pair.value = "SCALE_TENSOR", model.graph.initializer[1].name
    new, report = optimize(model, domain="0:1", align=1)
    assert [a.tensor_name for a in new.graph.quantization_annotation] == ["x"]
    assert sum("quantization annotation" in w for w in report.warnings) == 2


def test_a_constant_that_may_be_overridden_is_not_cut() -> None:
    model = built("plain")
    weight = next(t for t in model.graph.initializer if list(t.dims) == [4, 6, 3, 3])
    value = helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
    model.graph.input.append(value)
    found = narrowed(model)
    assert found is None or all(c.before != 6 for c in found.channels)


def test_the_report_names_what_went(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(built("residual"), tmp_path / "in.onnx")
    out = tmp_path / "out.onnx"
    arguments = ["optimize", str(tmp_path / "in.onnx"), str(out), "--domain", "0:1"]
    assert main([*arguments, "--align", "1"]) == 0
    text = capsys.readouterr().out
    assert "Channels that are constant or not read are gone" in text
    assert "6 to 5" in text
    report = optimize_file(tmp_path / "in.onnx", tmp_path / "2.onnx", domain="0:1", align=1)
    data = report.to_json_dict()
    assert report.changed
    assert {"node": "t0_0", "before": 6, "after": 5} in data["channels"]
    assert data["graph_parameters"]["after"] < data["graph_parameters"]["before"]


def test_a_second_run_copies_what_the_first_one_wrote(tmp_path: Path) -> None:
    onnx.save(built("dense connections"), tmp_path / "in.onnx")
    optimize_file(tmp_path / "in.onnx", tmp_path / "1.onnx", domain="0:1", align=1)
    report = optimize_file(tmp_path / "1.onnx", tmp_path / "2.onnx", align=1)
    assert not report.changed
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes()


@pytest.mark.parametrize(("what", "go"), [("plain", True), ("QDQ", True), ("LSTM in front", False)])
def test_channels_of_which_a_certificate_cannot_speak_stay(
    what: str, go: bool, tmp_path: Path
) -> None:
    onnx.save(built(what), tmp_path / "in.onnx")
    report = optimize_file(
        *(tmp_path / name for name in ("in.onnx", "out.onnx")),
        domain="0:1",
        align=1,
        certificate=tmp_path / "c.npz",
    )
    assert bool(report.channels) is go
    assert any("no certificate can speak" in warning for warning in report.warnings) is not go
    files = [str(tmp_path / name) for name in ("in.onnx", "out.onnx", "c.npz")]
    assert main(["verify", *files[:2], "--certificate", files[2]]) == 0


def test_external_data_is_cut_too(tmp_path: Path) -> None:
    onnx.save(
        *(built("plain"), tmp_path / "in.onnx"),
        save_as_external_data=True,
        location="in.data",
        size_threshold=0,
    )
    optimize_file(tmp_path / "in.onnx", tmp_path / "out.onnx", domain="0:1", align=1)
    old, new = (onnx.load(tmp_path / name) for name in ("in.onnx", "out.onnx"))
    sizes = [sum(int(np.prod(t.dims)) for t in m.graph.initializer) for m in (old, new)]
    assert sizes[1] < sizes[0]
    assert os.listdir(tmp_path)


def test_what_would_differ_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in this room ends in a warning, not in a wrong model."""
    from onnx_exact.labels import narrow as room

    def wrong(*arguments: object) -> tuple[onnx.ModelProto, object]:
        made, cuts = write(*arguments)
        for tensor in made.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                values = numpy_helper.to_array(tensor) * np.float32(1.01)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return made, cuts

    write = room.write
    monkeypatch.setattr(room, "write", wrong)
    new, report = optimize(built("global pooling"), domain="0:1", align=1)
    assert report.channels == ()
    assert any("channels that could go stay" in warning for warning in report.warnings)
    assert [list(t.dims) for t in new.graph.initializer] == [
        list(t.dims) for t in built("global pooling").graph.initializer
    ]


def test_a_defect_in_this_room_takes_nothing_from_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx_exact.labels import narrow as room

    def fails(*_: object) -> onnx.ModelProto:
        raise IndexError("out of range")

    monkeypatch.setattr(room, "write", fails)
    report = optimize(built("global pooling"), domain="0:1", align=1)[1]
    assert report.channels == ()
    assert any("please report" in warning for warning in report.warnings)


@pytest.mark.parametrize("what", ["plain", "QDQ", "depthwise", "BatchNormalization"])
def test_declared_shapes_of_constants_are_corrected_too(what: str) -> None:
    """The exporter of PyTorch declares its weights."""
    model = built(what)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    model.graph.value_info.extend(inferred.graph.value_info)
    for tensor in model.graph.initializer:
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.value_info.append(value)
    onnx.checker.check_model(model, full_check=True)
    report = optimize(model, domain="0:1", align=1)[1]
    assert report.channels


def test_the_report_says_what_was_rounded_and_bounds_nothing_then(tmp_path: Path) -> None:
    onnx.save(model_of(flattened), tmp_path / "in.onnx")
    new, report = optimize(str(tmp_path / "in.onnx"), domain="0:1", align=1)
    assert report.channels_deviation > 0.0
    assert report.to_json_dict()["channels_rounded"]
    assert report.certified is None
    assert "apart from rounding what was made of constant channels" in "\n".join(lines(report))
    assert report.deviation is not None
    assert 0.0 < report.deviation.observed_max_abs < 1e-4
    assert_same(model_of(flattened), new)


def test_constants_stay_where_nothing_may_be_rounded() -> None:
    new, report = optimize(model_of(padded), domain="0:1", align=1, max_deviation=0.0)
    assert report.channels == ()
    assert report.channels_deviation == 0.0
    new, report = optimize(built("plain"), domain="0:1", align=1, max_deviation=0.0)
    assert report.channels
    assert report.channels_deviation == 0.0
    assert_same(built("plain"), new)


def test_what_led_to_a_chain_that_became_constant_goes_in_the_same_run(tmp_path: Path) -> None:
    """A chain of dead units reads channels that nothing else reads; a second run finds nothing."""
    net = Net()
    x = net.conv("x", 2, 4)
    pooled = net.add("Flatten", [net.add("GlobalMaxPool", [net.conv(x, 4, 6)])])
    weights = (net.constant(net.rng.normal(size=shape)) for shape in ((6, 5), (5, 3)))
    first, second = weights
    hidden = net.add("Relu", [net.add("Gemm", [pooled, first, net.constant(np.full(5, -1e6))])])
    dead = net.add("Gemm", [hidden, second])
    kept = net.add("Flatten", [net.add("GlobalMaxPool", [net.conv(x, 4, 3)])])
    model = net.model(net.add("Add", [dead, kept]))
    onnx.save(model, tmp_path / "0.onnx")
    report = optimize_file(tmp_path / "0.onnx", tmp_path / "1.onnx", domain="0:1", align=1)
    assert report.changed
    optimize_file(tmp_path / "1.onnx", tmp_path / "2.onnx", align=1)
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes()
    assert_same(model, onnx.load(tmp_path / "1.onnx"))


def test_channels_that_only_blocks_keep_are_told() -> None:
    net = Net()
    x = net.conv("x", 2, 32, dead=[5, 6])
    model = net.model(net.conv(x, 32, 3))
    _, report = optimize(model, domain="0:1")
    text = " ".join(to_text(report).split())
    assert report.channels_in_blocks == 2
    assert "2 more could go and fill blocks of channels" in text
    _, report = optimize(model, domain="0:1", align=1)
    assert report.channels_in_blocks == 0
    assert "fill blocks" not in to_text(report)


def entries(model: ModelProto) -> int:
    """Of initializers and Constant nodes."""
    nodes = (a.t for n in model.graph.node if n.op_type == "Constant" for a in n.attribute)
    return sum(int(np.prod(t.dims)) for t in (*model.graph.initializer, *nodes))


@pytest.mark.parametrize("what", ["plain", "residual", "depthwise", "U-shaped"])
def test_weights_in_constant_nodes_go_as_others_do(what: str) -> None:
    usual, held = optimize(built(what), domain="0:1", align=1)[0], built(what)
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in held.graph.initializer]
    nodes += held.graph.node
    del held.graph.initializer[:], held.graph.node[:]
    held.graph.node.extend(nodes)
    new, report = optimize(held, domain="0:1", align=1)
    assert report.parameters is not None
    assert report.parameters[1] < report.parameters[0] == entries(held)
    assert entries(new) == report.parameters[1] == entries(usual)
    assert_same(held, new)


def test_weights_that_two_readers_cut_alike_are_not_kept_whole() -> None:
    net = Net()
    weight, bias = (net.constant(v) for v in (net.rng.normal(size=(6, 2, 3, 3)), np.zeros(6)))
    net.tensors[bias][[1, 4]] = -3e4
    parts = [
        net.add("Relu", [net.add("Conv", [x, weight, bias], pads=[1] * 4)])
        for x in ("x", net.add("Neg", ["x"]))
    ]
    last = net.constant(net.rng.normal(size=(3, 6, 1, 1)))
    model = net.model(net.add("Add", [net.add("Conv", [p, last]) for p in parts]))
    new, report = optimize(model, domain="0:1", align=1)
    assert report.channels
    assert entries(new) == report.parameters[1] < entries(model)
    assert_same(model, new)


def test_a_model_does_not_grow_for_weights_that_others_read_whole() -> None:
    net = Net()
    weight = net.constant(net.rng.normal(size=(6, 2, 3, 3)))
    bias = net.constant(np.where(np.arange(6) == 1, -3e4, 0.0))
    cut = net.add("Relu", [net.add("Conv", ["x", weight, bias], pads=[1] * 4)])
    whole = net.add("Conv", ["x", weight], pads=[1] * 4)
    last = [net.constant(net.rng.normal(size=(2, 6, 1, 1))) for _ in range(2)]
    model = net.model(
        net.add("Add", [net.add("Conv", [cut, last[0]]), net.add("Conv", [whole, last[1]])])
    )
    new, report = optimize(model, domain="0:1", align=1)
    assert entries(new) <= entries(model)
    assert not report.channels


def test_files_whose_initializers_are_inputs_lose_channels_too(tmp_path: Path) -> None:
    model = built("set 9")
    model.ir_version = 3
    for tensor in model.graph.initializer:
        kind = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(kind)
    onnx.save(model, tmp_path / "in.onnx")
    report = optimize_file(tmp_path / "in.onnx", tmp_path / "out.onnx", domain="x=0:1", align=1)
    assert report.channels
    new = onnx.load(tmp_path / "out.onnx")
    named = {value.name: value for value in new.graph.input}
    for tensor in new.graph.initializer:
        sizes = [d.dim_value for d in named[tensor.name].type.tensor_type.shape.dim]
        assert sizes == list(tensor.dims)
    assert len(named) == len(new.graph.initializer) + 1


def test_of_two_ways_to_cut_the_smaller_result_is_taken() -> None:
    """Maps for what readers made of constants may weigh more than the channels."""
    net = Net()
    x = net.conv("x", 2, 6)
    weight, bias = net.rng.normal(size=(6, 6, 3, 3)), np.array([1.0, 0, 0, 0, -3e4, 0])
    weight[0] = 0.0
    y = net.add(
        "Relu", [net.add("Conv", [x, net.constant(weight), net.constant(bias)], pads=[1] * 4)]
    )
    model = net.model(net.conv(y, 6, 2, dead=()))
    with_maps, exact = (
        optimize(model, domain="0:1", align=1, max_deviation=most)[0] for most in (1.0, 0.0)
    )
    assert entries(with_maps) <= entries(exact) < entries(model)
