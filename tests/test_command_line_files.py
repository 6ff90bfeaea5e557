"""The command among files, links, streams and signals as shells have them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from onnx_exact.cli import main
from onnx_exact.pipeline import optimize_file
from tests.lines import complaints
from tests.small_network import network

posix = pytest.mark.skipif(os.name != "posix", reason="needs the files and signals of POSIX")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and /dev/full")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return network(tmp_path / "in.onnx")


def shell(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """A line of a shell in that folder, in which $ONNX_EXACT is the command."""
    return subprocess.run(
        line,
        shell=True,
        cwd=folder,
        env={
            **os.environ,
            "ONNX_EXACT": f"{sys.executable} -m onnx_exact",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def external(folder: Path) -> Path:
    path = folder / "in.onnx"
    model = onnx.load(network(path))
    onnx.save_model(
        model, path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    return path


# -- streams --


@posix
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_stream_is_no_reason_to_fail(source: Path, closed: str) -> None:
    done = shell(source.parent, f"$ONNX_EXACT optimize in.onnx out.onnx --domain 0:1 {closed}")
    assert done.returncode == 0
    assert complaints(done.stderr) == ""
    onnx.checker.check_model(onnx.load(source.with_name("out.onnx")))


@linux
def test_full_standard_output_is_one_line_and_the_model_is_there(source: Path) -> None:
    done = shell(source.parent, "$ONNX_EXACT optimize in.onnx out.onnx --domain 0:1 >/dev/full")
    assert done.returncode == 0
    assert complaints(done.stderr) == (
        "warning: done, but the text cannot be printed: No space left on device\n"
    )
    assert source.with_name("out.onnx").exists()


@linux
def test_report_that_cannot_be_printed_leaves_no_model(source: Path) -> None:
    line = "$ONNX_EXACT optimize in.onnx out.onnx --domain 0:1 --report - >/dev/full"
    done = shell(source.parent, line)
    assert done.returncode == 2
    assert (
        complaints(done.stderr) == "error: the report cannot be printed: No space left on device\n"
    )
    assert os.listdir(source.parent) == ["in.onnx"]


@linux
@pytest.mark.parametrize("arguments", ["--help", "--version", "optimize --help"])
def test_help_into_a_full_device_is_no_traceback(tmp_path: Path, arguments: str) -> None:
    assert "Traceback" not in shell(tmp_path, f"$ONNX_EXACT {arguments} >/dev/full").stderr


@linux
def test_error_into_a_full_device_keeps_its_exit_code(tmp_path: Path) -> None:
    assert shell(tmp_path, "$ONNX_EXACT analyze none.onnx 2>/dev/full").returncode == 2


@pytest.mark.parametrize("command", ["optimize", "analyze"])
def test_dash_prints_the_report_and_nothing_else(
    source: Path, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    paths = [source, source.with_name("out.onnx")][: 2 if command == "optimize" else 1]
    assert main([command, *map(str, paths), "--domain", "0:1", "--report", "-"]) == 0
    printed = capfd.readouterr()
    assert json.loads(printed.out)["command"] == command
    assert complaints(printed.err) == ""


def test_solver_prints_nothing(tmp_path: Path) -> None:
    script = "from onnx_exact.milp.highs import highs; highs().Highs(); print('end')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert (done.stdout, done.stderr) == ("end\n", "")


# -- signals --

ENDED = """
import os, signal, sys
from onnx_exact import cli
from onnx_exact.graph import write
from onnx_exact.stages import writing
# Whatever the tests were started under: nohup ignores the one, a shell's & the other.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
def validate(*args, **options):
    os.kill(os.getpid(), signal.{name})
    raise AssertionError("the signal did not arrive")
writing.validate = validate
sys.exit(cli.main(sys.argv[1:]))
"""


@posix
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_signal_leaves_nothing_behind(source: Path, name: str, code: int) -> None:
    arguments = ["optimize", "in.onnx", "out.onnx", "--domain", "0:1", "--certificate", "c.npz"]
    done = subprocess.run(
        [sys.executable, "-c", ENDED.format(name=name), *arguments, "--report", "r.json"],
        cwd=source.parent,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        timeout=300,
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert os.listdir(source.parent) == ["in.onnx"]


@posix
def test_signals_that_the_caller_ignores_stay_ignored(source: Path) -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main(["analyze", str(source), "--domain", "0:1"]) == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@posix
def test_signals_are_handled_as_before_once_the_command_is_done(source: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert main(["analyze", str(source), "--domain", "0:1"]) == 0
    assert signal.getsignal(signal.SIGTERM) == before


# -- links, devices, modes --


@posix
def test_output_that_is_a_link_is_followed(source: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "out.onnx").symlink_to("there/real.onnx")
    optimize_file(source, tmp_path / "out.onnx", domain="0:1")
    assert (tmp_path / "out.onnx").is_symlink()
    onnx.checker.check_model(onnx.load(tmp_path / "there" / "real.onnx"))
    assert os.listdir(tmp_path / "there") == ["real.onnx"]


@posix
def test_link_into_another_folder_cannot_hold_external_data(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "out.onnx").symlink_to("there/real.onnx")
    assert main(["optimize", str(path), str(tmp_path / "out.onnx"), "--domain", "0:1"]) in (0, 2)
    for made in (tmp_path / "there").glob("*.onnx"):
        onnx.load(made)


@linux
@pytest.mark.parametrize("target", ["/proc/self/fd/1", "/dev/null", "/proc/self/comm"])
@pytest.mark.parametrize("flag", ["OUT", "--report", "--certificate"])
def test_devices_and_files_of_proc_are_refused(
    source: Path, capfd: pytest.CaptureFixture[str], target: str, flag: str
) -> None:
    link = source.with_name("link")
    link.symlink_to(target)
    paths = [str(source), str(link if flag == "OUT" else source.with_name("out.onnx"))]
    options = [] if flag == "OUT" else [flag, str(link)]
    assert main(["optimize", *paths, "--domain", "0:1", *options]) == 2
    assert complaints(capfd.readouterr().err).count("\n") == 1
    assert link.is_symlink()
    assert sorted(os.listdir(source.parent)) == ["in.onnx", "link"]


@posix
def test_links_in_a_circle_are_refused(source: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source.with_name("a").symlink_to("b")
    source.with_name("b").symlink_to("a")
    assert main(["optimize", str(source), str(source.with_name("a")), "--domain", "0:1"]) == 2
    assert complaints(capfd.readouterr().err).count("\n") == 1


@posix
@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_in_place_keeps_the_mode(source: Path, mode: int) -> None:
    source.chmod(mode)
    optimize_file(source, source, in_place=True, domain="0:1")
    assert source.stat().st_mode & 0o777 == mode


@linux
def test_paths_that_are_no_utf_8_work(source: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(source.parent) + b"/\xff"))
    folder.mkdir()
    first, second = (folder / os.fsdecode(name) for name in (b"\xfe.onnx", b"\xfd.onnx"))
    first.write_bytes(source.read_bytes())
    for arguments in (
        ["optimize", str(first), str(second), "--domain", "0:1", "--report", f"{second}.json"],
        ["analyze", str(second), "--domain", "0:1"],
    ):
        assert main(arguments) == 0
    assert json.loads(Path(f"{second}.json").read_text())["source"] == "?.onnx"


@linux
def test_external_data_beside_a_path_that_is_no_utf_8_is_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The library that reads and writes ONNX files cannot open them there."""
    path = external(tmp_path)
    odd = tmp_path / os.fsdecode(b"\xfe.onnx")
    odd.write_bytes(path.read_bytes())
    out = tmp_path / os.fsdecode(b"\xfd.onnx")
    for arguments in ([odd, tmp_path / "out.onnx"], [odd, out], [path, out]):
        assert main(["optimize", *map(str, arguments), "--domain", "0:1"]) == 2
        error = complaints(capfd.readouterr().err)
        assert "UTF-8" in error
        assert error.count("\n") == 1
    assert len(os.listdir(tmp_path)) == 3


@linux
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/stdin"])
def test_input_that_is_no_regular_file_is_refused(tmp_path: Path, device: str) -> None:
    done = shell(tmp_path, f"echo x | $ONNX_EXACT analyze {device}")
    assert done.returncode == 2
    assert complaints(done.stderr) == (f"error: {device} is no regular file; give an ONNX file\n")


# -- external data --


@posix
def test_in_place_by_a_link_replaces_the_file_and_its_data(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    external(tmp_path / "there")
    link = tmp_path / "link.onnx"
    link.symlink_to("there/in.onnx")
    optimize_file(link, link, in_place=True, domain="0:1")
    assert link.is_symlink()
    onnx.load(tmp_path / "there" / "in.onnx")
    assert not (tmp_path / "there" / "weights.bin").exists()


@pytest.mark.parametrize("flag", ["--report", "--certificate"])
def test_external_data_of_the_input_is_not_written_over(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], flag: str
) -> None:
    path = external(tmp_path)
    before = (tmp_path / "weights.bin").read_bytes()
    arguments = [str(path), str(tmp_path / "out.onnx"), "--domain", "0:1"]
    assert main(["optimize", *arguments, flag, str(tmp_path / "weights.bin")]) == 2
    assert "part of the input" in complaints(capfd.readouterr().err)
    assert (tmp_path / "weights.bin").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["in.onnx", "weights.bin"]


def test_in_place_the_old_data_file_goes(tmp_path: Path) -> None:
    path = external(tmp_path)
    report = optimize_file(path, path, in_place=True, domain="0:1")
    there = sorted(os.listdir(tmp_path))
    assert "weights.bin" not in there
    assert set(there) <= {"in.onnx", "in.onnx.data"}
    assert report.totals.bytes_after == sum(f.stat().st_size for f in tmp_path.iterdir())
    onnx.load(path)


def test_in_place_a_data_file_that_another_model_names_stays(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "twin.onnx").write_bytes(path.read_bytes())
    optimize_file(path, path, in_place=True, domain="0:1")
    onnx.load(tmp_path / "twin.onnx")


def test_data_file_of_the_input_stays_where_the_output_is_another_file(tmp_path: Path) -> None:
    path = external(tmp_path)
    before = (tmp_path / "weights.bin").read_bytes()
    optimize_file(path, tmp_path / "out.onnx", domain="0:1")
    assert (tmp_path / "weights.bin").read_bytes() == before
    onnx.load(path)


@posix
def test_file_that_may_not_grow_leaves_nothing(source: Path) -> None:
    """The shell lets no file have a byte, as a full disk does."""
    line = "ulimit -f 0; $ONNX_EXACT optimize in.onnx out.onnx --domain 0:1 --report r.json"
    done = shell(source.parent, line)
    assert done.returncode == 2
    assert complaints(done.stderr).startswith("error: cannot write ")
    assert complaints(done.stderr).count("\n") == 1
    assert os.listdir(source.parent) == ["in.onnx"]


@pytest.mark.parametrize("what", ["report", "certificate", "model"])
def test_disk_that_is_full_leaves_neither_report_nor_model(
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    what: str,
) -> None:
    """As if the disk were full from the nth byte of one of the files on."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    places = {
        "report": "pathlib.Path.write_text",
        "certificate": "numpy.savez_compressed",
        "model": "pathlib.Path.write_bytes",
    }
    monkeypatch.setattr(places[what], full)
    arguments = [str(source), str(source.with_name("out.onnx")), "--domain", "0:1"]
    arguments += ["--report", str(source.with_name("r.json"))]
    arguments += ["--certificate", str(source.with_name("c.npz"))]
    assert main(["optimize", *arguments]) == 2
    error = complaints(capfd.readouterr().err)
    assert "No space left on device" in error
    assert error.count("\n") == 1
    assert os.listdir(source.parent) == ["in.onnx"]
