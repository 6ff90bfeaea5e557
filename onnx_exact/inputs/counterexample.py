"""Keeps the inputs that refute a result in a file beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from onnx_exact.errors import OutputError, RefutedError
from onnx_exact.runtime.outputs import appearing


def save_beside(error: RefutedError, result: Path) -> None:
    """Saves the inputs that an error has found, if any, and lets its message say where.

    Args:
        error: of the result.
        result: of which `.counterexample.npz` is appended to the name.
    """
    if error.counterexample is None:
        return
    path = result.with_name(result.name + ".counterexample.npz")
    arrays: dict[str, Any] = dict(error.counterexample)
    try:
        with appearing() as outputs:
            np.savez(outputs.place(path), allow_pickle=False, **arrays)
    except (OSError, OutputError) as failure:
        error.args = (f"{error}; the input that shows it cannot be saved ({failure})",)
        return
    error.args = (f"{error}; the input that shows it is in {path}",)
