"""Trained networks: what `optimize` makes of them is certified, what is tampered with is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_exact.errors import NotVerifiedError
from onnx_exact.pipeline import optimize_file
from onnx_exact.verified import verify
from onnx_exact.verifier.model import Model
from tests.verifier.build import Written, read

MODELS = Path(__file__).parents[2] / "models"
NAMES = ("digits_2x32", "digits_2x32_l1", "mnist_2x100_l1")


@pytest.fixture(scope="module", params=NAMES)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A network with its certificate."""
    folder = tmp_path_factory.mktemp(request.param)
    paths = MODELS / f"{request.param}.onnx", folder / "new.onnx", folder / "certificate.npz"
    optimize_file(paths[0], paths[1], certificate=paths[2])
    return read(*paths)


def test_the_certificate_is_accepted_with_the_deviation_that_was_certified(
    written: Written,
) -> None:
    found = verify(written.old, written.new, written.certificate)
    assert found.verified
    assert found.deviation <= 1.01 * written.header["deviation"]["certified_max_abs"]


def refused(written: Written, new: Path | None = None) -> None:
    with pytest.raises(NotVerifiedError):
        verify(written.old, new or written.new, written.certificate)
    written.save()


def test_tampering_with_the_certificate_is_refused(written: Written) -> None:
    rng = np.random.default_rng(0)
    for name in ("c0_l0_status", "c0_l1_status"):
        status = written.arrays[name].copy()
        unit = rng.integers(len(status))
        status[unit] = 2 if status[unit] != 2 else 1
        proof = written.arrays[name.replace("status", "proof")].copy()
        proof[unit] = 1
        refused(written.changed(**{name: status, name.replace("status", "proof"): proof}))
    refused(written.changed({"domain": {"input": {"lower": 0.0, "upper": 1.5}}}))
    refused(written.changed({"original": {"sha256": "0" * 64, "bytes": 0}}))


def test_a_weight_changed_by_a_thousandth_is_refused(written: Written, tmp_path: Path) -> None:
    """The largest weight of each layer, with the certificate made out to the changed model."""
    for position in range(3):
        model = onnx.load(written.new)
        matrices = [t for t in model.graph.initializer if len(t.dims) == 2]
        values = numpy_helper.to_array(matrices[position]).copy()
        values.flat[np.abs(values).argmax()] *= np.float32(1.001)
        matrices[position].CopyFrom(numpy_helper.from_array(values, matrices[position].name))
        path = tmp_path / "changed.onnx"
        onnx.save(model, path)
        refused(written, path)
        changed = written.changed({"result": {"sha256": Model(path, "a model").sha256, "bytes": 0}})
        refused(changed, path)
        written.save()
