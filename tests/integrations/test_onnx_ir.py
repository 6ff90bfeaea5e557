"""The pass for onnx_ir, alone and among the common passes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_exact
from onnx_exact.errors import DomainError, ModelError, UsageError
from onnx_exact.graph import DOMAIN_KEY
from tests.small_network import network

ir = pytest.importorskip("onnx_ir", reason="the extra onnx-ir is not installed")
common = pytest.importorskip("onnx_ir.passes.common")

from onnx_exact.integrations.onnx_ir import ExactCompressionPass  # noqa: E402


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return network(tmp_path / "in.onnx")


@pytest.fixture
def stubborn(tmp_path: Path) -> Path:
    """A network of which nothing can be taken away."""
    return network(tmp_path / "stubborn.onnx", removable=False)


def bytes_of(model: ir.Model) -> bytes:
    return bytes(ir.to_proto(model).SerializeToString(deterministic=True))


def outputs(model: ir.Model, points: int = 50) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(bytes_of(model))
    (x,) = session.get_inputs()
    rng = np.random.default_rng(0)
    rows = rng.random((points, *(d if isinstance(d, int) else 1 for d in x.shape)), np.float32)
    return np.concatenate([session.run(None, {x.name: row})[0] for row in rows])


def test_pass_makes_a_smaller_model_of_the_same_outputs(path: Path) -> None:
    model = ir.load(path)
    before = bytes_of(model)
    compress = ExactCompressionPass(domain="0:1")
    result = compress(model)
    assert result.modified
    assert bytes_of(model) == before
    assert json.loads(result.model.metadata_props[DOMAIN_KEY])["x"]["upper"] == 1.0
    assert compress.report is not None
    assert compress.report.totals.units_after < compress.report.totals.units_before
    np.testing.assert_allclose(outputs(result.model), outputs(model), rtol=1e-5, atol=1e-6)


def test_a_second_run_modifies_nothing_and_gives_the_same_model(path: Path) -> None:
    first = ExactCompressionPass(domain="0:1")(ir.load(path)).model
    again = ExactCompressionPass()(first)
    assert not again.modified
    assert again.model is not first
    assert bytes_of(again.model) == bytes_of(first)


def test_writing_the_domain_alone_counts_as_modified(stubborn: Path) -> None:
    model = ir.load(stubborn)
    compress = ExactCompressionPass(domain="0:1")
    result = compress(model)
    assert compress.report is not None
    assert not compress.report.changed
    assert result.modified
    assert DOMAIN_KEY in result.model.metadata_props
    assert not ExactCompressionPass()(model).modified


def test_pass_runs_among_the_common_passes(path: Path) -> None:
    model = ir.load(path)
    wanted = outputs(model)
    passes = ir.passes.Sequential(
        common.IdentityEliminationPass(),
        ExactCompressionPass(domain="0:1"),
        common.RemoveUnusedNodesPass(),
        common.CheckerPass(),
    )
    result = passes(model)
    assert result.modified
    np.testing.assert_allclose(outputs(result.model), wanted, rtol=1e-5, atol=1e-6)


def test_pass_manager_stops_once_nothing_changes(path: Path) -> None:
    runs = []

    class Counted(ExactCompressionPass):
        def call(self, model: ir.Model) -> ir.passes.PassResult:
            result = super().call(model)
            runs.append(result.modified)
            return result

    result = ir.passes.PassManager([Counted(domain="0:1")], steps=5)(ir.load(path))
    assert result.modified
    assert runs == [True, False]


def test_external_data_is_read_and_not_touched(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "external"
    folder.mkdir()
    old, new = folder / "old.onnx", folder / "new.onnx"
    ir.save(ir.load(path), old, external_data="old.data", size_threshold_bytes=0)
    weights = (folder / "old.data").read_bytes()
    model = ir.load(old)
    result = ExactCompressionPass(domain="0:1")(model)
    assert result.modified
    ir.save(result.model, new, external_data="new.data", size_threshold_bytes=0)
    assert (folder / "old.data").read_bytes() == weights
    assert onnx_exact.verify(old, new).deviation < 1e-4
    assert any(
        isinstance(v.const_value, ir.ExternalTensor) for v in model.graph.initializers.values()
    )
    (folder / "old.data").unlink()
    with pytest.raises(ModelError, match="external data"):
        ExactCompressionPass(domain="0:1")(ir.load(old))


def test_settings_are_refused_when_the_pass_is_made() -> None:
    with pytest.raises(UsageError, match="method"):
        ExactCompressionPass(method="magic")
    with pytest.raises(UsageError, match="certificate"):
        ExactCompressionPass(certificate="proof.npz")


def test_a_domain_that_does_not_fit_is_the_cause_of_the_managers_error(path: Path) -> None:
    with pytest.raises(DomainError):
        ExactCompressionPass(domain="y=0:1")(ir.load(path))
    with pytest.raises(ir.passes.PassError) as caught:
        ir.passes.Sequential(ExactCompressionPass(domain="y=0:1"))(ir.load(path))
    assert isinstance(caught.value.__cause__, DomainError)


def test_functions_of_the_package_take_and_give_models_of_onnx_ir(path: Path) -> None:
    model = ir.load(path)
    new, report = onnx_exact.optimize(model, domain="0:1")
    assert isinstance(new, ir.Model)
    expected, _ = onnx_exact.optimize(path, domain="0:1")
    assert isinstance(expected, onnx.ModelProto)
    assert onnx_exact.analyze(model, domain="0:1").totals.units_before == report.totals.units_before
    found = onnx_exact.verify(model, new)
    assert found.method == "search"
    assert onnx_exact.verify(new, ir.from_proto(ir.to_proto(new))).verified
    with pytest.raises(UsageError, match="certificate"):
        onnx_exact.optimize(model, domain="0:1", certificate="proof.npz")
