"""Points of the domain that the user gives, as rows of a graph's inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact.domains import Domain, InputLike
from onnx_exact.domains.rows import Rows, as_rows, rows_a_point
from onnx_exact.elements import numpy_type
from onnx_exact.errors import UsageError
from onnx_exact.runtime.numpy_files import read_arrays

SamplesLike = str | Path | NDArray[Any] | Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Samples:
    """The user's points.

    Attributes:
        rows: by input, in the input's element type, of shape (rows, *tensor without first axis);
            a fixed first axis of b takes b rows at once. All inputs hold equally many points.
        points: how many points they are.
        dropped: how many more lay outside the domain.
    """

    rows: Mapping[str, Rows]
    points: int
    dropped: int


def load_samples(samples: SamplesLike, inputs: Sequence[InputLike], domain: Domain) -> Samples:
    """The points of an array, of one array an input, or of an .npy or .npz file of these.

    An array has its points along the first axis; an unnamed one belongs to the only
    floating-point input. Points outside the domain are dropped.

    Raises:
        UsageError: a file, a name, a shape or a type that does not fit, nan or inf, or no point
            within the domain.
    """
    where, arrays = _arrays(samples)
    named = _named(arrays, inputs, where)
    rows = {
        spec.name: _cast(named[spec.name], spec, where) for spec in inputs if spec.name in named
    }
    by_name = {spec.name: spec for spec in inputs}
    counts = {name: points_in(array, by_name[name]) for name, array in rows.items()}
    if len(set(counts.values())) != 1 or not min(counts.values()):
        raise UsageError(f"{where}: no points, or not equally many for every input: {counts}")
    count = next(iter(counts.values()))
    inside = np.ones(count, dtype=np.bool_)
    for name, array in rows.items():
        if name in domain.boxes:
            box = domain.boxes[name]
            tensors = array.reshape(count, -1, *array.shape[1:]).astype(np.float64)
            low, high = (_against(side, tensors) for side in (box.lower, box.upper))
            inside &= ((tensors >= low) & (tensors <= high)).reshape(count, -1).all(axis=1)
    if not inside.any():
        raise UsageError(f"{where}: all {count} points lie outside the domain ({domain.source})")
    kept = {
        name: array[np.repeat(inside, len(array) // count)] if len(array) != 0 else array
        for name, array in rows.items()
    }
    return Samples(kept, int(inside.sum()), int(count - inside.sum()))


def points_in(rows: Rows, spec: InputLike) -> int:
    """How many tensors the rows fill; a fixed first axis takes as many rows as it is long."""
    return len(rows) // rows_a_point(spec)


def _against(side: NDArray[np.float64], tensors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The bounds of a tensor, broadcastable against (points, *tensor)."""
    return side.reshape(1, *side.shape) if side.ndim else side


def _arrays(samples: SamplesLike) -> tuple[str, Mapping[str | None, NDArray[Any]]]:
    if isinstance(samples, np.ndarray):
        return "samples", {None: samples}
    if isinstance(samples, Mapping):
        return "samples", {name: np.asarray(array) for name, array in samples.items()}
    try:
        return str(samples), read_arrays(Path(samples))
    except ValueError as error:
        raise UsageError(f"samples {error}") from error


def _named(
    arrays: Mapping[str | None, NDArray[Any]], inputs: Sequence[InputLike], where: str
) -> Mapping[str, NDArray[Any]]:
    floats = [spec.name for spec in inputs if spec.is_float]
    names = [spec.name for spec in inputs]
    if len(arrays) == 1 and len(floats) == 1 and not set(arrays) & set(names):
        return {floats[0]: next(iter(arrays.values()))}
    unknown = [repr(name) for name in arrays if name not in names]
    missing = [repr(name) for name in floats if name not in arrays]
    if unknown or missing or not arrays:
        raise UsageError(
            f"{where}: expected one array for each of the inputs {', '.join(names)}"
            + (f", not {', '.join(unknown)}" if unknown else "")
            + (f"; there is none for {', '.join(missing)}" if missing else "")
        )
    return {name: array for name, array in arrays.items() if name is not None}


def _cast(array: NDArray[Any], spec: InputLike, where: str) -> Rows:
    place = f"{where}: input {spec.name!r}"
    dtype = numpy_type(spec.elem_type)
    if dtype is None or array.dtype.kind not in "fiub":
        raise UsageError(f"{place}: an array of {array.dtype} does not fit its element type")
    rows = as_rows(array, spec)
    if rows is None or len(rows) % rows_a_point(spec):
        shape = "of unknown rank" if spec.shape is None else f"of shape {spec.shape}"
        raise UsageError(f"{place}: points of shape {array.shape} do not fill a tensor {shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = rows.astype(dtype)
    if not np.isfinite(cast).all() if dtype.kind == "f" else not np.array_equal(cast, rows):
        raise UsageError(f"{place}: a value is nan, infinite or beyond {dtype}")
    return cast
