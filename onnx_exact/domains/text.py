"""Domains as text.

    [NAME=]LO:HI[,LO:HI...][:mean=M[,M...]:std=S[,S...]]    ranges, one for all or one a channel
    [NAME=]data:FILE[:MARGIN]                               the box around the points of a file
    [NAME=]FILE                                             bounds of a file

NAME is an input of the graph, and may be left out where there is only one. Of an image that is
normalised outside of the graph, ranges are those of its pixels before that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact.domains.domain import InputLike
from onnx_exact.domains.files import Bounds, read_json, read_npz
from onnx_exact.domains.fit import find_input, known_shape, one_row, shape_words
from onnx_exact.domains.rows import as_rows
from onnx_exact.domains.vnnlib import read_vnnlib
from onnx_exact.elements import numpy_type
from onnx_exact.errors import DomainError
from onnx_exact.network.affine import Array
from onnx_exact.runtime.numpy_files import read_arrays

# A domain in words, and its bounds.
Declared = tuple[str, Bounds]

_SIDE = r"[+-]?(?:inf(?:inity)?|nan|(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)"
_RANGE = rf"\s*{_SIDE}\s*:\s*{_SIDE}\s*"
_NUMBERS = rf"{_SIDE}(?:,{_SIDE})*"
_RANGES = re.compile(
    rf"({_RANGE}(?:,{_RANGE})*)(?::mean=({_NUMBERS}):std=({_NUMBERS}))?", re.IGNORECASE
)
_MARGIN = re.compile(rf"(.+):({_SIDE})", re.IGNORECASE | re.DOTALL)
_DATA = "data:"
_VNNLIB = (".vnnlib", ".vnnlib.gz")
_FILES = (".npz", ".json", *_VNNLIB)

# (x - mean) / std takes six roundings at most on the way to the input (the pixel, mean and std as
# they are stored, the difference, the quotient, a cast), and at most four here.
_ROUNDINGS = 16
# Of bfloat16, the coarsest type that an input may have: unit roundoff and smallest number.
_COARSEST, _SMALLEST = 2.0**-8, 2.0**-133


def read_text(text: str, inputs: Sequence[InputLike]) -> Declared:
    """The domain that `text` declares.

    Raises:
        DomainError: one line: no such form, file or input, or numbers that do not fit it.
    """
    source = f"--domain {text}"
    name, rest = _named_range(text)
    if found := _RANGES.fullmatch(rest):
        return source, _ranges(found, name, inputs, source)
    name, rest = _named_file(text, inputs)
    if rest.startswith(_DATA):
        return _data(rest.removeprefix(_DATA), name, inputs, source)
    bounds = read_file(Path(rest), source, [find_input(name, inputs, source)] if name else inputs)
    return source, bounds if name is None else _of_one(bounds, name, source)


def read_file(path: Path, source: str, inputs: Sequence[InputLike]) -> Bounds:
    """The bounds of a file .npz, .json or .vnnlib.

    Raises:
        DomainError: another file, or one that cannot be read.
    """
    name = path.name.lower()
    if name.endswith(".npz"):
        return read_npz(path)
    if name.endswith(".json"):
        return read_json(path)
    if name.endswith(_VNNLIB):
        return read_vnnlib(path, inputs)
    if name.endswith(".npy"):
        raise DomainError(f"{source}: for the box around the points of a file give data:{path}")
    raise DomainError(
        f"{source}: neither a range LO:HI (LO:HI,LO:HI by channel, :mean=M:std=S behind it), nor"
        " data:FILE.npy, nor a file .npz, .json or .vnnlib; NAME= may stand in front of any"
    )


def _named_range(text: str) -> tuple[str | None, str]:
    """Splits at the last equals sign behind which there are ranges."""
    if not _RANGES.fullmatch(text):
        for sign in reversed([place for place, c in enumerate(text) if c == "="]):
            if _RANGES.fullmatch(text, sign + 1):
                return text[:sign], text[sign + 1 :]
    return None, text


def _named_file(text: str, inputs: Sequence[InputLike]) -> tuple[str | None, str]:
    """Splits behind the longest name of an input that an equals sign follows."""
    names = [spec.name for spec in inputs if text.startswith(f"{spec.name}=")]
    if names:
        name = max(names, key=len)
        return name, text.removeprefix(f"{name}=")
    before, equals, after = text.partition("=")
    is_domain = after.startswith(_DATA) or after.lower().endswith(_FILES)
    if equals and is_domain and not text.startswith(_DATA) and not Path(text).exists():
        # No such input; that is said where it is looked up.
        return before, after
    return None, text


def _of_one(bounds: Bounds, name: str, source: str) -> Bounds:
    """Of bounds read for one input alone, its own."""
    for key in (None, name):
        if key in bounds:
            return {name: bounds[key]}
    there = ", ".join(repr(key) for key in bounds)
    raise DomainError(f"{source}: the file has bounds of {there}, none of {name!r}")


def _ranges(
    found: re.Match[str], name: str | None, inputs: Sequence[InputLike], source: str
) -> Bounds:
    sides = np.array([_range(pair, source) for pair in found[1].split(",")])
    if found[2] is None and len(sides) == 1:
        return {name: (sides[0, 0], sides[0, 1])}
    spec = find_input(name, inputs, source)
    low, high = sides[:, 0], sides[:, 1]
    if found[2] is not None:
        low, high = _normalised(low, high, _numbers(found[2]), _numbers(found[3]), spec, source)
    return {spec.name: (_along_channels(low, spec, source), _along_channels(high, spec, source))}


def _range(text: str, source: str) -> tuple[float, float]:
    low, high = (float(side) for side in text.split(":"))
    for side, value in zip(text.lower().split(":"), (low, high), strict=True):
        if math.isinf(value) and "inf" not in side:
            raise DomainError(
                f"{source}: a bound is beyond float64; write inf for an unbounded side"
            )
    return low, high


def _numbers(text: str) -> Array:
    return np.array([float(number) for number in text.split(",")])


def _normalised(
    low: Array, high: Array, mean: Array, std: Array, spec: InputLike, source: str
) -> tuple[Array, Array]:
    """The ends of (x - mean) / std for low <= x <= high, channel by channel.

    They hold whatever is computed for it in the input's own type, in any usual order.
    """
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0.0).all()):
        raise DomainError(f"{source}: mean and std are finite numbers, and std is positive")
    if len({*map(len, (low, mean, std))} - {1}) > 1:
        raise DomainError(
            f"{source}: {len(low)} ranges, {len(mean)} means and {len(std)} deviations; give one,"
            " or one a channel, of each"
        )
    if (low > high).any() or np.isnan(low).any() or np.isnan(high).any():
        raise DomainError(f"{source}: a range is nan, or its lower bound exceeds its upper bound")
    dtype = numpy_type(spec.elem_type)
    unit, smallest = _COARSEST, _SMALLEST
    if dtype is not None:
        unit = float(np.finfo(dtype).eps) / 2.0
        smallest = float(np.finfo(dtype).smallest_subnormal)
    with np.errstate(over="ignore"):
        ends = [(side - mean) / std for side in (low, high)]
        slack = [
            _ROUNDINGS * ((unit * (np.abs(side) + np.abs(mean)) + smallest) / std + smallest)
            for side in (low, high)
        ]
        return ends[0] - slack[0], ends[1] + slack[1]


def _along_channels(values: Array, spec: InputLike, source: str) -> Array:
    """One number a channel, for every entry: along axis 1, or the last where only that fits."""
    if len(values) == 1:
        return values
    shape = known_shape(spec)
    fitting = [axis for axis in (1, len(shape) - 1) if shape[axis : axis + 1] == (len(values),)]
    if not fitting:
        raise DomainError(
            f"{source}: {len(values)} ranges for channels, where neither axis 1 nor the last of"
            f" input {spec.name!r} has as many (its shape is {shape_words(spec)})"
        )
    row = one_row(shape)
    aligned = values.reshape([-1 if axis == fitting[0] else 1 for axis in range(len(row))])
    return np.broadcast_to(aligned, row)


def _data(text: str, name: str | None, inputs: Sequence[InputLike], source: str) -> Declared:
    found = _MARGIN.fullmatch(text)
    path, margin = (found[1], float(found[2])) if found else (text, 0.0)
    if not (math.isfinite(margin) and margin >= 0.0):
        raise DomainError(f"{source}: a margin is a number from 0 on")
    try:
        arrays = read_arrays(Path(path))
    except ValueError as error:
        raise DomainError(f"--domain {_DATA}{error}") from error
    bounds: dict[str | None, tuple[Array, Array]] = {}
    counts = set()
    for spec, array in _for_inputs(arrays, name, inputs, source):
        bounds[spec.name] = _hull(array, spec, margin, source)
        counts.add(len(array))
    points = "points" if len(counts) > 1 else f"{counts.pop()} points"
    wider = f", {margin:g} wider on every side" if margin else ""
    return f"{source}, the box around {points}{wider}: no input outside of it is covered", bounds


def _for_inputs(
    arrays: Mapping[str | None, NDArray[Any]],
    name: str | None,
    inputs: Sequence[InputLike],
    source: str,
) -> list[tuple[InputLike, NDArray[Any]]]:
    """Which array belongs to which floating-point input."""
    if name in arrays:
        return [(find_input(name, inputs, source), arrays[name])]
    by_name = {spec.name: spec for spec in inputs}
    if name is None and arrays and set(arrays) <= set(by_name):
        pairs = [(by_name[key], array) for key, array in arrays.items() if key is not None]
        return [(spec, array) for spec, array in pairs if spec.is_float]
    if len(arrays) == 1:
        return [(find_input(name, inputs, source), next(iter(arrays.values())))]
    held = ", ".join(repr(key) for key in arrays) or "no array"
    wanted = ", ".join(repr(key) for key in ([name] if name else by_name))
    raise DomainError(f"{source}: the file holds {held}, and not one array for each of {wanted}")


def _hull(array: NDArray[Any], spec: InputLike, margin: float, source: str) -> tuple[Array, Array]:
    """The box around points, widened by `margin` on every side."""
    where = f"{source}: input {spec.name!r}"
    rows = as_rows(array, spec) if array.dtype.kind in "fiub" else None
    if rows is not None and len(spec.shape or ()) == 1:
        # The one axis of such an input is no batch.
        entries = max(1, known_shape(spec)[0])
        rows = rows.reshape(-1, entries) if len(rows) % entries == 0 else None
    if rows is None:
        raise DomainError(
            f"{where}: points of shape {array.shape} and type {array.dtype} do not fill a tensor"
            f" of shape {shape_words(spec)}"
        )
    if not rows.size:
        raise DomainError(f"{where}: the file holds no points")
    low, high = (side.astype(np.float64) for side in (rows.min(axis=0), rows.max(axis=0)))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise DomainError(f"{where}: a point is nan or infinite")
    if margin or (rows.dtype.itemsize > 4 and rows.dtype != np.float64):
        low = np.nextafter(low - margin, -np.inf)
        high = np.nextafter(high + margin, np.inf)
    return low, high
