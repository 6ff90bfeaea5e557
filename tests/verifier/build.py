"""Small models, and certificates written by hand."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

# Weights (units, inputs), biases, and whether a ReLU follows.
LayerSpec = tuple[Sequence[Sequence[float]], Sequence[float], bool]
OPSET, IR_VERSION = 17, 8


def gemm_model(
    layers: Sequence[LayerSpec], domain: Mapping[str, Any] | None = None
) -> onnx.ModelProto:
    """Gemm and Relu nodes from "x" to "y", in float32."""
    nodes, tensors, name = [], [], "x"
    for i, (weight, bias, relu) in enumerate(layers):
        for key, values in ((f"w{i}", weight), (f"b{i}", bias)):
            tensors.append(numpy_helper.from_array(np.asarray(values, np.float32), key))
        nodes.append(helper.make_node("Gemm", [name, f"w{i}", f"b{i}"], [f"g{i}"], transB=1))
        name = f"g{i}"
        if relu:
            nodes.append(helper.make_node("Relu", [name], [f"h{i}"]))
            name = f"h{i}"
    nodes[-1].output[0] = "y"
    width = len(layers[0][0][0])
    return model_of(nodes, tensors, ["N", width], ["N", len(layers[-1][1])], domain)


def model_of(
    nodes: Sequence[NodeProto],
    tensors: Sequence[TensorProto],
    into: Sequence[int | str],
    out: Sequence[int | str],
    domain: Mapping[str, Any] | None = None,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """A model from "x" to "y"."""
    x, y = (
        helper.make_tensor_value_info(key, TensorProto.FLOAT, shape)
        for key, shape in (("x", into), ("y", out))
    )
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    ids = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=ids, ir_version=IR_VERSION)
    if domain is not None:
        helper.set_model_props(model, {"onnx_exact.domain": json.dumps(domain)})
    return model


@dataclass(frozen=True, eq=False)
class Written:
    """Two models and a certificate as files.

    Attributes:
        old, new, certificate: where they are.
        header, arrays: what the certificate holds.
    """

    old: Path
    new: Path
    certificate: Path
    header: dict[str, Any]
    arrays: dict[str, Any]

    def changed(
        self, header: Mapping[str, Any] | None = None, **arrays: NDArray[Any] | None
    ) -> Written:
        """With other entries of the header and other arrays, None to leave one out."""
        kept = {k: v for k, v in (self.arrays | arrays).items() if v is not None}
        made = replace(self, header=self.header | dict(header or {}), arrays=kept)
        made.save()
        return made

    def chain(self, **entries: Any) -> Written:
        """With other entries of the header of the first chain."""
        return self.changed({"chains": [self.header["chains"][0] | entries]})

    def save(self) -> None:
        """Writes the certificate."""
        text = np.frombuffer(json.dumps(self.header).encode(), np.uint8)
        np.savez_compressed(self.certificate, header=text, **self.arrays)

    def member(self, name: str, data: bytes) -> None:
        """Puts other bytes in the place of a member."""
        with zipfile.ZipFile(self.certificate) as before:
            members = {n: before.read(n) for n in before.namelist()}
        with zipfile.ZipFile(self.certificate, "w", zipfile.ZIP_DEFLATED) as after:
            for key, value in (members | {name: data}).items():
                after.writestr(key, value)


def read(old: Path, new: Path, certificate: Path) -> Written:
    """A certificate that is there."""
    with np.load(certificate) as loaded:
        arrays = {name: loaded[name] for name in loaded.files}
    header = json.loads(arrays.pop("header").tobytes())
    return Written(old, new, certificate, header, arrays)


def write(
    folder: Path,
    old: onnx.ModelProto,
    new: onnx.ModelProto,
    chain: dict[str, Any],
    arrays: dict[str, NDArray[Any]],
    domain: Mapping[str, Any],
    deviation: float = 0.0,
) -> Written:
    """Saves two models and a certificate of one chain."""
    paths = [folder / name for name in ("old.onnx", "new.onnx")]
    for model, path in zip((old, new), paths, strict=True):
        onnx.save(model, path)
    marks = [
        {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
        for path in paths
    ]
    header = {
        "format": "onnx-exact certificate",
        "version": 2,
        "written_by": "a test",
        "original": marks[0],
        "result": marks[1],
        "domain": dict(domain),
        "deviation": {"certified_max_abs": deviation},
        "chains": [{"input": "x", "output": "y", "trees": [], **chain}],
    }
    made = Written(paths[0], paths[1], folder / "certificate.npz", header, arrays)
    made.save()
    return made


def npy(values: NDArray[Any]) -> bytes:
    """The bytes of an array's file."""
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


# Over [0, 1]^2: unit 0 is x - y, unstable; unit 1 is -x - 1, inactive; unit 2 is x + y + 1, active.
# The second layer reads them: unit 0 of it is unstable, unit 1 is h0 - h2, which is inactive but
# only by linear bounds: by intervals it is at most 1 - 1 = 0, which is the case of a tie.
SQUARE = {"x": {"lower": 0.0, "upper": 1.0}}
FIRST: LayerSpec = ([[1, -1], [-1, -1], [1, 1]], [0, -1, 1], True)
SECOND: LayerSpec = ([[2, 5, -1], [1, 0, -1]], [0.25, 0], True)
LAST: LayerSpec = ([[1, 3]], [0.5], False)


def tiny(folder: Path) -> Written:
    """A network of which unit 1 of either layer has been removed."""
    old = gemm_model([FIRST, SECOND, LAST], SQUARE)
    new = gemm_model(
        [
            ([[1, -1], [1, 1]], [0, 1], True),
            ([[2, -1]], [0.25], True),
            ([[1]], [0.5], False),
        ],
        SQUARE,
    )
    chain = {
        "widths": [3, 2, 1],
        "relu": [True, True, False],
        "result_widths": [2, 1, 1],
        "result_relu": [True, True, False],
        "sources": [0, 1, 2],
    }
    arrays: dict[str, NDArray[Any]] = {
        "c0_l0_status": np.array([3, 1, 2], np.int8),
        "c0_l0_proof": np.array([5, 1, 1], np.int8),
        "c0_l1_status": np.array([3, 1], np.int8),
        "c0_l1_proof": np.array([5, 1], np.int8),
        "c0_witnesses": np.array([[1, 0], [0, 1]], np.float32),
        "c0_m0_unit": np.array([0, -1, 1], np.int32),
        "c0_m1_unit": np.array([0, -1], np.int32),
        "c0_m2_unit": np.array([0], np.int32),
    }
    return write(folder, old, new, chain, arrays, SQUARE)


# Over [-1, 1]^2 with h = relu(x), relu(x + 0.5), relu(y), relu(-y): h0 - h1 - 0.05 is never above
# -0.05, but no slope for h1 shows it. On either side of x = 0 one does.
CROSS = {"x": {"lower": -1.0, "upper": 1.0}}
BENT: LayerSpec = ([[1, 0], [1, 0], [0, 1], [0, -1]], [0, 0.5, 0, 0], True)
GAP: LayerSpec = ([[1, -1, 0, 0], [1, 0, 1, 1]], [-0.05, 1], True)


def branched(folder: Path, kind: str) -> Written:
    """A network without a unit whose verdict needs a tree, of "box" or "relu"."""
    old = gemm_model([BENT, GAP, ([[1, 1]], [0], False)], CROSS)
    new = gemm_model([BENT, ([[1, 0, 1, 1]], [1], True), ([[1]], [0], False)], CROSS)
    chain = {
        "widths": [4, 2, 1],
        "relu": [True, True, False],
        "result_widths": [4, 1, 1],
        "result_relu": [True, True, False],
        "sources": [0, 1, 2],
        "trees": [{"kind": kind, "layer": 1}],
    }
    arrays: dict[str, NDArray[Any]] = {
        "c0_l0_status": np.array([3, 3, 3, 3], np.int8),
        "c0_l0_proof": np.array([5, 5, 5, 5], np.int8),
        "c0_l1_status": np.array([1, 2], np.int8),
        "c0_l1_proof": np.array([3, 1], np.int8),
        "c0_witnesses": np.array([[1, 1], [-1, -1]], np.float64),
        "c0_m0_unit": np.arange(4, dtype=np.int32),
        "c0_m1_unit": np.array([-1, 0], np.int32),
        "c0_m2_unit": np.array([0], np.int32),
        "c0_t0_units": np.array([0], np.int32),
        "c0_t0_positive": np.array([True]),
    }
    if kind == "box":
        arrays["c0_t0_nodes"] = np.array([0, -1, 1, -1, -1], np.int16)
    else:
        arrays["c0_t0_nodes"] = np.array([[0, 0], [-1, -1], [-1, -1]], np.int32)
        arrays["c0_t0_slopes"] = np.array([[0, 255, 0, 0], [0, 0, 0, 0]], np.uint8)
        arrays["c0_t0_multipliers"] = np.zeros(2, np.float32)
    return write(folder, old, new, chain, arrays, CROSS)
