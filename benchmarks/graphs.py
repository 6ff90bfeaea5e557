"""Channels of whole graphs, removed: `python -m benchmarks.graphs`.

Convolutional networks of `models/` and of `../shared/models` as they are, without every channel
that can go (exact), with those left that onnxruntime is fast with (aligned, the default), and as
onnxslim and onnxsim alone leave them: parameters, multiplications, file size, latency at batch 1
and 32 on one thread, all models of a network in turn. The record is
`benchmarks/results/graphs.json`, and `graphs.md` beside it.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.deciding.cases import SHARED
from benchmarks.deciding.tables import where
from benchmarks.running.latency import Runner, latencies
from benchmarks.running.processes import RESULTS, machine, now, write_text
from benchmarks.tools.chained import TOOLS
from benchmarks.training.networks import MODELS
from onnx_exact.pipeline import optimize_file

PACKAGES = ("numpy", "onnx", "onnxruntime", "onnxslim", "onnxsim")
BATCHES = (1, 32)
# Networks, and their domains where these are not [0, 1].
NETWORKS = {
    "conv_mnist_cnn_l1": "0:1",
    "conv_cifar_cnn_l1": "0:1",
    "conv_resnet_inner50": "0:1",
    "conv_mnist_unstructured95": "0:1",
    "conv_resnet_unstructured90": "0:1",
    "conv_cifar_resnet_slim": "0:1",
    "conv_cifar_cnn_l1_qdq": "0:1",
    "mnistcnn_0.1": "0:1",
    "cifar_wide_kw": str(SHARED / "domains" / "cifar_image_1_255.npz"),
}
OTHERS = ("onnxslim", "onnxsim")
OWN = MODELS / "convolutional"
OWN_NETWORKS = ("mnist_cnn_l1", "cifar10_resnet_slim")
NETWORKS |= dict.fromkeys(OWN_NETWORKS, "0:1")
Entry = dict[str, Any]


def multiplications(model: onnx.ModelProto) -> int:
    """Of the convolutions and matrices, for one sample."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    values = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    shapes = {v.name: [d.dim_value or 1 for d in v.type.tensor_type.shape.dim] for v in values}
    stored = {t.name: list(t.dims) for t in model.graph.initializer}
    sources = {name: node for node in model.graph.node for name in node.output}
    total = 0
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        weight = node.input[1]
        if weight not in stored and weight in sources:
            weight = sources[weight].input[0]
        made = math.prod(shapes.get(node.output[0], [0])[1:])
        dims = stored.get(weight, [0, 0])
        turned = any(a.name == "transB" and a.i for a in node.attribute)
        each = math.prod(dims[1:]) if node.op_type == "Conv" or turned else dims[0]
        total += made * each
    return total


def parameters(model: onnx.ModelProto) -> int:
    """Entries of all initializers."""
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer)


def measured(name: str, folder: Path) -> Entry:
    """One network and what becomes of it."""
    folder_of = OWN if name in OWN_NETWORKS else SHARED / "models"
    source, domain = folder_of / f"{name}.onnx", NETWORKS[name]
    paths, seconds = {"original": source}, {}
    for variant, align in (("exact", 1), ("aligned", None)):
        paths[variant] = folder / f"{variant}.onnx"
        began = time.process_time()
        optimize_file(source, paths[variant], domain=domain, align=align)
        seconds[variant] = time.process_time() - began
    for tool in TOOLS:
        if tool.name in OTHERS:
            paths[tool.name] = folder / f"{tool.name}.onnx"
            tool.apply(source, paths[tool.name])
    models = {variant: onnx.load(path) for variant, path in paths.items()}
    raced = latencies(
        {variant: Runner(model) for variant, model in models.items()},
        *(np.dtype(np.float32), 0, BATCHES),
    )
    return {
        variant: {
            "parameters": parameters(model),
            "multiplications": multiplications(model),
            "bytes": paths[variant].stat().st_size,
            "latency": raced[variant],
            "seconds": seconds.get(variant),
        }
        for variant, model in models.items()
    }


def markdown(found: Entry) -> str:
    """The record as a table."""
    lines = [
        "# Channels of whole graphs",
        "",
        "Written by `python -m benchmarks.graphs`.",
        where(found["machine"]),
        "",
        "Saved of what the original has, and latency as a multiple of its own, the least of",
        "many calls on one thread. *Seconds* are the processor's for the whole of `optimize`.",
        "",
        "| network | variant | parameters | products | file | batch 1 | batch 32 | seconds |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    aligned = []
    for name, variants in found["networks"].items():
        original = variants["original"]
        for variant, row in variants.items():
            if variant == "original":
                continue
            saved = [
                f"{100.0 * (1.0 - row[key] / max(original[key], 1)):.1f}%"
                for key in ("parameters", "multiplications", "bytes")
            ]
            pairs = list(zip(row["latency"], original["latency"], strict=True))
            times = [f"{a / b:.2f}" if a and b else "" for a, b in pairs]
            if variant == "aligned" and pairs[1][0]:
                aligned.append(pairs[1][0] / pairs[1][1])
            spent = "" if row["seconds"] is None else f"{row['seconds']:.2f}"
            lines.append(f"| {name} | {variant} | {' | '.join([*saved, *times, spent])} |")
    mean = math.exp(sum(map(math.log, aligned)) / max(len(aligned), 1))
    lines += [
        "",
        f"Latency at batch 32, aligned, as a multiple of the original's: geometric mean {mean:.2f},"
        f" largest {max(aligned):.2f}.",
        "",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures all networks and writes the record."""
    del argv
    found: Entry = {"machine": machine(PACKAGES), "date": now(), "networks": {}}
    for name in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            found["networks"][name] = measured(name, Path(folder))
        print(name, file=sys.stderr, flush=True)
    write_text(RESULTS / "graphs.json", json.dumps(found, indent=1) + "\n")
    write_text(RESULTS / "graphs.md", markdown(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
