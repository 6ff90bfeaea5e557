"""How time and memory grow with the network and its domain: `python -m benchmarks.scaling`.

The networks are random: Kaiming-normal weights from a fixed seed, and biases that put a third of
the units of each layer well above zero, a third well below, and the others anywhere between, much
as training with an l1 penalty does. One quantity varies at a time; each run has a process of its
own. Results go to `benchmarks/results/scaling.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.deciding.cases import Case
from benchmarks.running.processes import (
    RESULTS,
    ChildError,
    machine,
    now,
    patience,
    run_child,
    write_text,
)
from benchmarks.training.export import Layer, relu_network_model, write_model
from onnx_exact.network.domain import Box

LIMIT = 15.0
REPEAT = 2
PIXELS = 784
CLASSES = 10
SAMPLES = 512
# How far a bias moves a unit from zero, in units of how far samples move it.
SHIFT = 3.0
# A network too small to count: what the process needs before it begins.
NOTHING = (1, 1, 1)

Entry = dict[str, Any]


@dataclass(frozen=True)
class Point:
    """One network and domain of a series.

    Attributes:
        value: the quantity that varies.
        widths: of the input, the hidden layers and the output.
        radius: half the side of the box around 0.5.
    """

    value: float
    widths: tuple[int, ...]
    radius: float = 0.5


@dataclass(frozen=True)
class Series:
    """Networks that differ in one quantity; `words` says what the others are."""

    name: str
    words: str
    points: tuple[Point, ...]


def _network(inputs: int, width: int, depth: int) -> tuple[int, ...]:
    return (inputs, *[width] * depth, CLASSES)


SERIES = (
    Series(
        "width",
        "two hidden layers, 784 inputs, [0, 1]",
        tuple(Point(n, _network(PIXELS, n, 2)) for n in (100, 200, 400, 800, 1600)),
    ),
    Series(
        "depth",
        "hidden layers of 100, 784 inputs, [0, 1]",
        tuple(Point(n, _network(PIXELS, 100, n)) for n in (2, 3, 4, 6, 8, 10)),
    ),
    Series(
        "inputs",
        "two hidden layers of 200, [0, 1]",
        tuple(Point(n, _network(n, 200, 2)) for n in (5, 20, 80, 320, 1280, 3072)),
    ),
    Series(
        "domain",
        "half the side of the box around 0.5; four hidden layers of 100, 784 inputs",
        tuple(
            Point(r, _network(PIXELS, 100, 4), r) for r in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5)
        ),
    ),
)


def random_layers(widths: Sequence[int], seed: int) -> list[Layer]:
    """Layers as the module's words say.

    Args:
        widths: of the input, the hidden layers and the output.
        seed: of the weights and the samples.
    """
    rng = np.random.default_rng(seed)
    box = Box(np.zeros(widths[0]), np.ones(widths[0]))
    half = SAMPLES // 2
    h = np.concatenate([box.sample(rng, half), box.corners(rng, half)])
    layers: list[Layer] = []
    for fan_in, fan_out in pairwise(widths):
        weight = rng.standard_normal((fan_out, fan_in)) * math.sqrt(2.0 / fan_in)
        g = h @ weight.T
        shift = SHIFT * rng.permutation(np.arange(fan_out) % 3 - 1)
        shift = np.where(shift == 0.0, rng.uniform(-1.0, 1.0, fan_out), shift)
        bias = shift * np.abs(g - g.mean(axis=0)).max(axis=0) - g.mean(axis=0)
        layers.append((weight.astype(np.float32), bias.astype(np.float32)))
        h = np.maximum(g + bias, 0.0)
    return layers


def run_point(point: Point, limit: float, seed: int, folder: Path) -> Entry:
    """Measures deciding one network in a process of its own."""
    path = folder / "network.onnx"
    write_model(relu_network_model(random_layers(point.widths, seed), {}), path)
    domain = f"{0.5 - point.radius}:{0.5 + point.radius}"
    case = Case("random", path, domain)
    entry: Entry = {
        "value": point.value,
        "widths": list(point.widths),
        "radius": point.radius,
        "when": now(),
        "load": round(os.getloadavg()[0], 2),
    }
    arguments = [
        *(json.dumps(case.to_json()), "auto", str(limit), str(seed), str(folder / "verdicts.npz"))
    ]
    try:
        return entry | run_child("benchmarks.measure", arguments, patience(limit), threads=1)
    except ChildError as error:
        return entry | {"error": str(error)}


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The slope of a straight line through the logarithms: y grows like x to this power.

    Raises:
        ValueError: fewer than two points, or one that is not positive.
    """
    if len(xs) < 2 or min(*xs, *ys) <= 0.0:
        raise ValueError("a slope needs two points with positive coordinates")
    return float(np.polyfit(np.log(xs), np.log(ys), 1)[0])


def greatest_stage(entry: Entry) -> tuple[str, float]:
    """The stage that took most, and its share of the time."""
    stages = {"read": entry["read_seconds"], **entry["stage_seconds"]}
    name = max(stages, key=lambda stage: float(stages[stage]))
    return name, stages[name] / sum(stages.values())


def _plan(repeat: int) -> Iterator[tuple[Series, Point, int]]:
    for number in range(repeat):
        for series in SERIES:
            for point in series.points:
                yield series, point, number


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 1 where a run fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS")
    parser.add_argument("--repeat", type=int, default=REPEAT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "scaling.json", metavar="FILE")
    args = parser.parse_args(argv)
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        baseline = run_point(Point(1, NOTHING), args.limit, args.seed, folder)
        results: Entry = {
            "machine": machine(),
            "limit": args.limit,
            "seed": args.seed,
            "baseline": baseline,
            "series": {series.name: {"words": series.words, "runs": []} for series in SERIES},
        }
        for series, point, number in _plan(args.repeat):
            entry = run_point(point, args.limit, args.seed, folder) | {"repeat": number}
            results["series"][series.name]["runs"].append(entry)
            failed |= "error" in entry
            said = {key: entry.get(key) for key in ("units", "open", "cpu_seconds", "peak_mb")}
            print(f"{series.name} {point.value:g}: {entry.get('error', said)}", flush=True)
            write_text(args.out, json.dumps(results, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
