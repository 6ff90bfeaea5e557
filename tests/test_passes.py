"""One pass after another on the same model: what each result carries of where it is valid."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_exact
from onnx_exact.cli import main
from onnx_exact.errors import DomainError, ModelError
from onnx_exact.graph import DOMAIN_KEY, SOURCE_KEY, metadata_of
from tests.lines import complaints
from tests.small_network import network

BOX = {"x": {"lower": 0.0, "upper": 1.0}}


def carried(path: Path) -> dict[str, str]:
    return metadata_of(onnx.load(path))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def without_metadata(path: Path) -> bytes:
    model = onnx.load(path)
    del model.metadata_props[:]
    return bytes(model.SerializeToString())


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return network(tmp_path / "in.onnx")


@pytest.fixture
def stubborn(tmp_path: Path) -> Path:
    """A network of which nothing can be taken away."""
    return network(tmp_path / "stubborn.onnx", removable=False)


@pytest.fixture
def first(original: Path, tmp_path: Path) -> Path:
    """What a pass over [0, 1] makes of the original."""
    path = tmp_path / "first.onnx"
    assert onnx_exact.optimize_file(original, path, domain="0:1").changed
    return path


def test_a_second_pass_reproduces_its_input(first: Path, tmp_path: Path) -> None:
    for domain in (None, "0:1"):
        again = tmp_path / "again.onnx"
        assert not onnx_exact.optimize_file(first, again, domain=domain).changed
        assert again.read_bytes() == first.read_bytes()


@pytest.mark.parametrize("flags", [[], ["--report", "r.json"]])
@pytest.mark.parametrize("command", ["optimize", "analyze"])
def test_a_wider_domain_ends_in_one_line(
    first: Path, tmp_path: Path, command: str, flags: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.iterdir())
    out = [str(tmp_path / "out.onnx")] if command == "optimize" else []
    flags = [str(tmp_path / f) if f.endswith(".json") else f for f in flags]
    assert main([command, str(first), *out, "--domain", "0.5:2", *flags]) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    error = complaints(printed.err)
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "--rebase" in error
    assert sorted(tmp_path.iterdir()) == before


def test_a_narrower_domain_is_taken_and_the_first_source_stays(
    original: Path, first: Path, tmp_path: Path
) -> None:
    second, third = tmp_path / "second.onnx", tmp_path / "third.onnx"
    onnx_exact.optimize_file(first, second, domain="0:0.5")
    onnx_exact.optimize_file(second, third, domain="0:0.001")
    for path, upper in ((first, 1.0), (second, 0.5)):
        assert carried(path)[SOURCE_KEY] == digest(original)
        assert json.loads(carried(path)[DOMAIN_KEY])["x"]["upper"] == upper
    assert carried(third)[SOURCE_KEY] == digest(original)
    with pytest.raises(DomainError):
        onnx_exact.optimize_file(third, tmp_path / "wider.onnx", domain="0:0.5")
    onnx_exact.verify(original, third)


def test_rebase_makes_the_file_itself_the_first_source(first: Path, tmp_path: Path) -> None:
    anew = tmp_path / "anew.onnx"
    onnx_exact.optimize_file(first, anew, domain="-1:2", rebase=True)
    assert carried(anew)[SOURCE_KEY] == digest(first)
    assert json.loads(carried(anew)[DOMAIN_KEY]) == {"x": {"lower": -1.0, "upper": 2.0}}
    assert onnx_exact.analyze(first, domain="-1:2", rebase=True).domain["x"]["upper"] == 2.0


def test_rebase_over_the_carried_domain_starts_a_copy_anew(first: Path, tmp_path: Path) -> None:
    anew = tmp_path / "anew.onnx"
    assert not onnx_exact.optimize_file(first, anew, rebase=True).changed
    assert carried(anew)[SOURCE_KEY] == digest(first)
    assert json.loads(carried(anew)[DOMAIN_KEY]) == BOX
    assert without_metadata(anew) == without_metadata(first)


def test_rebase_from_the_command_line(first: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    assert main(["optimize", str(first), str(out), "--domain", "0:2", "--rebase"]) == 0
    assert carried(out)[SOURCE_KEY] == digest(first)


def test_a_model_that_lost_its_domain_is_refused(first: Path, tmp_path: Path) -> None:
    for key, value in ((DOMAIN_KEY, None), (SOURCE_KEY, "no hash"), (SOURCE_KEY, "")):
        model = onnx.load(first)
        entry = next(e for e in model.metadata_props if e.key == key)
        model.metadata_props.remove(entry)
        if value is not None:
            model.metadata_props.add(key=key, value=value)
        path = tmp_path / "odd.onnx"
        onnx.save(model, path)
        with pytest.raises(ModelError, match="--rebase") as caught:
            onnx_exact.optimize_file(path, tmp_path / "out.onnx", domain="0:1")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out.onnx").exists()
        onnx_exact.optimize_file(path, tmp_path / "anew.onnx", domain="0:1", rebase=True)
        assert carried(tmp_path / "anew.onnx")[SOURCE_KEY] == digest(path)


def test_a_copy_carries_the_domain_and_nothing_else_changes(stubborn: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "out.onnx", tmp_path / "again.onnx"
    report = onnx_exact.optimize_file(stubborn, out, domain="0:1")
    assert not report.changed
    assert report.totals.bytes_after == out.stat().st_size
    assert carried(out) == {DOMAIN_KEY: json.dumps(BOX), SOURCE_KEY: digest(stubborn)}
    assert out.read_bytes().startswith(stubborn.read_bytes())
    assert without_metadata(out) == stubborn.read_bytes()
    onnx_exact.optimize_file(out, again)
    assert again.read_bytes() == out.read_bytes()


def test_a_copy_over_a_narrower_domain_carries_that_one(stubborn: Path, tmp_path: Path) -> None:
    wide, narrow = tmp_path / "wide.onnx", tmp_path / "narrow.onnx"
    onnx_exact.optimize_file(stubborn, wide, domain="-1:2")
    onnx_exact.optimize_file(wide, narrow, domain="0:1")
    assert carried(narrow) == {DOMAIN_KEY: json.dumps(BOX), SOURCE_KEY: digest(stubborn)}
    assert without_metadata(narrow) == stubborn.read_bytes()


def test_a_copy_over_every_finite_input_is_the_file_itself(stubborn: Path, tmp_path: Path) -> None:
    """Nobody said where it is valid: it is valid everywhere, as any file without a domain is."""
    out = tmp_path / "out.onnx"
    onnx_exact.optimize_file(stubborn, out)
    assert out.read_bytes() == stubborn.read_bytes()


def test_a_copy_of_a_model_that_carries_the_domain_is_the_file_itself(
    stubborn: Path, tmp_path: Path
) -> None:
    model = onnx.load(stubborn)
    model.metadata_props.add(key=DOMAIN_KEY, value='{"lower": [0, 0, 0, 0], "upper": 1}')
    onnx.save(model, stubborn)
    for domain in (None, "0:1"):
        onnx_exact.optimize_file(stubborn, tmp_path / "out.onnx", domain=domain)
        assert (tmp_path / "out.onnx").read_bytes() == stubborn.read_bytes()


def test_a_copy_in_place_carries_the_domain(stubborn: Path) -> None:
    before = stubborn.read_bytes()
    onnx_exact.optimize_file(stubborn, stubborn, domain="0:1", in_place=True)
    assert json.loads(carried(stubborn)[DOMAIN_KEY]) == BOX
    assert without_metadata(stubborn) == before


def test_a_copy_in_memory_carries_the_domain(stubborn: Path) -> None:
    model = onnx.load(stubborn)
    new, report = onnx_exact.optimize(model, domain="0:1")
    assert not report.changed
    assert json.loads(metadata_of(new)[DOMAIN_KEY]) == BOX
    assert not metadata_of(model)
    again, _ = onnx_exact.optimize(new)
    assert again == new


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_copy_with_external_data_carries_the_domain(
    stubborn: Path, tmp_path: Path, elsewhere: bool
) -> None:
    path = tmp_path / "external.onnx"
    onnx.save(
        onnx.load(stubborn), path, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    before = onnx.load(path).SerializeToString()
    folder = tmp_path / "other" if elsewhere else tmp_path
    folder.mkdir(exist_ok=True)
    report = onnx_exact.optimize_file(path, folder / "out.onnx", domain="0:1")
    assert (folder / "w.bin").read_bytes() == (tmp_path / "w.bin").read_bytes()
    assert json.loads(carried(folder / "out.onnx")[DOMAIN_KEY]) == BOX
    size = (folder / "out.onnx").stat().st_size + (folder / "w.bin").stat().st_size
    assert report.totals.bytes_after == size
    assert without_metadata(folder / "out.onnx") == before
    if not elsewhere:
        onnx_exact.optimize_file(path, path, domain="0:1", in_place=True)
        assert json.loads(carried(path)[DOMAIN_KEY]) == BOX
        assert without_metadata(path) == before


@pytest.mark.parametrize("certified", [True, False])
def test_a_copy_is_verified_without_naming_the_domain(
    stubborn: Path, tmp_path: Path, certified: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    out, certificate = tmp_path / "out.onnx", tmp_path / "c.npz"
    flags = ["--certificate", str(certificate)] if certified else []
    assert main(["optimize", str(stubborn), str(out), "--domain", "0:1", *flags]) == 0
    assert "a copy of the input that carries the domain" in " ".join(capfd.readouterr().out.split())
    assert main(["verify", str(stubborn), str(out), *flags]) == 0


def test_domain_of_a_copy_bounds_each_entry_as_it_was_given(stubborn: Path, tmp_path: Path) -> None:
    upper = [0.1, 0.2, 0.3, 0.4]
    onnx_exact.optimize_file(stubborn, tmp_path / "out.onnx", domain=(0.0, upper), method="bounds")
    found = json.loads(carried(tmp_path / "out.onnx")[DOMAIN_KEY])["x"]
    assert np.ravel(found["upper"]).tolist() == np.maximum(upper, np.float32(upper)).tolist()
