"""Files appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import ModelProto

from onnx_exact.errors import ModelError, OutputError
from onnx_exact.graph import copy_unchanged as copy_among
from onnx_exact.graph import metadata_of, read_model, stamp, with_metadata
from onnx_exact.graph import write as write_module
from onnx_exact.graph import write_model as write_among
from onnx_exact.graph.read import Source
from onnx_exact.runtime.outputs import appearing
from tests.graph.build import Builder, assert_close, feed_for, run


def small() -> ModelProto:
    b = Builder()
    return b.model([b.gemm(b.relu(b.gemm("x", 6, 300)), 300, 2)])


def write_model(
    model: ModelProto, path: Path, *, source: Source, check: Callable[[Path], None]
) -> int:
    """Writes a model that appears alone."""
    with appearing() as outputs:
        return write_among(model, path, source=source, outputs=outputs, check=check)


def copy_unchanged(source: Source, path: Path) -> None:
    """Copies a model that appears alone."""
    with appearing() as outputs:
        copy_among(source, path, outputs)


def accept(path: Path) -> None:
    """A check that finds nothing."""


def external(folder: Path, name: str = "in.onnx") -> Path:
    path = folder / name
    onnx.save_model(small(), path, save_as_external_data=True, location=f"{name}.data")
    return path


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_model_is_written_and_nothing_else(tmp_path: Path) -> None:
    source = read_model(small())
    out = tmp_path / "out.onnx"
    write_model(source.model, out, source=source, check=accept)
    assert onnx.load(out) == source.model
    assert names(tmp_path) == ["out.onnx"]


def test_check_sees_the_whole_file_before_it_is_in_place(tmp_path: Path) -> None:
    source = read_model(small())
    out = tmp_path / "out.onnx"
    seen = []

    def check(path: Path) -> None:
        seen.append((onnx.load(path) == source.model, out.exists()))

    write_model(source.model, out, source=source, check=check)
    assert seen == [(True, False)]


@pytest.mark.parametrize("kept_external", [False, True])
def test_failed_check_leaves_nothing(tmp_path: Path, kept_external: bool) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    source = read_model(external(tmp_path) if kept_external else small())
    (folder / "out.onnx").write_bytes(b"older")

    def fail(path: Path) -> None:
        raise RuntimeError("does not agree")

    with pytest.raises(RuntimeError, match="does not agree"):
        write_model(source.model, folder / "out.onnx", source=source, check=fail)
    assert names(folder) == ["out.onnx"]
    assert (folder / "out.onnx").read_bytes() == b"older"


def test_model_that_fails_the_checker_is_not_written(tmp_path: Path) -> None:
    source = read_model(small())
    source.model.graph.node[0].input[0] = "nowhere"
    with pytest.raises(ModelError, match="fails the ONNX checker"):
        write_model(source.model, tmp_path / "out.onnx", source=source, check=accept)
    assert names(tmp_path) == []


def test_external_data_stays_external_in_one_new_file(tmp_path: Path) -> None:
    source = read_model(external(tmp_path))
    out = tmp_path / "out.onnx"
    (tmp_path / "out.onnx.data").write_bytes(b"stale" * 10_000)

    def check(path: Path) -> None:
        assert read_model(path).model == source.model

    write_model(source.model, out, source=source, check=check)
    assert names(tmp_path) == ["in.onnx", "in.onnx.data", "out.onnx", "out.onnx.data"]
    assert read_model(out).model == source.model
    assert read_model(out).locations
    sizes = [(tmp_path / f"{name}.onnx.data").stat().st_size for name in ("in", "out")]
    assert sizes[0] == sizes[1]
    feed = feed_for(source.model)
    import onnxruntime

    session = onnxruntime.InferenceSession(out)
    assert_close(session.run(None, feed)[0], run(source.model, feed)[0], "float32")


def test_external_data_is_replaced_in_place(tmp_path: Path) -> None:
    path = external(tmp_path)
    source = read_model(path)
    stamp(source.model, {"key": "value"})
    for _ in range(2):
        write_model(source.model, path, source=source, check=accept)
    assert read_model(path).model == source.model
    assert names(tmp_path) == ["in.onnx", "in.onnx.data"]


def test_model_too_large_for_one_file_gets_external_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_module, "LARGEST_MESSAGE", 2000)
    monkeypatch.setattr(write_module, "STRUCTURE_ALLOWANCE", 100)
    source = read_model(small())
    out = tmp_path / "out.onnx"
    write_model(source.model, out, source=source, check=accept)
    assert names(tmp_path) == ["out.onnx", "out.onnx.data"]
    assert read_model(out).model == source.model


def test_output_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    source = read_model(small())
    out = tmp_path / "none" / "out.onnx"
    for write in (
        lambda: write_model(source.model, out, source=source, check=accept),
        lambda: copy_unchanged(source, out),
    ):
        with pytest.raises(OutputError, match="cannot write") as caught:
            write()
        assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_output_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    source = read_model(small())
    for write in (
        lambda: write_model(source.model, tmp_path, source=source, check=accept),
        lambda: copy_unchanged(source, tmp_path),
    ):
        with pytest.raises(OutputError, match="is a folder"):
            write()
    assert names(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unwritable for root")
def test_output_in_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    source = read_model(small())
    try:
        with pytest.raises(OutputError, match="cannot write"):
            write_model(source.model, tmp_path / "out.onnx", source=source, check=accept)
    finally:
        tmp_path.chmod(0o700)


def test_output_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    source = read_model(small())
    with pytest.raises(OutputError, match="cannot write"):
        write_model(source.model, tmp_path / "file" / "out.onnx", source=source, check=accept)


def test_unchanged_model_is_copied_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "in.onnx"
    # Unknown fields, as a later version of ONNX may write them, are part of the bytes.
    path.write_bytes(small().SerializeToString() + b"\xfa\x3f\x03abc")
    source = read_model(path)
    out = tmp_path / "out.onnx"
    copy_unchanged(source, out)
    assert out.read_bytes() == path.read_bytes()
    assert names(tmp_path) == ["in.onnx", "out.onnx"]


def test_unchanged_model_is_copied_with_its_external_data(tmp_path: Path) -> None:
    path = external(tmp_path)
    source = read_model(path)
    folder = tmp_path / "other"
    folder.mkdir()
    copy_unchanged(source, folder / "out.onnx")
    assert names(folder) == ["in.onnx.data", "out.onnx"]
    assert (folder / "out.onnx").read_bytes() == path.read_bytes()
    assert read_model(folder / "out.onnx").model == source.model
    copy_unchanged(source, tmp_path / "out.onnx")
    assert read_model(tmp_path / "out.onnx").model == source.model
    assert names(tmp_path) == ["in.onnx", "in.onnx.data", "other", "out.onnx"]


def test_copy_does_not_overwrite_the_external_data_of_another_model(tmp_path: Path) -> None:
    source = read_model(external(tmp_path))
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "in.onnx.data").write_bytes(b"of another model")
    with pytest.raises(OutputError, match=r"in\.onnx\.data exists"):
        copy_unchanged(source, folder / "out.onnx")
    assert names(folder) == ["in.onnx.data"]


def test_copy_onto_itself_and_from_memory(tmp_path: Path) -> None:
    path = tmp_path / "in.onnx"
    path.write_bytes(small().SerializeToString())
    before = path.read_bytes()
    copy_unchanged(read_model(path), path)
    assert path.read_bytes() == before
    copy_unchanged(read_model(small()), tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx") == small()


def test_stamp_sets_its_entries_and_keeps_the_others() -> None:
    model = small()
    model.metadata_props.add(key="author", value="someone")
    model.metadata_props.add(key="onnx_exact.domain", value="old")
    stamp(model, {"onnx_exact.domain": "new", "onnx_exact.version": "1"})
    assert metadata_of(model) == {
        "author": "someone",
        "onnx_exact.domain": "new",
        "onnx_exact.version": "1",
    }
    assert len(model.metadata_props) == 3


@pytest.mark.parametrize("there", [False, True])
def test_metadata_of_a_serialized_model_change_nothing_else(there: bool) -> None:
    model = small()
    model.metadata_props.add(key="author", value="someone")
    if there:
        model.metadata_props.add(key="onnx_exact.domain", value="old")
    # Unknown fields, as a later version of ONNX may write them.
    data = model.SerializeToString() + b"\xfa\x3f\x03abc"
    found = with_metadata(data, {"onnx_exact.domain": "new", "onnx_exact.version": "1"})
    assert b"\xfa\x3f\x03abc" in found
    assert there or found.startswith(data)
    new = ModelProto.FromString(found)
    onnx.checker.check_model(new)
    expected = {"author": "someone", "onnx_exact.domain": "new", "onnx_exact.version": "1"}
    assert metadata_of(new) == expected
    assert new.graph == model.graph


def test_external_data_of_the_input_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "in.onnx"
    onnx.save_model(small(), path, save_as_external_data=True, location="other.onnx.data")
    source, before = read_model(path), (tmp_path / "other.onnx.data").read_bytes()
    for target in ("other.onnx", "other.onnx.data"):
        with pytest.raises(OutputError, match="the input's data"):
            write_model(source.model, tmp_path / target, source=source, check=accept)
    assert (tmp_path / "other.onnx.data").read_bytes() == before
    assert names(tmp_path) == ["in.onnx", "other.onnx.data"]
