"""A trained ReLU network as an ONNX file: Gemm and Relu nodes in a plain chain, with metadata.

The dialect is the one that every consumer reads: Gemm with three inputs, transB = 1 and
alpha = beta = 1, one reader per tensor, initializers as raw_data.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
INPUT_NAME = "input"
OUTPUT_NAME = "output"
DOMAIN_KEY = "onnx_exact.domain"
DOMAIN_UNIT_BOX = json.dumps({INPUT_NAME: {"lower": 0.0, "upper": 1.0}})

Layer = tuple[NDArray[np.float32], NDArray[np.float32]]


def relu_network_model(layers: Sequence[Layer], metadata: Mapping[str, str]) -> onnx.ModelProto:
    """The model of affine ``layers`` with a ReLU between each two.

    Each layer is a weight (out, in) and a bias (out,), both float32. Input and output have a
    symbolic batch dimension. The domain [0, 1] is put beside ``metadata``.
    """
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []
    tensor = INPUT_NAME
    for i, (weight, bias) in enumerate(layers, start=1):
        last = i == len(layers)
        weight_name, bias_name = f"weight_{i}", f"bias_{i}"
        initializers.append(_initializer(weight, weight_name))
        initializers.append(_initializer(bias, bias_name))
        affine = OUTPUT_NAME if last else f"affine_{i}"
        nodes.append(
            helper.make_node(
                "Gemm",
                [tensor, weight_name, bias_name],
                [affine],
                name=f"gemm_{i}",
                alpha=1.0,
                beta=1.0,
                transB=1,
            )
        )
        if not last:
            tensor = f"hidden_{i}"
            nodes.append(helper.make_node("Relu", [affine], [tensor], name=f"relu_{i}"))
    graph = helper.make_graph(
        nodes,
        "relu_network",
        [_batch_of(INPUT_NAME, layers[0][0].shape[1])],
        [_batch_of(OUTPUT_NAME, layers[-1][0].shape[0])],
        initializer=initializers,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="onnx_exact.benchmarks",
    )
    helper.set_model_props(model, {DOMAIN_KEY: DOMAIN_UNIT_BOX, **metadata})
    return model


def _initializer(values: NDArray[np.float32], name: str) -> onnx.TensorProto:
    if values.dtype != np.float32:
        raise TypeError(f"{name} is {values.dtype}, not float32")
    # A fresh C-ordered copy: raw_data is written in memory order.
    return numpy_helper.from_array(np.ascontiguousarray(values), name)


def _batch_of(name: str, width: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Check ``model`` and write it to ``path``; a partial file is never seen under that name."""
    onnx.checker.check_model(model, full_check=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(model.SerializeToString(deterministic=True))
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of the ONNX file at ``path``."""
    return {prop.key: prop.value for prop in onnx.load(path).metadata_props}


def sha256(path: Path) -> str:
    """The SHA-256 of the file at ``path``, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
