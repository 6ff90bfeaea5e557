"""Files appear together or not at all, and no temporary file stays."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from onnx_exact.errors import OutputError
from onnx_exact.runtime.outputs import appearing, real, reported


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_files_appear_at_the_end_and_no_sooner(tmp_path: Path) -> None:
    with appearing() as outputs:
        for name in ("a", "b"):
            outputs.place(tmp_path / name).write_text(name)
        assert not (tmp_path / "a").exists()
    assert tree(tmp_path) == {"a": b"a", "b": b"b"}
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_appears_where_anything_goes_wrong(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def write() -> None:
        with appearing() as outputs:
            outputs.place(tmp_path / "a").write_text("new")
            raise error

    (tmp_path / "a").write_text("old")
    with pytest.raises(error):
        write()
    assert tree(tmp_path) == {"a": b"old"}
    assert len(list(tmp_path.iterdir())) == 1


def test_all_are_as_they_were_where_one_cannot_be_put_in_its_place(tmp_path: Path) -> None:
    def write() -> None:
        with appearing() as outputs:
            outputs.place(tmp_path / "a").write_text("new a")
            outputs.place(tmp_path / "b").write_text("new b")
            made = outputs.folder(tmp_path / "c") / "c"
            made.write_text("no file takes the place of a folder")
            outputs.move(made, tmp_path / "c")
            outputs.discard(tmp_path / "a")

    (tmp_path / "a").write_text("old a")
    (tmp_path / "c").mkdir()
    with pytest.raises(OutputError, match="cannot write") as caught:
        write()
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == {"a": b"old a"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "c"]


def test_two_results_of_one_name_are_refused(tmp_path: Path) -> None:
    def write() -> None:
        with appearing() as outputs:
            outputs.place(tmp_path / "a")
            outputs.place(tmp_path / "link")

    (tmp_path / "link").symlink_to("a")
    with pytest.raises(OutputError, match="two results"):
        write()
    assert os.listdir(tmp_path) == ["link"]


def test_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to(tmp_path / "there" / "c")
    with appearing() as outputs:
        outputs.place(tmp_path / "a").write_text("new")
    assert (tmp_path / "a").is_symlink()
    assert (tmp_path / "b").is_symlink()
    assert (tmp_path / "there" / "c").read_text() == "new"
    assert real(tmp_path / "a") == real(tmp_path / "there" / "c")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_new_file_has_the_mode_that_the_umask_leaves(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with appearing() as outputs:
            made = outputs.place(tmp_path / "a")
            made.touch(mode=0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_mode_of_the_file_that_was_there_is_kept(tmp_path: Path, mode: int) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(mode)
    with appearing() as outputs:
        outputs.place(tmp_path / "a").write_text("new")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode
    assert (tmp_path / "a").read_text() == "new"


def test_what_is_no_longer_needed_goes_once_all_is_there(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("old")
    with appearing() as outputs:
        outputs.discard(tmp_path / "a")
        outputs.discard(tmp_path / "b")
        outputs.place(tmp_path / "b").write_text("new")
        assert (tmp_path / "a").exists()
    assert tree(tmp_path) == {"b": b"new"}


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, "\udcff.onnx"])
def test_any_name_that_a_file_may_have_will_do(tmp_path: Path, name: str) -> None:
    with appearing() as outputs:
        outputs.place(tmp_path / name).write_text("x")
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_stale_folder_of_an_earlier_process_is_left_alone(tmp_path: Path) -> None:
    stale = tmp_path / f".a.{os.getpid()}.0.tmp"
    stale.mkdir()
    with appearing() as outputs:
        outputs.place(tmp_path / "a").write_text("x")
    assert stale.is_dir()
    assert (tmp_path / "a").exists()


def test_failure_of_the_file_system_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"cannot write .*no.*: No such file"),
        reported(tmp_path / "no"),
    ):
        (tmp_path / "none" / "a").write_text("x")
