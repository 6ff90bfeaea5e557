"""Inputs at which a model is run: points of its domain, and the caller's own, in batches.

Points are drawn of three kinds: uniformly random, random corners, and sparse corners, which have
few entries at their upper side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact.domains import Domain, InputLike
from onnx_exact.domains.rows import as_rows, rows_a_point
from onnx_exact.elements import numpy_type
from onnx_exact.errors import ModelError, UsageError
from onnx_exact.network import Box
from onnx_exact.network.affine import Array

Feed = dict[str, NDArray[Any]]

# Points drawn of each kind.
POINTS = 64
# Sizes of a symbolic first axis: one, an even and an odd one that no vector unit divides.
BATCH_SIZES = (1, 2, 7)
# Sizes tried for the other symbolic axes, until a model runs: 2, or what windows and fixed weights
# behind images mostly need.
OTHER_SIZES = (2, 1, *range(3, 17), 20, 24, 28, 32, 48, 64, 96, 100, 128, 224, 256)
# Share of the entries of a sparse corner that are at their upper side.
SPARSE_SHARE = 0.1
# Rows of the caller's own points that are fed at once where the first axis is symbolic.
ROWS_AT_ONCE = 64
# Integer inputs are drawn below this, so that they may index something.
SMALL_INTEGERS = 2


def feeds(
    inputs: Sequence[InputLike],
    domain: Domain,
    extra: Sequence[Mapping[str, NDArray[Any]]],
    other: int,
    rng: np.random.Generator,
) -> Iterator[tuple[Feed, int]]:
    """Inputs to run, each with the number of points in it; `other` is the other axes' size."""
    for given in extra:
        for rows, batch in _batches(given, inputs):
            drawn = {
                spec.name: _draw(spec, domain, batch, other, rng, _uniform)
                for spec in inputs
                if spec.name not in rows
            }
            yield drawn | rows, batch
    if any(spec.shape is None for spec in inputs):
        return
    batches = BATCH_SIZES if _symbolic_batch(inputs) else (_fixed_batch(inputs),)
    for kind in (_uniform, _corner, _sparse_corner):
        done = 0
        while done < POINTS:
            for batch in batches:
                feed = {s.name: _draw(s, domain, batch, other, rng, kind) for s in inputs}
                yield feed, batch
                done += batch


def _uniform(box: Box, rng: np.random.Generator) -> Array:
    return box.sample(rng, 1)


def _corner(box: Box, rng: np.random.Generator) -> Array:
    return box.corners(rng, 1)


def _sparse_corner(box: Box, rng: np.random.Generator) -> Array:
    return box.corners(rng, 1, SPARSE_SHARE)


def _draw(
    spec: InputLike,
    domain: Domain,
    batch: int,
    other: int,
    rng: np.random.Generator,
    kind: Callable[[Box, np.random.Generator], Array],
) -> NDArray[Any]:
    """One tensor of the input, with `batch` along a symbolic first axis."""
    shape = tuple(
        (batch if axis == 0 else other) if size is None else size
        for axis, size in enumerate(spec.shape or ())
    )
    dtype = numpy_type(spec.elem_type)
    if dtype is None:
        raise ModelError(
            f"input {spec.name!r} has an element type that no point can be drawn of; the model"
            " cannot be validated"
        )
    if not spec.is_float:
        return rng.integers(0, SMALL_INTEGERS, shape).astype(dtype)
    box = domain.boxes[spec.name]
    whole = Box(np.broadcast_to(box.lower, shape), np.broadcast_to(box.upper, shape))
    return _stored(np.asarray(kind(whole, rng)[0]), dtype)


def _batches(
    given: Mapping[str, NDArray[Any]], inputs: Sequence[InputLike]
) -> Iterator[tuple[Feed, int]]:
    """The caller's points in batches that the model takes, the last one filled up."""
    by_name = {spec.name: spec for spec in inputs}
    rows: Feed = {}
    for name, array in given.items():
        found = as_rows(np.asarray(array), by_name[name]) if name in by_name else None
        if found is None:
            raise UsageError(f"points of shape {np.shape(array)} do not fit the input {name!r}")
        rows[name] = found
    fixed = not all(_symbolic_batch([by_name[name]]) for name in rows)
    points = {-(-len(array) // rows_a_point(by_name[name])) for name, array in rows.items()}
    if len(points) != 1:
        raise UsageError(f"not equally many points for the inputs {', '.join(rows)}")
    at_once = 1 if fixed else ROWS_AT_ONCE
    for start in range(0, points.pop(), at_once):
        feed = {}
        for name, array in rows.items():
            size = rows_a_point(by_name[name])
            part = array[start * size : (start + at_once) * size]
            missing = -len(part) % size
            part = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
            feed[name] = _stored(part, numpy_type(by_name[name].elem_type))
            if by_name[name].shape == ():
                feed[name] = feed[name].reshape(())
        yield feed, max(len(a) if a.ndim else 1 for a in feed.values())


def _stored(values: NDArray[Any], dtype: np.dtype[Any] | None) -> NDArray[Any]:
    """Values in an input's type, those beyond its largest number at that."""
    if dtype is None or dtype == values.dtype:
        return values
    if dtype.kind == "f":
        largest = float(np.finfo(dtype).max)
        values = np.clip(values, -largest, largest)
    return np.asarray(values, dtype=dtype)


def _symbolic_batch(inputs: Sequence[InputLike]) -> bool:
    return any(spec.shape and spec.shape[0] is None for spec in inputs)


def _fixed_batch(inputs: Sequence[InputLike]) -> int:
    """Points in one run of a model with no symbolic first axis."""
    return max((rows_a_point(spec) for spec in inputs if len(spec.shape or ()) > 1), default=1)


def has_other_symbols(inputs: Sequence[InputLike]) -> bool:
    """Whether a size is unknown beyond that of the first axes."""
    return any(None in (spec.shape or ())[1:] for spec in inputs)
