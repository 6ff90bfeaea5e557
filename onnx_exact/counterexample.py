"""Keeps the inputs that refute a result in a file beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from onnx_exact.errors import RefutedError

Refuted = TypeVar("Refuted", bound=RefutedError)


def saved_beside(error: Refuted, result: Path) -> Refuted:
    """Saves what an error has found, if anything.

    Args:
        error: of the result.
        result: of which `.counterexample.npz` is appended to the name.

    Returns:
        The error, saying where the inputs are.
    """
    if error.counterexample is None:
        return error
    path = result.with_name(result.name + ".counterexample.npz")
    arrays: dict[str, Any] = dict(error.counterexample)
    np.savez(path, **arrays)
    return type(error)(f"{error}; the input that shows it is in {path}", error.counterexample)
