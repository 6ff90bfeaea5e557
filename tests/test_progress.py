"""What is shown during long work, on a clock of the test's own."""

from __future__ import annotations

import io
from collections.abc import Callable
from threading import Timer

import pytest

from onnx_exact.progress import Shown, Silent

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
    return Shown(stream, PATIENCE, clock, clock.later)  # type: ignore[arg-type]


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
    assert stream.getvalue() == "decide: chain 1 ...\nwrite ...\n"


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
    assert raw.getvalue() == b"decide: cha?ne ...\n"


def test_stream_that_fails_is_no_reason_to_end() -> None:
    with Shown(Broken(), patience=0.0) as progress:
        progress.stage("decide")
        progress.stage("write")


def test_library_default_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    Silent().stage("read", "x")
    assert capfd.readouterr() == ("", "")
