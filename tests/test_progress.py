"""What is shown during long work, on a clock of the test's own."""

from __future__ import annotations

import io
from collections.abc import Callable
from threading import Timer

import pytest

from onnx_exact.runtime.progress import Logged, Shown, Silent

PATIENCE = 2.0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    """A stream that nothing can be written to any more."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self._call: Callable[[], None] | None = None
        self._due = float("inf")

    def __call__(self) -> float:
        return self.now

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        self._due, self._call = self.now + seconds, call
        # Never started to any effect: its time does not come.
        return Timer(1e6, lambda: None)

    def passes(self, seconds: float) -> None:
        self.now += seconds
        if self._call is not None and self.now >= self._due:
            call, self._call = self._call, None
            call()


def shown(stream: io.TextIOBase, clock: Clock) -> Shown:
    return Shown(stream, None, PATIENCE, clock, clock.later)  # type: ignore[arg-type]


def test_quick_work_shows_nothing() -> None:
    for stream in (io.StringIO(), Terminal()):
        clock = Clock()
        with shown(stream, clock) as progress:
            progress.stage("read")
            clock.passes(0.99 * PATIENCE)
            progress.stage("decide", "chain 1")
        clock.passes(PATIENCE)
        assert stream.getvalue() == ""


def test_long_work_shows_one_line_a_stage_in_a_pipe() -> None:
    stream, clock = io.StringIO(), Clock()
    with shown(stream, clock) as progress:
        progress.stage("read")
        progress.stage("decide", "chain 1")
        clock.passes(PATIENCE)
        progress.stage("decide", "chain 1")
        progress.stage("write")
    progress.stage("after the end")
    assert stream.getvalue() == "decide: chain 1 (2 s) ...\nwrite (2 s) ...\n"


def test_long_work_shows_a_spinner_on_a_terminal() -> None:
    stream, clock = Terminal(), Clock()
    with shown(stream, clock) as progress:
        progress.stage("decide", "chain [1]")
        clock.passes(PATIENCE)
        progress.stage("write")
    # What is left on the terminal when the spinner ends.
    assert "write" in stream.getvalue()


def test_names_that_the_stream_cannot_encode_are_shown_with_replacements() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    with Shown(stream, patience=0.0) as progress:
        progress.stage("decide", "chaîne")
    assert raw.getvalue() == b"decide: cha?ne (0 s) ...\n"


def test_stream_that_fails_is_no_reason_to_end() -> None:
    with Shown(Broken(), patience=0.0) as progress:
        progress.stage("decide")
        progress.stage("write")


def test_library_default_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    Silent().stage("read", "x")
    assert capfd.readouterr() == ("", "")


def test_line_says_how_much_of_the_limit_is_left() -> None:
    stream, clock = io.StringIO(), Clock()
    with Shown(stream, 60.0, PATIENCE, clock, clock.later) as progress:
        progress.stage("decide", "layer 2 of 3, 12 units open")
        clock.passes(15.0)
        assert progress.line() == "decide: layer 2 of 3, 12 units open (15 s, 45 s left)"
        clock.passes(60.0)
        assert progress.line().endswith("(75 s, 0 s left)")


def test_log_has_every_stage(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "onnx_exact"):
        Logged().stage("decide", "100%d")
        Logged().stage("write")
    assert caplog.messages == ["decide: 100%d", "write"]
