"""Fits declared bounds to the shape and the element type of a graph's input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact.domains.domain import InputLike
from onnx_exact.elements import numpy_type
from onnx_exact.errors import DomainError
from onnx_exact.network import Box
from onnx_exact.network.affine import Array

# Entries of one row of an input that bounds are held for: 2 GB for either side.
MOST_ENTRIES = 2**28


def known_shape(spec: InputLike) -> tuple[int, ...]:
    """The input's shape with 1 for every size that is not known; () for an unknown rank."""
    return tuple(1 if size is None or size < 0 else size for size in spec.shape or ())


def one_row(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of bounds that are the same for every row, of however many."""
    return (1, *shape[1:]) if len(shape) > 1 else shape


def find_input(name: str | None, inputs: Sequence[InputLike], source: str) -> InputLike:
    """The input of that name, or the only floating-point one.

    Raises:
        DomainError: there is none, or more than one.
    """
    if name is not None:
        for spec in inputs:
            if spec.name == name:
                return spec
        known = ", ".join(repr(spec.name) for spec in inputs)
        raise DomainError(f"{source}: the model has no input {name!r}; its inputs are {known}")
    floats = [spec for spec in inputs if spec.is_float]
    if len(floats) == 1:
        return floats[0]
    if not floats:
        raise DomainError(f"{source}: the model has no floating-point input to bound")
    names = " ".join(f"--domain '{spec.name}=LO:HI'" for spec in floats)
    raise DomainError(
        f"{source}: the model has {len(floats)} floating-point inputs; say which: {names}"
    )


def unbounded(spec: InputLike) -> Box:
    """The box of every finite value of the input.

    Raises:
        DomainError: it has too many entries.
    """
    shape = one_row(known_shape(spec))
    _refuse_too_many(spec)
    return Box(np.full(shape, -np.inf), np.full(shape, np.inf), "nothing declared")


def fit_box(lower: Any, upper: Any, spec: InputLike, source: str) -> Box:
    """The box of the input with those bounds.

    Each bound is a number, or an array with one entry for each of the tensor's (an unknown size
    counts as 1) or for each of one sample's, which is the tensor without its first axis. None is
    an infinite side, in an array too.

    The box is widened by what rounding an end to the input's element type needs (1e-8 for 0.1 in
    float32), so that rounding a real point of it never leaves it.

    Raises:
        DomainError: bounds of the wrong size or order, nan, lower > upper.
    """
    if not spec.is_float:
        raise DomainError(
            f"{source}: input {spec.name!r} holds no floating-point numbers and takes no domain"
        )
    _refuse_too_many(spec)
    sides = [_fit(side, spec, source) for side in (_array(lower, -np.inf), _array(upper, np.inf))]
    try:
        low, high = np.broadcast_arrays(*sides)
        box = Box(low, high, source)
    except ValueError as error:
        raise DomainError(f"{source}: input {spec.name!r}: {error}") from error
    return _storable(box, spec)


def _refuse_too_many(spec: InputLike) -> None:
    entries = math.prod(one_row(known_shape(spec)))
    if entries > MOST_ENTRIES:
        raise DomainError(
            f"input {spec.name!r} has {entries:,} entries for each row: bounds for more than"
            f" {MOST_ENTRIES:,} cannot be held"
        )


def _array(bound: Any, infinite: float) -> Array | None:
    """`bound` as float64 with None as the infinite side; None where it holds no numbers."""
    try:
        values = np.asarray(bound)
        if values.dtype == object:
            flat = [infinite if v is None else _real(v) for v in values.flat]
            return np.asarray(flat, dtype=np.float64).reshape(values.shape)
        if values.dtype.kind not in "fiu":
            return None
        return values.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        return None


def _real(value: Any) -> float:
    if isinstance(value, bool | str):
        raise TypeError("no number")
    return float(value)


def _fit(values: Array | None, spec: InputLike, source: str) -> Array:
    where = f"{source}: input {spec.name!r}"
    if values is None:
        raise DomainError(f"{where}: bounds are numbers or arrays of numbers, all rows as long")
    shape = known_shape(spec)
    if values.ndim == 0 or (values.size == 1 and math.prod(shape) != 0):
        return np.full(one_row(shape), values.reshape(-1)[0])
    sample = shape[1:]
    for target in (shape, sample):
        if spec.shape is not None and values.size == math.prod(target):
            if not _regroups(values, target):
                raise DomainError(
                    f"{where}: bounds of shape {values.shape} are no regrouping of {target};"
                    " give them in the input's own order"
                )
            return values.reshape(target if len(target) == len(shape) else (1, *target))
    raise DomainError(f"{where} takes {_sizes(spec)}, not {values.size} in shape {values.shape}")


def _regroups(values: NDArray[np.float64], target: tuple[int, ...]) -> bool:
    """Whether reshaping only merges or only splits neighbouring axes, so that no two swap.

    Equal sizes do not show that the order is the same: (32, 32, 3) fills (3, 32, 32) wrongly.
    """
    return may_regroup(values.shape, target) or np.unique(values).size == 1


def may_regroup(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether one shape only splits axes of the other, which keeps the order of the entries."""
    ours, theirs = _partial_products(shape), _partial_products(target)
    return ours <= theirs or theirs <= ours


def _partial_products(shape: tuple[int, ...]) -> set[int]:
    return {math.prod(shape[:axis]) for axis in range(len(shape) + 1)}


def _sizes(spec: InputLike) -> str:
    if spec.shape is None:
        return "one number as each bound, for its rank is unknown"
    shape = known_shape(spec)
    counts = {1: None, math.prod(shape[1:]): None, math.prod(shape): None}
    return (
        " or ".join(str(count) for count in counts) + f" bounds (its shape is {shape_words(spec)})"
    )


def shape_words(spec: InputLike) -> str:
    """The input's shape, with ? for every size that is not known."""
    return "(" + ", ".join("?" if size is None else str(size) for size in spec.shape or ()) + ")"


def _storable(box: Box, spec: InputLike) -> Box:
    """The box with its ends' nearest values of the input's element type added.

    Rounding is monotone, so every real point of the result rounds to a point of the result.
    """
    dtype = numpy_type(spec.elem_type)
    if dtype is None or dtype == np.float64:
        return box
    with np.errstate(over="ignore"):
        low = box.lower.astype(dtype).astype(np.float64)
        high = box.upper.astype(dtype).astype(np.float64)
    if (low == np.inf).any() or (high == -np.inf).any():
        raise DomainError(
            f"{box.source}: input {spec.name!r}: a bound is beyond every finite {dtype} number"
        )
    return Box(np.minimum(box.lower, low), np.maximum(box.upper, high), box.source)
