"""The commands: flags, exit codes, what is printed where."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_exact
from onnx_exact import pipeline
from onnx_exact.cli import main
from onnx_exact.errors import ValidationError
from onnx_exact.methods import DEFAULT_LP_SOLVER, METHODS
from onnx_exact.stages import deciding, writing
from tests.lines import complaints
from tests.small_network import network

HEAVY = ("onnx", "onnxruntime", "onnx_graphsurgeon", "cvxpy", "pyscipopt", "rich", "scipy", "numpy")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return network(tmp_path / "in.onnx")


def command(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "onnx_exact", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **options,
    )


def refused(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line on stderr of a command that ends with code 2."""
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    out, err = capfd.readouterr()
    err = complaints(err)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_optimize_writes_a_smaller_model_and_its_report(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = source.read_bytes()
    out, report = tmp_path / "out.onnx", tmp_path / "r.json"
    arguments = ["optimize", source, out, "--domain", "0:1", "--report", report, "--seed", "3"]
    assert main([str(a) for a in arguments]) == 0
    w1, b1 = (numpy_helper.to_array(t) for t in onnx.load(source).graph.initializer[:2])
    dead = int((np.maximum(w1, 0).sum(axis=1) + b1 <= 0).sum())
    assert dead >= 3
    data = json.loads(report.read_text())
    assert data["totals"]["stably_inactive"] == dead
    assert data["totals"]["units_after"] <= data["totals"]["units_before"] - dead
    assert data["domain"] == {"x": {"lower": 0.0, "upper": 1.0}}
    assert data["seed"] == 3
    printed = capfd.readouterr()
    assert complaints(printed.err) == ""
    assert "Proved over the domain (--domain 0:1)" in printed.out
    assert source.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "out.onnx", "r.json"]


def test_analyze_writes_nothing_but_the_report(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "r.json"
    assert main(["analyze", str(source), "--domain=-1:1", "--report", str(report)]) == 0
    assert json.loads(report.read_text())["command"] == "analyze"
    assert "nothing was changed" in capfd.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "r.json"]


def test_without_a_domain_the_command_says_so_and_succeeds(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.onnx"
    assert main(["optimize", str(source), str(out)]) == 0
    printed = " ".join(capfd.readouterr().out.split())
    assert "No domain was given" in printed
    assert "--domain LO:HI" in printed


class Recorder:
    """Stands in for the pipeline and remembers what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.options: dict[str, Any] = {}
        for name in ("optimize_file", "analyze"):
            monkeypatch.setattr(pipeline, name, self.record)

    def record(self, *paths: Path, **options: Any) -> None:
        self.options = {"paths": paths, **options}
        raise ValidationError("seen")


def test_flags_reach_the_pipeline(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(monkeypatch)
    text = "--method bounds --time-limit 2.5 --samples s.npy --rtol 1e-3 --atol 0 --seed 7"
    arguments = ["optimize", str(source), str(tmp_path / "o.onnx"), *text.split()]
    arguments += ["--reductions", "published", "--max-deviation", "0.5", "--goal", "size"]
    arguments += ["--align", "4"]
    arguments += ["--trust-solver", "--rebase", "--certificate", "c.npz"]
    assert main([*arguments, "--domain", "a=0:1", "--domain", "-1:2", "--in-place"]) == 1
    recorder.options.pop("progress")
    recorder.options.pop("deliver")
    assert recorder.options == {
        "paths": (source, tmp_path / "o.onnx"),
        "domain": ["a=0:1", "-1:2"],
        "rebase": True,
        "method": "bounds",
        "time_limit": 2.5,
        "samples": "s.npy",
        "rtol": 1e-3,
        "atol": 0.0,
        "seed": 7,
        "jobs": 1,
        "lp_solver": DEFAULT_LP_SOLVER,
        "reductions": "published",
        "max_deviation": 0.5,
        "goal": "size",
        "align": 4,
        "trust_solver": True,
        "certificate": "c.npz",
        "in_place": True,
    }
    assert main(["analyze", str(source)]) == 1
    assert recorder.options["domain"] is None
    assert recorder.options["rebase"] is False
    assert recorder.options["method"] == METHODS[0]
    assert "in_place" not in recorder.options


@pytest.mark.parametrize("text", ["-1:1", "-inf:0", "-.5:0", "-1e-3:1", "0:1", "x=-1:1"])
def test_range_may_start_with_a_minus_sign(
    source: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    recorder = Recorder(monkeypatch)
    assert main(["analyze", str(source), "--domain", text]) == 1
    assert recorder.options["domain"] == [text]


def test_failed_validation_exits_with_1_and_one_line(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    Recorder(monkeypatch)
    assert main(["optimize", str(source), str(tmp_path / "o.onnx")]) == 1
    assert capfd.readouterr() == ("", "error: seen\n")


def test_inputs_that_refute_a_result_are_saved_beside_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refute(*models: object, **options: Any) -> None:
        raise ValidationError("seen", {"x": np.arange(4.0)})

    monkeypatch.setattr(writing, "validate", refute)
    out = tmp_path / "out.onnx"
    kept = tmp_path / "out.onnx.counterexample.npz"
    assert main(["optimize", str(source), str(out), "--domain", "0:1"]) == 1
    error = complaints(capfd.readouterr().err)
    assert error == f"error: seen; the input that shows it is in {kept}\n"
    with np.load(kept) as found:
        np.testing.assert_array_equal(found["x"], np.arange(4.0))
    assert not out.exists()


def test_interruption_exits_with_130_and_one_line(
    source: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*paths: Path, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "analyze", interrupted)
    assert main(["analyze", str(source)]) == 130
    assert capfd.readouterr() == ("", "interrupted\n")


@pytest.mark.parametrize(
    "flags",
    [
        "--time-limit 0",
        "--time-limit -1",
        "--time-limit nan",
        "--time-limit inf",
        "--time-limit soon",
        "--rtol -1",
        "--atol nan",
        "--atol inf",
        "--seed -1",
        "--seed 1.5",
        "--method guess",
        "--reductions some",
        "--goal some",
        "--max-deviation -1",
        "--max-deviation nan",
        "--domain 1:0",
        "--domain nan:1",
        "--domain -1:-2",
        "--domain y=0:1",
        "--domain nowhere.npz",
        "--domain 0",
        "--domain",
        "--samples nowhere.npy",
        "--unknown",
        "--dom 0:1",
        "--report nowhere/r.json",
    ],
)
def test_unusable_flag_is_one_line_and_leaves_no_output(
    source: Path, tmp_path: Path, flags: str, capfd: pytest.CaptureFixture[str]
) -> None:
    refused(capfd, "optimize", source, tmp_path / "out.onnx", *flags.split())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx"]


@pytest.mark.parametrize("arguments", ["optimize", "optimize a.onnx", "simplify a.onnx b.onnx"])
def test_incomplete_command_is_one_line(arguments: str, capfd: pytest.CaptureFixture[str]) -> None:
    refused(capfd, *arguments.split())


def test_without_its_dependencies_the_command_says_so_in_one_line(
    source: Path, tmp_path: Path
) -> None:
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "onnx_exact").symlink_to(Path(onnx_exact.__file__).parent)
    out = tmp_path / "out.onnx"
    ended = subprocess.run(
        [sys.executable, "-S", "-m", "onnx_exact", "optimize", source, out],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "alone")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(r"error: \w+ is not installed; .*\n", ended.stderr)
    assert not out.exists()


@pytest.mark.parametrize("content", [None, b"", b"garbage", b"\x08\x08"])
def test_file_that_is_no_model_is_one_line(
    tmp_path: Path, content: bytes | None, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.onnx"
    if content is not None:
        path.write_bytes(content)
    assert "bad.onnx" in refused(capfd, "optimize", path, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("link", ["same", "relative", "symbolic", "hard"])
def test_output_equal_to_the_input_is_refused_by_whatever_name(
    source: Path, tmp_path: Path, link: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = source.read_bytes()
    target = tmp_path / "link.onnx"
    match link:
        case "same":
            target = source
        case "relative":
            target = tmp_path / ".." / tmp_path.name / "in.onnx"
        case "symbolic":
            target.symlink_to(source)
        case "hard":
            target.hardlink_to(source)
    assert "--in-place" in refused(capfd, "optimize", source, target, "--domain", "0:1")
    assert source.read_bytes() == before


def test_in_place_replaces_the_input(source: Path, tmp_path: Path) -> None:
    before = source.read_bytes()
    assert main(["optimize", str(source), str(source), "--domain", "0:1", "--in-place"]) == 0
    assert len(source.read_bytes()) != len(before)
    assert [p.name for p in tmp_path.iterdir()] == ["in.onnx"]


def test_place_that_cannot_be_written_is_refused_before_any_work(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def never(*arguments: Any) -> None:
        raise AssertionError("the model was read")

    monkeypatch.setattr(deciding, "read_model", never)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for target in ("nowhere/out.onnx", "folder", "file/out.onnx"):
        refused(capfd, "optimize", source, tmp_path / target)
        refused(capfd, "analyze", source, "--report", tmp_path / target)
    refused(capfd, "optimize", source, os.devnull)
    if os.geteuid() != 0:
        (tmp_path / "folder").chmod(0o500)
        refused(capfd, "optimize", source, tmp_path / "folder" / "out.onnx")


def test_missing_input_is_refused_also_where_the_output_is_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out.onnx").write_text("precious")
    refused(capfd, "optimize", tmp_path / "missing.onnx", tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_text() == "precious"


def test_report_in_place_of_a_model_is_refused(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.onnx"
    for report in (source, out):
        assert "would replace" in refused(capfd, "optimize", source, out, "--report", report)


def test_reader_that_goes_away_early_is_no_error(source: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "onnx_exact", "analyze", str(source)],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
        timeout=120,
    )
    os.close(writing)
    assert (done.returncode, complaints(done.stderr.decode())) == (0, "")


def test_output_is_ascii_where_the_stream_is(source: Path) -> None:
    done = command("analyze", source, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, complaints(done.stderr)) == (0, "")
    assert done.stdout.isascii()


def test_error_about_a_name_that_the_stream_cannot_encode_is_printed(tmp_path: Path) -> None:
    done = command(
        "analyze", tmp_path / "ü.onnx", env={**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    )
    assert done.returncode == 2
    assert complaints(done.stderr).startswith("error: ")


def test_too_little_memory_is_one_line(
    source: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def hungry(*_: Any, **__: Any) -> None:
        raise MemoryError("Unable to allocate 96 GiB")

    monkeypatch.setattr(deciding, "read_model", hungry)
    error = refused(capfd, "analyze", source)
    assert error == "error: not enough memory (Unable to allocate 96 GiB)\n"


@pytest.mark.parametrize("arguments", [["--help"], ["optimize", "--help"], ["--version"]])
def test_help_and_version_are_answered(arguments: list[str]) -> None:
    assert command(*arguments).returncode == 0


@pytest.mark.parametrize(
    "statement",
    [
        "import onnx_exact",
        "onnx_exact.cli.main(['--help'])",
        "onnx_exact.cli.main(['optimize', '--help'])",
        "onnx_exact.cli.main(['--version'])",
    ],
)
def test_heavy_libraries_are_loaded_only_where_they_are_used(statement: str) -> None:
    code = (
        "import sys, onnx_exact.cli\n"
        f"try: {statement}\n"
        "except SystemExit: pass\n"
        f"print(sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.strip() == "[]"


def test_version_is_that_of_the_package() -> None:
    assert command("--version").stdout == f"onnx-exact {onnx_exact.__version__}\n"


def test_public_names_are_there() -> None:
    for name in onnx_exact.__all__:
        assert getattr(onnx_exact, name) is not None
    assert set(onnx_exact.__all__) <= set(dir(onnx_exact))
    assert not hasattr(onnx_exact, "no_such_name")
