"""Memory and time of `onnx_exact optimize` by width: `python -m benchmarks.memory`.

The networks are random: 784 inputs in [0, 1], ten outputs, Kaiming-normal weights from a fixed
seed. Biases make a third of the units of a hidden layer inactive and a third active by interval
bounds alone; those of the others lie where the samples are, so that they are mostly unstable. Each
run is a process of its own, and its peak is what the system saw of it. Results go to
`benchmarks/results/memory.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.deciding.cases import ROOT
from benchmarks.measure import RSS_UNIT
from benchmarks.running.processes import RESULTS, THREADS, Entry, machine, now, write_text
from benchmarks.scaling import slope
from benchmarks.training.export import Layer, relu_network_model

PIXELS = 784
CLASSES = 10
SAMPLES = 256
# How far beyond the reach of interval bounds a stable unit's bias puts it.
BEYOND = 1.05
# Rows of a weight matrix that are drawn at a time.
ROWS = 4096
# What is wanted: at most so many times the file, and so many bytes for the program itself.
TIMES_FILE, PROGRAM = 5.0, 200e6
# At most so many bytes for the widest.
MOST = 8e9


@dataclass(frozen=True)
class Series:
    """Networks that differ in the width of their hidden layers."""

    name: str
    depth: int
    widths: tuple[int, ...]
    # The largest exponent of the time in the width that is wanted.
    exponent: float


SERIES = (
    Series("one hidden layer", 1, (5_000, 10_000, 20_000, 50_000, 200_000), 1.0),
    Series("two hidden layers", 2, (1_000, 2_000, 3_500, 5_000), 2.0),
)


def random_layers(inputs: int, widths: Sequence[int], seed: int) -> Iterator[Layer]:
    """Layers as the module's words say, one after another.

    Args:
        inputs: number of inputs.
        widths: of the hidden layers.
        seed: of the weights and the samples.
    """
    rng = np.random.default_rng(seed)
    lower, upper = np.zeros(inputs), np.ones(inputs)
    h = rng.random((SAMPLES, inputs), np.float32)
    for width in widths:
        weight = np.empty((width, h.shape[1]), np.float32)
        centre, reach = np.empty(width), np.empty(width)
        for start in range(0, width, ROWS):
            rows = rng.standard_normal((min(ROWS, width - start), h.shape[1]), np.float32)
            rows *= math.sqrt(2.0 / h.shape[1])
            block = slice(start, start + len(rows))
            weight[block] = rows
            centre[block] = rows @ ((lower + upper) / 2)
            reach[block] = np.abs(rows) @ ((upper - lower) / 2)
        g = h @ weight.T
        kind = rng.permutation(np.arange(width) % 3 - 1)
        bias = np.where(kind == 0, -g[rng.integers(SAMPLES, size=width), np.arange(width)], 0.0)
        bias = np.where(kind != 0, kind * BEYOND * reach - centre, bias).astype(np.float32)
        yield weight, bias
        h = np.maximum(g + bias, 0.0).astype(np.float32)
        lower = np.maximum(centre + bias - reach, 0.0)
        upper = np.maximum(centre + bias + reach, 0.0)
    scale = math.sqrt(1.0 / h.shape[1])
    last = rng.standard_normal((CLASSES, h.shape[1]), np.float32) * np.float32(scale)
    yield last.astype(np.float32), np.zeros(CLASSES, np.float32)


def write_network(path: Path, widths: Sequence[int], seed: int) -> None:
    """Writes a random network of some hidden layers, in a process of its own.

    The peak of a child begins at what its parent takes when it is started.
    """
    child = get_context("spawn").Process(target=_write_network, args=(path, widths, seed))
    child.start()
    child.join()
    if child.exitcode:
        raise RuntimeError(f"{path}: exit code {child.exitcode}")


def _write_network(path: Path, widths: Sequence[int], seed: int) -> None:
    model = relu_network_model(list(random_layers(PIXELS, widths, seed)), {})
    path.write_bytes(model.SerializeToString())


def measure(path: Path, target: Path) -> Entry:
    """The command's peak of memory and its seconds, of the processor and of the clock.

    Raises:
        RuntimeError: it failed.
    """
    report = target.with_suffix(".json")
    command = [sys.executable, "-m", "onnx_exact", "optimize", str(path), str(target)]
    environment = os.environ | dict.fromkeys(THREADS, "1")
    child = subprocess.Popen(
        [*command, "--quiet", "--report", str(report)], cwd=ROOT, env=environment
    )
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{path.name}: exit code {child.returncode}")
    totals = json.loads(report.read_text())["totals"]
    file, peak = path.stat().st_size, used.ru_maxrss * RSS_UNIT
    return {
        "file_mb": round(file / 1e6, 1),
        "peak_mb": round(peak / 1e6, 1),
        "times_file": round((peak - PROGRAM) / file, 2),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "units": [totals["units_before"], totals["units_after"]],
    }


def _widths(series: Series, most: int) -> Iterator[int]:
    yield from (width for width in series.widths if width <= most)


def within(entry: Entry) -> bool:
    """Whether a run took as little memory as is wanted."""
    return bool(entry["times_file"] <= TIMES_FILE and entry["peak_mb"] * 1e6 <= MOST)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 1 where more memory or time was taken than is wanted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--most", type=int, default=200_000, metavar="WIDTH")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "memory.json", metavar="FILE")
    args = parser.parse_args(argv)
    results: Entry = {"machine": machine(), "when": now(), "seed": args.seed, "series": {}}
    right = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for series in SERIES:
            runs: list[Entry] = []
            for width in _widths(series, args.most):
                path = folder / "network.onnx"
                write_network(path, [width] * series.depth, args.seed)
                runs.append({"width": width} | measure(path, folder / "smaller.onnx"))
                right &= within(runs[-1])
                print(f"{series.name}, {width}: {runs[-1]}", flush=True)
                results["series"][series.name] = {"runs": runs}
                write_text(args.out, json.dumps(results, indent=1) + "\n")
            found: Entry = {"runs": runs}
            if len(runs) > 1:
                grown = slope([r["width"] for r in runs], [r["cpu_seconds"] for r in runs])
                found |= {"exponent": round(grown, 2), "wanted": series.exponent}
                print(f"{series.name}: time grows like width to the power {grown:.2f}")
            results["series"][series.name] = found
            write_text(args.out, json.dumps(results, indent=1) + "\n")
    return int(not right)


if __name__ == "__main__":
    sys.exit(main())
