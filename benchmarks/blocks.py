"""How fast onnxruntime is by the number of channels: `python -m benchmarks.blocks`.

Two or three convolutions, one after another, then a global mean; the channels of the middle vary.
What `onnx_exact.labels.alive` keeps of channels that could go rests on this. The record is
`benchmarks/results/blocks.json`, and `blocks.md` beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.deciding.tables import where
from benchmarks.running.latency import Runner, latencies
from benchmarks.running.processes import RESULTS, Entry, machine, now, write_text

PACKAGES = ("numpy", "onnx", "onnxruntime")
BATCHES = (1, 32)
SIDE = 16
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


def measured() -> Entry:
    """Seconds by layout, batch and number of channels, all numbers in turn."""
    found: Entry = {}
    for name, layout in LAYOUTS.items():
        runners = {str(n): Runner(network(layout, n)) for n in CHANNELS}
        found[name] = latencies(runners, np.dtype(np.float32), 0, BATCHES)
        print(name, file=sys.stderr, flush=True)
    return found


def markdown(found: Entry) -> str:
    """The record as a table."""
    lines = [
        "# Latency by the number of channels",
        "",
        "Written by `python -m benchmarks.blocks`.",
        where(found["machine"]),
        "",
        f"As a multiple of that with {CHANNELS[-1]} channels; one thread, images of"
        f" {SIDE} x {SIDE}.",
        "",
        f"| channels are | batch | {' | '.join(map(str, CHANNELS))} |",
        f"| --- | ---: | {' | '.join(['---:'] * len(CHANNELS))} |",
    ]
    for name, seconds in found["seconds"].items():
        for place, batch in enumerate(BATCHES):
            own = [seconds[str(n)][place] for n in CHANNELS]
            shown = " | ".join(f"{value / own[-1]:.2f}" for value in own)
            lines.append(f"| {name} | {batch} | {shown} |")
    return "\n".join([*lines, ""])


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
