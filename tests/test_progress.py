"""What is shown during long work."""

from __future__ import annotations

import io
import time

from onnx_exact.progress import Shown, Silent

SHORT = 0.05


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_quick_work_shows_nothing() -> None:
    for stream in (io.StringIO(), Terminal()):
        with Shown(stream) as progress:
            progress.stage("read")
            progress.stage("decide", "chain 1")
        assert stream.getvalue() == ""


def test_long_work_shows_one_line_a_stage_in_a_pipe() -> None:
    stream = io.StringIO()
    with Shown(stream, patience=SHORT) as progress:
        progress.stage("read")
        progress.stage("decide", "chain 1")
        time.sleep(4 * SHORT)
        progress.stage("decide", "chain 1")
        progress.stage("write")
    progress.stage("after the end")
    assert stream.getvalue() == "decide: chain 1 ...\nwrite ...\n"


def test_long_work_shows_a_spinner_on_a_terminal() -> None:
    stream = Terminal()
    with Shown(stream, patience=0.0) as progress:
        progress.stage("decide", "chain [1]")
        progress.stage("write")
        time.sleep(4 * SHORT)
    assert "write" in stream.getvalue()


def test_names_that_the_stream_cannot_encode_are_shown_with_replacements() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    with Shown(stream, patience=0.0) as progress:
        progress.stage("decide", "chaîne")
    assert raw.getvalue() == b"decide: cha?ne ...\n"


def test_library_default_is_silent(capfd: object) -> None:
    Silent().stage("read", "x")
    assert capfd.readouterr() == ("", "")  # type: ignore[attr-defined]
