"""The command inspect: what is there, what bounds it, what stops it; and the same in short."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from benchmarks.fuzzing.graphs import random_graph
from benchmarks.fuzzing.operators import OPERATORS
from onnx_exact import analyze, optimize
from onnx_exact.cli import main
from onnx_exact.inspected import inspect
from onnx_exact.report import to_text
from tests.graph.build import Builder
from tests.graph.test_reasons import ENDS, LEFT_OUT
from tests.labels.graphs import GRAPHS, Net, built

MODELS = Path(__file__).parents[2] / "shared" / "models"


def mlp(first: str = "x", **inputs: list[int | str]) -> ModelProto:
    b = Builder()
    x = b.node(first, "x") if first != "x" else "x"
    y = b.gemm(b.relu(b.gemm(x, 6, 5)), 5, 2)
    return b.model([y], inputs or None)


def without_chain() -> ModelProto:
    b = Builder()
    y = b.node("Relu", b.node("Conv", "x", b.weight(3, 2, 3, 3), name="c3"), name="relu_3")
    return b.model([y], {"x": ["n", 2, 6, 6]})


def test_domain_that_the_graph_implies_is_said() -> None:
    found = inspect(mlp("Sigmoid"))
    (chain,) = found.chains
    assert chain.unbounded is None
    assert chain.source == "implied by the graph"
    assert chain.widths == (6, 5, 2)
    assert chain.units == 5
    assert "implied by the graph" in found.to_text()


def test_domain_that_is_declared_is_said() -> None:
    found = inspect(mlp(), "0:1")
    (chain,) = found.chains
    assert chain.source == "--domain 0:1, by the input 'x'"
    assert "Domain: from 0 to 1" in found.to_text()


def test_domain_that_is_not_known_comes_with_the_reason() -> None:
    text = " ".join(inspect(mlp()).to_text().split())
    assert "nothing bounds the input 'x'; give --domain x=LO:HI" in text


def test_integers_of_a_type_need_no_domain() -> None:
    b = Builder()
    x = b.node("Mul", b.node("Cast", "x", to=1), b.constant(np.float32(1 / 255)))
    model = b.model([b.gemm(b.relu(b.gemm(x, 6, 5)), 5, 2)])
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    (chain,) = inspect(model).chains
    assert chain.unbounded is None
    assert 0.99 < chain.box.upper.max() < 1.01


def test_command_prints_it_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(without_chain(), tmp_path / "in.onnx")
    assert main(["inspect", str(tmp_path / "in.onnx")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Relu 'relu_3' reads Conv 'c3', which is a convolution" in out
    assert [file.name for file in tmp_path.iterdir()] == ["in.onnx"]


def test_command_refuses_what_is_no_model_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.onnx").write_bytes(b"nothing")
    assert main(["inspect", str(tmp_path / "in.onnx")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_no_chain_never_stands_alone_and_an_analysis_of_nothing_proves_nothing() -> None:
    report = analyze(without_chain(), domain="0:1")
    text = " ".join(to_text(report).split())
    assert "No chain of affine maps and ReLUs was found in this model: Relu 'relu_3'" in text
    assert "Nothing was analyzed, so that nothing is proved" in text
    assert "Proved" not in text
    assert "fully proved" not in text
    _, written = optimize(without_chain(), domain="0:1")
    assert "Relu 'relu_3' reads Conv 'c3'" in " ".join(to_text(written).split())
    assert written.to_json_dict()["left_out"] == list(written.left_out)


def test_weights_that_can_be_overridden_are_said_to_be() -> None:
    model = mlp()
    model.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer
    )
    _, report = optimize(model, domain={"x": (0.0, 1.0)})
    text = " ".join(to_text(report).split())
    assert "can be overridden: take it out of the graph's inputs" in text


@pytest.mark.parametrize("seed", range(20))
def test_every_relu_of_a_random_graph_is_in_a_chain_or_has_its_reason(seed: int) -> None:
    model, _ = random_graph(seed, OPERATORS)
    try:
        found = inspect(model)
    except onnx_exact_error() as error:
        pytest.skip(f"not read: {error}")
    named = {name for chain in found.chains for name in chain.nodes}
    for node in model.graph.node:
        label = node.name or node.output[0]
        if node.op_type == "Relu" and label not in named:
            assert any(f"Relu {label!r} " in line for line in found.left_out)


def onnx_exact_error() -> type[Exception]:
    from onnx_exact.errors import OnnxExactError

    return OnnxExactError


@pytest.mark.skipif(not MODELS.is_dir(), reason="../shared/models is absent")
def test_every_relu_of_the_models_is_in_a_chain_or_has_its_reason() -> None:
    for path in sorted(MODELS.glob("*.onnx")):
        found = inspect(path)
        named = {name for chain in found.chains for name in chain.nodes}
        relus = [n for n in onnx.load(path).graph.node if n.op_type == "Relu"]
        for node in relus:
            label = node.name or node.output[0]
            reasons = [line for line in found.left_out if line.startswith(f"Relu {label!r} ")]
            assert (label in named) != bool(reasons), (path.name, label)


@pytest.mark.skipif(not MODELS.is_dir(), reason="../shared/models is absent")
def test_units_behind_a_computed_reshape_go() -> None:
    _, report = optimize(MODELS / "mnistcnn_0.1.onnx", domain="0:1", method="bounds")
    assert report.totals.units_before == 100
    assert report.totals.units_after is not None
    assert report.totals.units_after <= 65


def test_with_a_certificate_only_what_its_checker_reads_is_reduced(tmp_path: Path) -> None:
    b = Builder()
    dead = b.constant(np.float32([-99, -99, 0, 0, 0]))
    hidden = b.node("Gemm", "x", b.weight(5, 6), dead, transB=1, name="first")
    y = b.gemm(b.node("Clip", hidden, b.constant(np.float32(0)), name="clip"), 5, 2)
    model = b.model([y])
    _, report = optimize(model, domain="0:1")
    assert report.changed
    _, report = optimize(model, domain="0:1", certificate=tmp_path / "c.npz")
    assert not report.changed
    assert any("Clip 'clip' is not read by the checker" in line for line in report.left_out)


def test_channels_that_can_go_are_named() -> None:
    found = inspect(built("plain"), "0:1")
    assert [(c.size, c.stay) for c in found.channels] == [(6, 4), (4, 3), (3, 3)]
    assert "2 of the 6 channels of" in found.to_text()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("residual", "1 of the 6 channels of 't0_0', 't4_0' are constant or not read"),
        ("plain", "stay: they are in the output"),
        ("If", "stay: they are read in a branch, in"),
        ("Shape", "reads them as a whole"),
    ],
)
def test_what_keeps_channels_is_said(what: str, said: str) -> None:
    assert said in " ".join(inspect(built(what), "0:1").to_text().split())


def test_channels_inside_of_a_chain_are_said_to_be() -> None:
    net = Net()
    x = net.conv("x", 2, 4, dead=[1])
    flat = net.add("Flatten", [x])
    first = net.add("Gemm", [flat, net.constant(net.rng.normal(size=(256, 5)))])
    second = net.add("Gemm", [net.add("Relu", [first]), net.constant(net.rng.normal(size=(5, 2)))])
    text = " ".join(inspect(net.model(second), "0:1").to_text().split())
    assert f"All 5 channels of {first!r} stay: they are inside of a chain, in {first!r}" in text


# What `tests.graph.test_reasons` holds each reason to, between names.
TESTED = [
    max(re.split(r"'[^']*'?|\(", wanted), key=len).strip()
    for _, wanted in (*LEFT_OUT.values(), *ENDS.values())
] + ["is in a chain that ends before it", "is read in a branch", "is unread"]


def reasons(model: ModelProto | Path) -> list[str]:
    found = inspect(model)
    return [*found.left_out, *(chain.end for chain in found.chains)]


@pytest.mark.parametrize("what", GRAPHS)
def test_every_reason_named_on_a_graph_has_a_test(what: str) -> None:
    for line in reasons(built(what)):
        assert any(tested in line for tested in TESTED), line


@pytest.mark.skipif(not MODELS.is_dir(), reason="../shared/models is absent")
def test_every_reason_named_on_the_models_has_a_test() -> None:
    lines = [line for path in sorted(MODELS.rglob("*.onnx")) for line in reasons(path)]
    assert len(lines) > 50
    for line in lines:
        assert any(tested in line for tested in TESTED), line


def test_product_whose_output_nothing_reads_says_so() -> None:
    b = Builder()
    b.relu(b.gemm("x", 6, 5))
    unread = b.node("Gemm", "x", b.weight(6, 5), name="lost")
    model = b.model([b.node("Sigmoid", "x")])
    assert any(f"{unread!r} is unread" in line for line in inspect(model).left_out)


def test_channels_that_all_are_read_are_said_to_be() -> None:
    net = Net()
    y = net.conv(net.conv("x", 2, 4), 4, 3)
    text = " ".join(inspect(net.model(y), "0:1").to_text().split())
    assert "All 4 channels of 't0_0' stay: they are read, and nothing shows" in text
