"""The process's own streams and signals: closed, full or broken ones, and ends from outside."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn, TextIO

# Exit codes of a process that a signal ended, as shells have it: this plus its number.
SIGNALLED = 128
_ENDS = ("SIGTERM", "SIGHUP")


def open_missing() -> None:
    """Gives a process that was started without some of its standard streams ones to nowhere.

    Else the first file that is opened takes their number, and what libraries print goes into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                # The lowest free number is the missing one.
                os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


@contextmanager
def ended_by_exceptions() -> Iterator[None]:
    """Lets the signals that end a process raise SystemExit, so that temporary files go."""
    before = {}
    for name in _ENDS:
        # Windows has no SIGHUP; threads other than the main one must not set any; what the caller
        # ignores, as under nohup, stays ignored.
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            with suppress(ValueError):
                before[number] = signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    # Once is enough: what follows is tidying up.
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(SIGNALLED + number)


def write(text: str, stream: TextIO) -> OSError | None:
    """Writes to a standard stream, with what it cannot encode replaced.

    Returns:
        Why that failed; nothing can then be written there any more. A reader that has seen enough
        is no failure.
    """
    encoding = stream.encoding or "ascii"
    try:
        stream.write(text.encode(encoding, errors="replace").decode(encoding))
        stream.flush()
    except OSError as error:
        _close(stream)
        return None if isinstance(error, BrokenPipeError) else error
    return None


def settle() -> None:
    """Writes out what is left in the streams, so that the interpreter need not complain of it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _close(stream)
        except ValueError:
            pass


def _close(stream: TextIO) -> None:
    """Lets the stream lead to nowhere: what is left in it would fail once more at the end."""
    with suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
