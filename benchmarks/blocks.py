"""How fast onnxruntime is by the number of channels and units: `python -m benchmarks.blocks`.

Two or three convolutions, one after another, then a global mean; the channels of the middle vary.
What `onnx_exact.labels.alive` keeps of channels that could go rests on this. And three dense
layers, of which the first varies: that fewer units are never slower is why the fewest connections
are what `--goal deploy` takes. The record is `benchmarks/results/blocks.json`, and `blocks.md`
beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.deciding.tables import where
from benchmarks.running.latency import Runner, latencies
from benchmarks.running.processes import RESULTS, Entry, machine, now, write_text
from benchmarks.training.export import relu_network_model

PACKAGES = ("numpy", "onnx", "onnxruntime")
BATCHES = (1, 32)
DENSE_BATCHES = (1, 256)
SIDE = 16
# Of the inputs and of the layers behind the one that varies.
DENSE = (784, 64, 10)
UNITS = (32, 40, 48, 56, 63, 64, 65, 72, 80, 88, 96, 97, 104, 112, 113, 120, 127, 128)
CHANNELS = (4, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 22, 24, 28, 30, 32)
# What the channels go through: channels (0 for those that vary), size of the window and groups (0
# for as many as channels) of each convolution.
Layout = tuple[tuple[int, int, int, int], ...]
LAYOUTS: dict[str, Layout] = {
    "read by a convolution": ((16, 0, 3, 1), (0, 32, 3, 1)),
    "read by a mean alone": ((16, 32, 3, 1), (32, 0, 3, 1)),
    "depthwise between two": ((16, 0, 1, 1), (0, 0, 3, 0), (0, 32, 1, 1)),
}


def network(layout: Layout, channels: int) -> onnx.ModelProto:
    """The network with that many channels in the places that vary."""
    rng, nodes, stored, x = np.random.default_rng(0), [], [], "x"
    for k, (before, after, window, groups) in enumerate(layout):
        n, m, g = before or channels, after or channels, groups or channels
        weight = rng.normal(size=(m, n // g, window, window)) / (window * np.sqrt(n // g))
        for name, values in ((f"w{k}", weight), (f"b{k}", rng.normal(size=m))):
            stored.append(numpy_helper.from_array(values.astype(np.float32), name))
        pads = [window // 2] * 4
        nodes += [
            helper.make_node("Conv", [x, f"w{k}", f"b{k}"], [f"c{k}"], group=g, pads=pads),
            helper.make_node("Relu", [f"c{k}"], [f"r{k}"]),
        ]
        x = f"r{k}"
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["y"]))
    images: list[str | int | None] = ["n", layout[0][0], SIDE, SIDE]
    read = helper.make_tensor_value_info("x", TensorProto.FLOAT, images)
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "blocks", [read], [made], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def dense(units: int) -> onnx.ModelProto:
    """The dense network with that many units in its first layer."""
    rng, widths = np.random.default_rng(0), (DENSE[0], units, *DENSE[1:])
    layers = [
        (rng.normal(size=(m, n)) / np.sqrt(n), rng.normal(size=m)) for n, m in pairwise(widths)
    ]
    return relu_network_model(
        [(weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in layers], {}
    )


def measured() -> Entry:
    """Seconds by layout, batch and number of channels or units, all numbers in turn."""
    found: Entry = {}
    for name, layout in LAYOUTS.items():
        runners = {str(n): Runner(network(layout, n)) for n in CHANNELS}
        found[name] = latencies(runners, np.dtype(np.float32), 0, BATCHES)
        print(name, file=sys.stderr, flush=True)
    runners = {str(n): Runner(dense(n)) for n in UNITS}
    found["dense"] = latencies(runners, np.dtype(np.float32), 0, DENSE_BATCHES)
    return found


def markdown(found: Entry) -> str:
    """The record as a table."""
    lines = [
        "# Latency by the number of channels and units",
        "",
        "Written by `python -m benchmarks.blocks`.",
        where(found["machine"]),
        "",
        f"As a multiple of that with {CHANNELS[-1]} channels; one thread, images of"
        f" {SIDE} x {SIDE}.",
        "",
        *_head("channels are", CHANNELS),
    ]
    seconds = found["seconds"]
    for name in LAYOUTS:
        lines += _rows(name, seconds[name], CHANNELS, BATCHES)
    lines += [
        "",
        f"As a multiple of that with {UNITS[-1]} units, between {DENSE[0]} inputs and layers of"
        f" {DENSE[1]} and {DENSE[2]}.",
        "",
        *_head("units are", UNITS),
        *_rows("dense", seconds["dense"], UNITS, DENSE_BATCHES),
    ]
    return "\n".join([*lines, ""])


def _head(what: str, numbers: Sequence[int]) -> list[str]:
    return [
        f"| {what} | batch | {' | '.join(map(str, numbers))} |",
        f"| --- | ---: | {' | '.join(['---:'] * len(numbers))} |",
    ]


def _rows(name: str, seconds: Entry, numbers: Sequence[int], batches: Sequence[int]) -> list[str]:
    rows = []
    for place, batch in enumerate(batches):
        own = [seconds[str(n)][place] for n in numbers]
        shown = " | ".join(f"{value / own[-1]:.2f}" for value in own)
        rows.append(f"| {name} | {batch} | {shown} |")
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and writes the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blocks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args(argv)
    found: Entry = {"machine": machine(PACKAGES), "date": now(), "seconds": measured()}
    write_text(RESULTS / "blocks.json", json.dumps(found, indent=1) + "\n")
    write_text(RESULTS / "blocks.md", markdown(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
