"""Arrays of points as rows of a graph's input, whatever grouping of axes they come in."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from onnx_exact.domains.domain import InputLike
from onnx_exact.domains.fit import known_shape, may_regroup

Rows = NDArray[Any]


def as_rows(array: NDArray[Any], spec: InputLike) -> Rows | None:
    """`array` with the input's first axis first, shape (rows, *tensor without first axis).

    It may hold rows, each perhaps in another grouping of axes, or whole tensors, one after another
    along a further axis. None where it is neither.
    """
    if spec.shape is None:
        return None
    if not spec.shape:
        return array.reshape(-1) if array.ndim <= 1 or array.size == len(array) else None
    sample = spec.shape[1:]
    if array.ndim == len(spec.shape) and _matches(array.shape[1:], sample):
        return array
    if array.ndim == len(spec.shape) + 1 and _matches(array.shape[1:], spec.shape):
        return array.reshape(-1, *array.shape[2:])
    if array.ndim == 0 or None in sample:
        return None
    fixed = known_shape(spec)
    for target in (fixed[1:], fixed):
        if math.prod(array.shape[1:]) == math.prod(target) and may_regroup(array.shape[1:], target):
            return array.reshape(-1, *fixed[1:])
    return None


def rows_a_point(spec: InputLike) -> int:
    """Rows that make one tensor, 1 where the first axis is symbolic."""
    return max(1, known_shape(spec)[0]) if spec.shape else 1


def _matches(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return all(b is None or a == b for a, b in zip(shape, wanted, strict=True))
