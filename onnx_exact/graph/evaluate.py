"""Runs one node in onnx.reference."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from onnx_exact.graph.index import Index

# onnx.reference has these from later operator sets on; what older ones allow they do the same.
SINCE = {"DequantizeLinear": 19, "QuantizeLinear": 19}


def evaluated(
    index: Index, node: NodeProto, arrays: Sequence[NDArray[Any] | None]
) -> list[NDArray[Any]] | None:
    """The outputs of a node in onnx.reference; None where it does not run it."""
    from onnx.reference import ReferenceEvaluator

    names = ["" if a is None else f"x{i}" for i, a in enumerate(arrays)]
    results = [f"y{i}" for i in range(len(node.output))]
    alone = NodeProto()
    alone.CopyFrom(node)
    del alone.input[:], alone.output[:]
    alone.input.extend(names)
    alone.output.extend(results)
    fed = {name: a for name, a in zip(names, arrays, strict=True) if a is not None}
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), None)
        for name, a in fed.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in results]
    graph = helper.make_graph([alone], "constant", values, outputs)
    opset = max(index.opset, SINCE.get(node.op_type, 0))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return [np.asarray(v) for v in ReferenceEvaluator(model).run(None, fed)]
        except Exception:
            # Whatever it raises, it says that this is no constant that it knows.
            return None
