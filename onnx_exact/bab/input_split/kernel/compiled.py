"""Compiling functions with numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

# No lock of the interpreter; sums in any order, fused products; nan and infinity as they are.
FLAGS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract", "nsz", "reassoc"},
}


def compiled(function: F) -> F:
    """The function, compiled when it is first called, for good where there is a folder for that."""
    import numba

    try:
        made: F = numba.njit(cache=True, **FLAGS)(function)
    except RuntimeError:  # There is no such folder.
        made = numba.njit(**FLAGS)(function)
    return made
