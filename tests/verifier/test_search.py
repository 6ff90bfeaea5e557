"""Without a certificate: differences are found, small networks are proved equal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_exact.cli import main
from onnx_exact.errors import DomainError, NotVerifiedError
from onnx_exact.verifier import Verification, search, verify
from tests.verifier.build import FIRST, LAST, SECOND, SQUARE, LayerSpec, gemm_model, tiny


def compared(
    folder: Path, old: onnx.ModelProto, new: onnx.ModelProto, domain: str | None = None
) -> Verification:
    for name, model in (("old.onnx", old), ("new.onnx", new)):
        onnx.save(model, folder / name)
    return verify(folder / "old.onnx", folder / "new.onnx", domain=domain)


def test_a_small_network_is_proved(tmp_path: Path) -> None:
    written = tiny(tmp_path)
    found = verify(written.old, written.new)
    assert found.method == "program"
    assert found.deviation <= found.tolerance < 1e-3


def test_networks_with_other_weights_for_the_same_function_are_proved(tmp_path: Path) -> None:
    """Units in another order and scaled share no variables, so that SCIP has to do it."""
    weight, bias, _ = FIRST
    other: LayerSpec = ([[2 * w for w in weight[i]] for i in (2, 0)], [2 * bias[2], 0], True)
    new = gemm_model([other, ([[-0.5, 1]], [0.25], True), ([[1]], [0.5], False)], SQUARE)
    assert compared(tmp_path, gemm_model([FIRST, SECOND, LAST], SQUARE), new).method == "program"


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
    assert compared(tmp_path, old, new).method == "program"
    with pytest.raises(NotVerifiedError, match="differs by"):
        compared(tmp_path, old, new, domain="-1:1")


def test_without_any_domain_one_is_asked_for(tmp_path: Path) -> None:
    model = gemm_model([FIRST, SECOND, LAST])
    with pytest.raises(NotVerifiedError, match="give --domain"):
        compared(tmp_path, model, model)
    assert compared(tmp_path, model, model, domain="0:1").method == "program"
    with pytest.raises(DomainError):
        compared(tmp_path, model, model, domain="1:0")


def test_an_unbounded_domain_is_searched_and_not_proved(tmp_path: Path) -> None:
    model = gemm_model([FIRST, SECOND, LAST])
    found = compared(tmp_path, model, model, domain="0:inf")
    assert found.method == "search"


def test_too_many_units_are_searched_and_not_proved(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wide: LayerSpec = (rng.normal(size=(61, 2)).tolist(), [-0.1] * 61, True)
    last: LayerSpec = (rng.normal(size=(1, 61)).tolist(), [0], False)
    model = gemm_model([wide, last], {"x": {"lower": -1.0, "upper": 1.0}})
    found = compared(tmp_path, model, model)
    assert found.method == "search"
    assert "unstable units" in found.notes[0]


def test_signatures_are_compared(tmp_path: Path) -> None:
    model = gemm_model([FIRST, SECOND, LAST], SQUARE)
    other = gemm_model([FIRST, SECOND, LAST], SQUARE)
    other.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(NotVerifiedError, match="inputs or outputs"):
        compared(tmp_path, model, other)


def test_what_agrees_for_one_sample_and_not_for_two_is_found(tmp_path: Path) -> None:
    def summed(axis: int) -> onnx.ModelProto:
        """Sums the samples, which is nothing for one, or the features."""
        axes = numpy_helper.from_array(np.array([axis]), "axes")
        nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=1)]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])
        graph = helper.make_graph(nodes, "g", [x], [y], [axes])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(model, {"onnx_exact.domain": json.dumps(SQUARE)})
        return model

    assert compared(tmp_path, summed(0), summed(0)).method == "search"
    with pytest.raises(NotVerifiedError, match="differs by"):
        compared(tmp_path, summed(1), summed(0))


def test_what_only_the_program_finds_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without points of its own, the search gets the one that SCIP finds."""
    old = gemm_model([([[1, 1], [1, -1]], [-0.5, 0], True), ([[1, 2]], [0], False)], SQUARE)
    new = gemm_model([([[1, 1], [1, -1]], [-0.5, 0], True), ([[1, 1.9]], [0], False)], SQUARE)
    monkeypatch.setattr(search, "_ascend", lambda pair, rng: np.zeros((1, 2)))
    monkeypatch.setattr(search, "_draw", lambda *_: {"x": np.zeros((1, 2), np.float32)})
    with pytest.raises(NotVerifiedError, match=r"differs by 0\.") as caught:
        compared(tmp_path, old, new)
    assert caught.value.counterexample is not None
    np.testing.assert_allclose(caught.value.counterexample["x"], [[1, 0]], atol=1e-6)
