"""The element types of ONNX tensors that numpy has, without importing onnx."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

# Numbers of onnx.TensorProto.DataType (the ONNX specification, onnx.proto).
NUMPY_TYPES: Mapping[int, np.dtype[Any]] = MappingProxyType(
    {
        1: np.dtype(np.float32),
        2: np.dtype(np.uint8),
        3: np.dtype(np.int8),
        4: np.dtype(np.uint16),
        5: np.dtype(np.int16),
        6: np.dtype(np.int32),
        7: np.dtype(np.int64),
        9: np.dtype(np.bool_),
        10: np.dtype(np.float16),
        11: np.dtype(np.float64),
        12: np.dtype(np.uint32),
        13: np.dtype(np.uint64),
    }
)


def numpy_type(elem_type: int) -> np.dtype[Any] | None:
    """The numpy type of that ONNX element type, None where numpy has none."""
    return NUMPY_TYPES.get(elem_type)
