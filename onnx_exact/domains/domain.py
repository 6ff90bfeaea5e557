"""The domain of a whole graph, one box a floating-point input, and its JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from onnx_exact.network import Box
from onnx_exact.network.affine import Array

# The metadata entry under which a model carries its domain: the text of `Domain.to_json`.
DOMAIN_KEY = "onnx_exact.domain"


class InputLike(Protocol):
    """What a domain needs to know of a graph's input.

    Attributes:
        name: the tensor's name.
        shape: None where the rank is unknown; an entry is None where the size is symbolic.
        elem_type: the number of the element type in onnx.TensorProto.
        is_float: whether it holds floating-point numbers; only such inputs have a box.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def shape(self) -> tuple[int | None, ...] | None: ...  # noqa: D102

    @property
    def elem_type(self) -> int: ...  # noqa: D102

    @property
    def is_float(self) -> bool: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class Domain:
    """The inputs over which everything is proved.

    Attributes:
        boxes: by the name of each floating-point input, of the tensor's rank, with size 1 along
            every axis whose size is not known; infinite where nothing is declared.
        source: where the domain came from, in words for the report.
        declared: False where nobody declared a domain and every box is infinite.
    """

    boxes: Mapping[str, Box]
    source: str
    declared: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "boxes", MappingProxyType(dict(self.boxes)))

    def to_json(self) -> dict[str, dict[str, Any]]:
        """The boxes as JSON: a number where all entries agree, null for an infinite side.

        Read back by `resolve_domain` to the same boxes, entry by entry.
        """
        return {
            name: {"lower": _compact(box.lower), "upper": _compact(box.upper)}
            for name, box in self.boxes.items()
        }


def _compact(bounds: Array) -> Any:
    if bounds.size and np.unique(bounds).size == 1:
        return _number(float(bounds.flat[0]))
    return _nested(bounds.tolist())


def _nested(values: Any) -> Any:
    return [_nested(v) for v in values] if isinstance(values, list) else _number(values)


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
