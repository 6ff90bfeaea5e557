"""Loads the solver HiGHS so that it prints nothing.

The first solver object of a process prints a banner to the process's standard output, before it can
be given any option.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from types import ModuleType
from typing import Any


@cache
def highs() -> ModuleType:
    """The package highspy, its banner printed to nowhere."""
    import highspy

    with _nowhere():
        make: Any = highspy.Highs
        make()
    return highspy


@contextmanager
def _nowhere() -> Iterator[None]:
    """Lets what code in C prints go to nowhere."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:
        # There is no standard output to print to.
        yield
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)
