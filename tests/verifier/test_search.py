"""Without a certificate: differences are found, and finding none is called no proof."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_exact.cli import main
from onnx_exact.errors import DomainError, NotVerifiedError, UncheckedError, UsageError
from onnx_exact.verified import Verification, verify
from onnx_exact.verifier.model import Model
from tests.verifier.build import FIRST, LAST, SECOND, SQUARE, LayerSpec, gemm_model, tiny


def compared(
    folder: Path, old: onnx.ModelProto, new: onnx.ModelProto, domain: str | None = None
) -> Verification:
    for name, model in (("old.onnx", old), ("new.onnx", new)):
        onnx.save(model, folder / name)
    return verify(folder / "old.onnx", folder / "new.onnx", domain=domain)


def test_finding_no_difference_is_no_proof(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tiny(tmp_path)
    found = verify(written.old, written.new)
    assert (found.method, found.verified, found.exit_code) == ("search", False, 3)
    assert found.deviation <= found.tolerance < 1e-3
    assert main(["verify", str(written.old), str(written.new)]) == 3
    text = capsys.readouterr().out
    assert "Not verified: no larger difference was found" in text
    assert "roved" not in text


def test_identical_files_are_verified_without_a_domain(tmp_path: Path) -> None:
    model = gemm_model([FIRST, SECOND, LAST])
    found = compared(tmp_path, model, model)
    assert (found.method, found.verified, found.deviation) == ("identical", True, 0.0)
    assert verify(model, model).method == "identical"


def test_models_that_differ_in_words_alone_are_identical(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = gemm_model([FIRST, SECOND, LAST]), gemm_model([FIRST, SECOND, LAST], SQUARE)
    found = compared(tmp_path, old, new)
    assert (found.method, found.compared) == ("identical", 11)
    assert main(["verify", str(tmp_path / "old.onnx"), str(tmp_path / "new.onnx")]) == 0
    assert "all 11 nodes and constants" in capsys.readouterr().out


def test_what_differs_where_a_solver_drops_coefficients_is_not_called_proved(
    tmp_path: Path,
) -> None:
    """The two differ by 0.999 at 0.3, in a peak 1e-6 wide behind weights of 1e10 and 1e-10."""
    layers: list[LayerSpec] = [
        ([[1], [-1]], [-0.3, 0.3], True),
        ([[-1e6, -1e6]], [1], True),
        ([[1e10]], [-1], True),
        ([[1e-10]], [-1e-3], True),
    ]
    old, new = (gemm_model([*layers, ([[w]], [0], False)]) for w in (1.0, 0.0))
    assert not compared(tmp_path, old, new, domain="0:1").verified


def test_tolerances_are_those_that_are_asked_for(tmp_path: Path) -> None:
    old = gemm_model([([[1, 1]], [0], True), ([[1]], [0], False)], SQUARE)
    new = gemm_model([([[1, 1]], [0], True), ([[1.25]], [0], False)], SQUARE)
    assert verify(old, new, atol=1.0).tolerance == 1.0
    assert verify(old, new, rtol=0.5).deviation > 0.1
    tolerances: list[dict[str, float]] = [{"atol": 0.01}, {"rtol": 0.01}, {}]
    for given in tolerances:
        with pytest.raises(NotVerifiedError, match="of the result differs by") as caught:
            verify(old, new, **given)
        assert caught.value.exit_code == 1
    with pytest.raises(UsageError, match="without tolerances"):
        verify(old, new, tmp_path / "c.npz", atol=1.0)


def test_time_is_up_when_it_is(tmp_path: Path) -> None:
    written = tiny(tmp_path)
    for certificate in (None, written.certificate):
        with pytest.raises(UncheckedError, match="give a larger --time-limit"):
            verify(written.old, written.new, certificate, time_limit=1e-9)


def test_a_spike_is_found_and_the_input_that_shows_it_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Equal but for a spike of height 1 around (0.3, 0.7), where few random points lie."""
    zero: LayerSpec = ([[0, 0]], [0], True)
    spike: LayerSpec = (
        [[20, 0], [-20, 0], [0, 20], [0, -20], [1, 1]],
        [-6, 6, -14, 14, 0],
        True,
    )
    top: LayerSpec = ([[-1, -1, -1, -1, 0]], [1], True)
    last: LayerSpec = ([[1]], [0], False)
    with pytest.raises(NotVerifiedError, match="differs by") as caught:
        compared(tmp_path, gemm_model([zero, last], SQUARE), gemm_model([spike, top, last], SQUARE))
    assert caught.value.counterexample is not None
    x = caught.value.counterexample["x"]
    assert np.abs(x - [0.3, 0.7]).max() < 0.05

    files = [str(tmp_path / name) for name in ("old.onnx", "new.onnx")]
    assert main(["verify", *files]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    with np.load(tmp_path / "new.onnx.counterexample.npz") as kept:
        np.testing.assert_array_equal(kept["x"], x)


def test_a_difference_beyond_the_domain_is_none(tmp_path: Path) -> None:
    old = gemm_model([([[1, 0], [0, 1]], [0, 0], True), ([[1, 1]], [0], False)], SQUARE)
    new = gemm_model([([[1, 1]], [0], False)], SQUARE)
    assert compared(tmp_path, old, new).method == "search"
    with pytest.raises(NotVerifiedError, match="differs by"):
        compared(tmp_path, old, new, domain="-1:1")


def test_without_any_domain_one_is_asked_for(tmp_path: Path) -> None:
    old, new = (gemm_model([FIRST, SECOND, ([[w, 3]], [0.5], False)]) for w in (1.0, 1.0 + 1e-7))
    with pytest.raises(UncheckedError, match="give --domain"):
        compared(tmp_path, old, new)
    assert compared(tmp_path, old, new, domain="0:1").method == "search"
    with pytest.raises(DomainError):
        compared(tmp_path, old, new, domain="1:0")


def test_an_unbounded_domain_is_searched(tmp_path: Path) -> None:
    old, new = (gemm_model([FIRST, SECOND, ([[w, 3]], [0.5], False)]) for w in (1.0, 1.0 + 1e-7))
    found = compared(tmp_path, old, new, domain="0:inf")
    assert found.method == "search"
    assert "Without gradients" in found.notes[0]


def test_signatures_are_compared(tmp_path: Path) -> None:
    model = gemm_model([FIRST, SECOND, LAST], SQUARE)
    other = gemm_model([FIRST, SECOND, LAST], SQUARE)
    other.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(NotVerifiedError, match="inputs differ"):
        compared(tmp_path, model, other)


def test_what_agrees_for_one_sample_and_not_for_two_is_found(tmp_path: Path) -> None:
    def summed(axis: int, tail: str = "Identity") -> onnx.ModelProto:
        """Sums the samples, which is nothing for one, or the features."""
        axes = numpy_helper.from_array(np.array([axis]), "axes")
        nodes = [
            helper.make_node("ReduceSum", ["x", "axes"], ["s"], keepdims=1),
            helper.make_node(tail, ["s"], ["y"]),
        ]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])
        graph = helper.make_graph(nodes, "g", [x], [y], [axes])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(model, {"onnx_exact.domain": json.dumps(SQUARE)})
        return model

    assert compared(tmp_path, summed(0), summed(0, "Abs")).method == "search"
    with pytest.raises(NotVerifiedError, match="differs by"):
        compared(tmp_path, summed(1), summed(0))


def test_other_versions_alone_are_no_difference_and_no_proof(tmp_path: Path) -> None:
    old, new = gemm_model([FIRST, SECOND, LAST], SQUARE), gemm_model([FIRST, SECOND, LAST], SQUARE)
    new.ir_version = old.ir_version + 1
    new.opset_import[0].version += 1
    assert compared(tmp_path, old, new).exit_code == 3


def test_a_plain_difference_refutes_a_certificate_that_proves_nothing(tmp_path: Path) -> None:
    written = tiny(tmp_path)
    model = onnx.load(written.new)
    tensor = next(t for t in model.graph.initializer if t.name == "w2")
    tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), "w2"))
    onnx.save(model, written.new)
    digest = {"sha256": Model(written.new, "a model").sha256}
    changed = written.changed({"result": digest})
    with pytest.raises(NotVerifiedError, match=r"differs by .*; the certificate claims") as caught:
        verify(changed.old, changed.new, changed.certificate)
    assert caught.value.exit_code == 1
    assert caught.value.counterexample is not None
