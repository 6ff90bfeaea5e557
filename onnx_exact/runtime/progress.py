"""What is going on during long work: silent in the library, shown by the command."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Timer
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TextIO

from onnx_exact.runtime.streams import write

if TYPE_CHECKING:
    from rich.status import Status
    from rich.text import Text

LOGGER = logging.getLogger("onnx_exact")
# Work that ends sooner than this shows nothing.
PATIENCE_SECONDS = 2.0


class Progress(Protocol):
    """Told by the pipeline what it does."""

    def stage(self, name: str, detail: str = "") -> None:
        """The work now is `name`, on `detail`."""


class Silent:
    """Shows nothing."""

    def stage(self, name: str, detail: str = "") -> None:
        """Nothing is shown."""


class Logged:
    """Tells Python's logging of each stage, as INFO of the logger `onnx_exact`."""

    def stage(self, name: str, detail: str = "") -> None:
        """The work now is `name`, on `detail`."""
        LOGGER.info("%s: %s" if detail else "%s%s", name, detail)


class Shown:
    """Shows the stage once `patience` seconds have passed: one line in place, or lines in a pipe.

    With it goes the time that has passed, and what is left of the limit.

    A context manager: leaving it ends the display. A stage that holds the interpreter's lock all
    along shows up when it first lets go.

    Args:
        stream: where to show it.
        limit: seconds for the whole run, None for no limit.
        patience: seconds before anything is shown.
        clock, later: what says how late it is, and what calls a function some seconds later.
    """

    def __init__(
        self,
        stream: TextIO,
        limit: float | None = None,
        patience: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], Timer] = threading.Timer,
    ) -> None:
        self._clock = clock
        self._stream = stream
        self._limit = limit
        self._patience = patience
        self._started = clock()
        self._text = ""
        self._shown = ""
        self._status: Status | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._timer = later(patience, self._show)
        self._timer.daemon = True

    def __enter__(self) -> Shown:
        self._started = self._clock()
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._closed = True
            if self._status is not None:
                with suppress(OSError):
                    self._status.stop()

    def stage(self, name: str, detail: str = "") -> None:
        """The work now is `name`, on `detail`."""
        self._text = f"{name}: {detail}" if detail else name
        if self._clock() - self._started >= self._patience:
            self._show()

    def line(self) -> str:
        """What is shown now."""
        elapsed = self._clock() - self._started
        left = ""
        if self._limit is not None:
            left = f", {max(self._limit - elapsed, 0.0):.0f} s left"
        return f"{self._text} ({elapsed:.0f} s{left})"

    def _show(self) -> None:
        with self._lock:
            if self._closed or not self._text or self._text == self._shown:
                return
            self._shown = self._text
            if self._stream.isatty():
                # A terminal that is gone is no reason to end.
                with suppress(OSError):
                    self._spin()
            else:
                write(f"{self.line()} ...\n", self._stream)

    def _spin(self) -> None:
        from rich.console import Console

        if self._status is None:
            self._status = Console(file=self._stream).status(_Line(self))
            self._status.start()


class _Line:
    """The line as it is whenever the terminal is drawn anew."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown

    def __rich__(self) -> Text:
        from rich.text import Text

        return Text(self._shown.line(), no_wrap=True, overflow="ellipsis")
