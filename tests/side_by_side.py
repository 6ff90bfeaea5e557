"""Models of a few nodes, and two of them run side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_exact.domains import DomainLike, resolve_domain
from onnx_exact.validate import Deviation, validate

F32, F16, F64, I64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT64
Shape = tuple[int | None, ...] | None


@dataclass(frozen=True)
class Input:
    name: str = "x"
    shape: Shape = (None, 3)
    elem_type: int = F32

    @property
    def is_float(self) -> bool:
        return self.elem_type in (F32, F16, F64)


X = Input()


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Input] = (X,),
    outputs: Sequence[tuple[str, int]] = (("y", F32),),
    **constants: Any,
) -> bytes:
    def value(name: str, elem_type: int, shape: Shape) -> onnx.ValueInfoProto:
        symbols = (
            None
            if shape is None
            else [f"{name}{i}" if s is None else s for i, s in enumerate(shape)]
        )
        return helper.make_tensor_value_info(name, elem_type, symbols)

    graph = helper.make_graph(
        nodes,
        "g",
        [value(i.name, i.elem_type, i.shape) for i in inputs],
        [value(name, elem_type, None) for name, elem_type in outputs],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def affine(scale: float = 1.0, shift: float = 0.0, spec: Input = X) -> bytes:
    """y = relu(scale x + shift), entry by entry."""
    dtype = {F32: np.float32, F16: np.float16, F64: np.float64}[spec.elem_type]
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["s"]),
        helper.make_node("Add", ["s", "shift"], ["t"]),
        helper.make_node("Relu", ["t"], ["y"]),
    ]
    return model(nodes, [spec], [("y", spec.elem_type)], scale=dtype(scale), shift=dtype(shift))


def run(
    before: bytes | Path,
    after: bytes | Path,
    *inputs: Input,
    domain: DomainLike | None = "0:1",
    **options: Any,
) -> Deviation:
    inputs = inputs or (X,)
    return validate(before, after, inputs, resolve_domain(domain, inputs, {}), **options)
