"""Certificates as files: what is in them, where they appear, and when there is none."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import onnx_exact
from onnx_exact.cli import main
from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Evidence, Stability, Status
from onnx_exact.errors import DomainError, OutputError, UsageError, ValidationError
from onnx_exact.network import Box, Chain
from onnx_exact.runtime.deadline import Deadline
from onnx_exact.stages import certified, deciding, writing
from tests.certify.test_prove import CROSS, SQUARE, claimed
from tests.small_network import network
from tests.verifier.build import LayerSpec, gemm_model

MODELS = sorted((Path(__file__).parents[2] / "models").glob("*.onnx"))
# Of a certificate, in sizes of the original model.
LARGEST = 4.0


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return network(tmp_path / "in.onnx")


def read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return json.loads(arrays.pop("header").tobytes().decode("utf-8")), arrays


def mark(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def test_a_certificate_holds_what_its_format_says(source: Path, tmp_path: Path) -> None:
    out, certificate = tmp_path / "o.onnx", tmp_path / "c.npz"
    report = onnx_exact.optimize_file(source, out, domain=(0.0, 1.0), certificate=certificate)
    header, arrays = read(certificate)
    assert (header["format"], header["version"]) == ("onnx-exact certificate", 2)
    assert header["original"] == mark(source.read_bytes())
    assert header["result"] == mark(out.read_bytes())
    assert header["domain"] == {"x": {"lower": 0.0, "upper": 1.0}}
    assert header["deviation"] == {"certified_max_abs": 0.0}
    assert report.certified is not None
    assert report.certified.max_abs == 0.0
    (chain,) = header["chains"]
    after = report.chains[0].layers[0].units_after
    assert chain["widths"] == [8, 2]
    assert chain["relu"] == chain["result_relu"] == [True, False]
    assert chain["result_widths"] == [after, 2]
    assert (chain["input"], chain["output"], chain["sources"]) == ("x", "y", [0, 1])
    types = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    int8, int32 = np.dtype(np.int8), np.dtype(np.int32)
    points = arrays["c0_witnesses"]
    assert types == {
        "c0_witnesses": (np.dtype(np.float32), (len(points), 4)),
        "c0_l0_status": (int8, (8,)),
        "c0_l0_proof": (int8, (8,)),
        "c0_m0_unit": (int32, (8,)),
        "c0_m1_unit": (int32, (2,)),
    }
    assert arrays["c0_l0_status"][:3].tolist() == [1, 1, 1]
    assert arrays["c0_m0_unit"][:3].tolist() == [-1, -1, -1]
    assert sorted(set(arrays["c0_m0_unit"].tolist()) - {-1}) == list(range(after or 0))


def test_a_certificate_is_written_where_nothing_changed(tmp_path: Path) -> None:
    source = network(tmp_path / "in.onnx", removable=False)
    out, certificate = tmp_path / "o.onnx", tmp_path / "c.npz"
    report = onnx_exact.optimize_file(source, out, domain=(0.0, 1.0), certificate=certificate)
    assert not report.changed
    header, arrays = read(certificate)
    assert header["original"] == mark(source.read_bytes())
    assert header["result"] == mark(out.read_bytes())
    assert arrays["c0_m0_unit"].tolist() == list(range(8))


def test_a_certificate_of_a_model_in_memory_is_about_its_bytes(
    source: Path, tmp_path: Path
) -> None:
    certificate = tmp_path / "c.npz"
    model, _ = onnx_exact.optimize(source, domain=(0.0, 1.0), certificate=certificate)
    header, _ = read(certificate)
    assert header["result"] == mark(model.SerializeToString())


def test_certificates_are_the_same_every_time(source: Path, tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        certificate = tmp_path / f"{name}.npz"
        out = tmp_path / f"{name}.onnx"
        onnx_exact.optimize_file(source, out, domain=(0.0, 1.0), certificate=certificate)
        with zipfile.ZipFile(certificate) as archive:
            found.append({name: archive.read(name) for name in archive.namelist()})
    assert found[0] == found[1]


def test_the_original_is_known_by_what_it_was_before_it_was_replaced(source: Path) -> None:
    before = source.read_bytes()
    certificate = source.with_name("c.npz")
    onnx_exact.optimize_file(
        source, source, in_place=True, domain=(0.0, 1.0), certificate=certificate
    )
    header, _ = read(certificate)
    assert source.read_bytes() != before
    assert header["original"] == mark(before)
    assert header["result"] == mark(source.read_bytes())


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (lambda s: s, "would replace"),
        (lambda s: s.with_name("o.onnx"), "would replace"),
        (lambda s: s.parent, "no regular file"),
        (lambda s: s.parent / "none" / "c.npz", "no folder"),
    ],
)
def test_places_where_no_certificate_can_be_are_refused(
    source: Path, place: Callable[[Path], Path], said: str
) -> None:
    before = source.read_bytes()
    out = source.with_name("o.onnx")
    with pytest.raises(OutputError, match=said):
        onnx_exact.optimize_file(source, out, domain=(0.0, 1.0), certificate=place(source))
    assert not out.exists()
    assert source.read_bytes() == before


def test_the_command_refuses_a_report_in_the_place_of_the_certificate(
    source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    both = str(source.with_name("c"))
    arguments = ["optimize", str(source), str(source.with_name("o.onnx")), "--domain", "0:1"]
    assert main([*arguments, "--certificate", both, "--report", both]) == 2
    assert "would replace" in capfd.readouterr().err


def test_an_infinite_domain_has_no_certificate(source: Path) -> None:
    out, certificate = source.with_name("o.onnx"), source.with_name("c.npz")
    with pytest.raises(DomainError, match="needs a finite domain"):
        onnx_exact.optimize_file(source, out, certificate=certificate)
    assert sorted(file.name for file in source.parent.iterdir()) == ["in.onnx"]


def test_over_an_infinite_domain_nothing_is_certain_but_that_removal_rounds_nothing(
    source: Path,
) -> None:
    _, report = onnx_exact.optimize(source)
    assert not any(chain.rounded for chain in report.chains)
    assert report.certified is not None
    assert report.certified.max_abs == 0.0
    assert report.to_json_dict()["deviation"]["runtime_rounding_before"] is None


def test_what_is_no_plain_chain_has_no_certificate(source: Path) -> None:
    with pytest.raises(UsageError, match="about plain chains"):
        onnx_exact.optimize(source, domain=(0.0, 1.0), certificate="c.npz", goal="size")


def test_no_certificate_is_left_where_the_result_is_refused(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object, **options: object) -> None:
        raise ValidationError("no")

    monkeypatch.setattr(writing, "validate", fails)
    out, certificate = source.with_name("o.onnx"), source.with_name("c.npz")
    with pytest.raises(ValidationError):
        onnx_exact.optimize_file(source, out, domain=(0.0, 1.0), certificate=certificate)
    assert sorted(file.name for file in source.parent.iterdir()) == ["in.onnx"]


def test_a_claim_that_is_not_proved_is_undecided_and_nothing_rests_on_it() -> None:
    stability = analyze_chain(CROSS, SQUARE, Options(method="bounds"))
    forged = claimed(stability, 1, 0, Status.INACTIVE)
    wrong = claimed(forged, 0, 1, Status.ACTIVE)
    recorded, _ = certified.prove(CROSS, SQUARE, wrong, 10**6, Deadline())
    # The first layer's claim is false; so what rested on it is proved without it, or not at all.
    assert statuses(recorded, 0)[1] == (Status.UNDECIDED, Evidence.NONE)
    assert statuses(recorded, 1)[0] == (Status.INACTIVE, Evidence.LINEAR)
    bounds = recorded.layers[0]
    assert bounds is not None
    assert bounds.lower[1] < 0.0


def cross(path: Path) -> Path:
    """A model with `CROSS` in it: its second layer's first unit is never positive."""
    first, second = (layer.affine for layer in CROSS.layers)
    weight = [*second.weight.tolist(), [1.0, -1.0, 0.5, -0.5]]
    layers: list[LayerSpec] = [
        (first.weight.tolist(), first.bias.tolist(), True),
        (weight, [*second.bias.tolist(), 0.25], True),
        ([[1.0, 1.0]], [0.0], False),
    ]
    onnx.save(gemm_model(layers), path)
    return path


@pytest.mark.parametrize(("room", "undecided"), [(3.0, 0), (0.0, 1)])
def test_with_a_certificate_only_what_it_records_is_acted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: float, undecided: int
) -> None:
    # Without a byte for a splitting there is no proof.
    monkeypatch.setattr(certified, "MOST_PROOF", room)
    certificate = tmp_path / "c.npz"
    _, report = onnx_exact.optimize(
        cross(tmp_path / "in.onnx"), domain=(-1.0, 1.0), certificate=certificate
    )
    totals = report.totals
    assert (totals.by_solver, totals.undecided) == (0, undecided)
    assert totals.proved == 6 - undecided
    assert (totals.units_after == 6) == (undecided == 1)
    _, arrays = read(certificate)
    assert arrays["c0_l1_status"][0] == (Status.UNDECIDED if undecided else Status.INACTIVE)


def test_a_trusted_solver_s_word_is_not_in_a_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decide(chain: Chain, box: Box, options: Options, samples: Any) -> Stability:
        stability = analyze_chain(chain, box, Options(method="bounds"))
        return claimed(stability, 1, 0, Status.INACTIVE)

    monkeypatch.setattr(deciding, "analyze_chain", decide)
    monkeypatch.setattr(certified, "MOST_PROOF", 0.0)
    for certificate, by_solver in ((None, 1), (tmp_path / "c.npz", 0)):
        _, report = onnx_exact.optimize(
            cross(tmp_path / "in.onnx"),
            domain=(-1.0, 1.0),
            trust_solver=True,
            certificate=certificate,
        )
        totals = report.totals
        assert (totals.by_solver, totals.undecided) == (by_solver, 1 - by_solver)


def statuses(stability: Stability, layer: int) -> list[tuple[Status, Evidence]]:
    found = stability.layers[layer]
    assert found is not None
    pairs = zip(found.status, found.evidence, strict=True)
    return [(Status(int(status)), Evidence(int(evidence))) for status, evidence in pairs]


@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_every_verdict_on_a_trained_network_is_proved(model: Path, tmp_path: Path) -> None:
    certificate = tmp_path / "c.npz"
    report = onnx_exact.optimize_file(model, tmp_path / "o.onnx", certificate=certificate)
    assert report.totals.by_solver == 0
    assert report.totals.proved >= 0.99 * report.totals.units_before
    assert certificate.stat().st_size < LARGEST * model.stat().st_size
    assert report.certified is not None
    assert report.deviation is None or report.certified.max_abs is not None
    header, arrays = read(certificate)
    for name, array in arrays.items():
        if name.endswith("_proof"):
            assert not np.isin(array, [4]).any()
    assert header["deviation"]["certified_max_abs"] == report.certified.max_abs
