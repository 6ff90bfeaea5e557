"""How long both models take for one row in onnxruntime: for people to see, nothing rests on it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_exact.elements import numpy_type
from onnx_exact.errors import ModelError
from onnx_exact.graph.read import InputSpec, inputs_of

# Runs of each model, in turn; the first few are left out.
ROUNDS, FIRST = 40, 5


def latencies(
    before: Path, after: Path, domain: Mapping[str, Mapping[str, Any]]
) -> tuple[float, float] | None:
    """Median seconds of one run each, on one thread; None where the models cannot be run so.

    Args:
        before, after: the files.
        domain: `Domain.to_json`; the middle of it is fed, and 0 for what has none.
    """
    from onnx_exact.validate.sessions import Session, errors

    kinds: tuple[type[Exception], ...] = (*errors(), ModelError, OSError)
    try:
        inputs = inputs_of(onnx.load(before, load_external_data=False))
        feed = {spec.name: _middle(spec, domain) for spec in inputs}
        sessions = [Session(file, ModelError, file.name) for file in (before, after)]
        taken: list[list[float]] = [[], []]
        for _ in range(FIRST + ROUNDS):
            for session, seconds in zip(sessions, taken, strict=True):
                start = time.perf_counter()
                session.run(feed)
                seconds.append(time.perf_counter() - start)
    except kinds:
        return None
    first, then = (median(seconds[FIRST:]) for seconds in taken)
    return first, then


def _middle(spec: InputSpec, domain: Mapping[str, Mapping[str, Any]]) -> NDArray[Any]:
    """The middle of the domain of an input, of size 1 along axes whose size is not known."""
    sizes = [size or 1 for size in spec.shape or ()]
    sides = domain.get(spec.name)
    middle = np.zeros(sizes)
    if sides is not None:
        low, high = (np.asarray(sides[side], np.float64) for side in ("lower", "upper"))
        middle = np.broadcast_to(np.nan_to_num(low + (high - low) / 2), sizes)
    return middle.astype(numpy_type(spec.elem_type))
