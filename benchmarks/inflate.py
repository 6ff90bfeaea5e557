"""Whether what makes a network larger is undone: `python -m benchmarks.inflate`.

Networks of `models/`, of `../shared/models` and random ones are made larger by changes that leave
the function as it is (`benchmarks.reducing.inflations`), and reduced. A case is right where no
more units and connections are left than of the original; twice: than what the reductions left of it
that there were before the normal form (`inflate_before.json`), and than what they leave of it now.
Each result is certified, and compared in onnxruntime by `optimize` itself. The record is
`benchmarks/results/inflate.json`, and `inflate.md` beside it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.deciding.cases import SHARED
from benchmarks.reducing.inflations import KINDS, STACKS, Layers, Setting, f32, inflated
from benchmarks.running.processes import RESULTS, machine, write_text
from benchmarks.training.networks import MODELS
from onnx_exact.errors import OnnxExactError
from onnx_exact.graph.locate import locate_chains
from onnx_exact.network.affine import Array
from onnx_exact.pipeline import optimize
from tests.verifier.build import gemm_model

PAGE = RESULTS / "inflate.json"
BEFORE = Path(__file__).parent / "inflate_before.json"
PACKAGES = ("numpy", "onnx", "onnxruntime")
SEEDS = 3
# Points at which networks are compared in rational arithmetic; float32 has no smaller numbers than
# 2 ** -BITS.
POINTS, BITS = 2, 149
# Units of inflated networks that are decided with everything there is, and not by bounds alone.
SMALL = 700
# Widths of random networks.
RANDOM = ((3, 8, 8, 2), (4, 12, 12, 12, 3), (6, 20, 20, 4), (8, 16, 3), (5, 10, 10, 2))
Size = tuple[int, int]


@dataclass(frozen=True)
class Result:
    """One inflated network.

    Attributes:
        network, kinds, seed: which.
        exact: whether it is the original in rational arithmetic, at some points.
        inflated: units and connections of it.
        left: of what it was reduced to.
        deviation: certified.
        reason: why it was not reduced, empty where it was.
    """

    network: str
    kinds: str
    seed: int
    exact: bool
    inflated: Size
    left: Size
    deviation: float | None
    reason: str = ""


def networks() -> dict[str, Layers]:
    """The networks by name, those that are there."""
    files = [MODELS / f"{n}.onnx" for n in ("digits_2x32", "digits_2x32_l1", "mnist_2x100_l1")]
    files += [MODELS / "mnist_2x100.onnx"]
    files += [SHARED / "models" / "serra_mnist_100-100.onnx"]
    found = {path.stem: _layers(path) for path in files if path.exists()}
    for seed, widths in enumerate(RANDOM):
        rng = np.random.default_rng(seed)
        found[f"random_{seed}"] = [
            (f32(rng.normal(size=(m, n)) / np.sqrt(n)), f32(rng.normal(size=m) / 2.0))
            for n, m in pairwise(widths)
        ]
    return found


def _layers(path: Path) -> Layers:
    chain = locate_chains(onnx.load(path))[0].chain
    return [(layer.affine.weight, layer.affine.bias) for layer in chain.layers]


def reduced(layers: Layers) -> tuple[Size, float | None]:
    """What is left of a network over [0, 1], and the certified deviation.

    Raises:
        OnnxExactError: of `optimize`, where the result differs.
    """
    last = len(layers) - 1
    specs = [(w.tolist(), b.tolist(), k < last) for k, (w, b) in enumerate(layers)]
    # Trees on a thousand units that nearly cancel take minutes.
    small = sum(len(b) for _, b in layers) <= SMALL
    new, report = optimize(gemm_model(specs), domain="0:1", method="auto" if small else "bounds")
    assert report.totals.units_after is not None
    assert report.totals.connections_after is not None
    del new
    bound = None if report.certified is None else report.certified.max_abs
    return (report.totals.units_after, report.totals.connections_after), bound


def same_in_rationals(first: Layers, second: Layers) -> bool:
    """Whether two networks in float32 give the same outputs at some points, exactly."""
    points = np.random.default_rng(0).integers(0, 9, size=(first[0][0].shape[1], POINTS))
    # In units of 1 / 8, and then of that times 2 ** -BITS for each layer.
    unit = 2 ** (BITS * max(len(first), len(second)))
    (one, depth), (other, more) = _exactly(first, points), _exactly(second, points)
    return bool((one * (unit >> BITS * depth) == other * (unit >> BITS * more)).all())


def _exactly(layers: Layers, points: NDArray[np.int64]) -> tuple[NDArray[Any], int]:
    """Outputs as whole numbers of 2 ** -BITS for each layer and 1 / 8, and how many layers."""
    h, one = points.astype(object), 8
    for place, (weight, bias) in enumerate(layers):
        h = _whole(weight) @ h + (_whole(bias) * one)[:, None]
        one = one << BITS
        if place < len(layers) - 1:
            h = np.where(h > 0, h, 0)
    return h, len(layers)


def _whole(values: Array) -> NDArray[Any]:
    """Numbers of float32 as whole numbers of 2 ** -BITS."""
    digits, powers = np.frexp(values)
    whole = (digits * 2.0**24).astype(np.int64).astype(object)
    return np.asarray(whole << (powers - 24 + BITS).astype(object))


def size_of(layers: Layers) -> Size:
    """ReLU units and connections."""
    return sum(len(b) for _, b in layers[:-1]), sum(w.size for w, _ in layers)


def measured(only: str) -> Iterator[Result]:
    """All cases of the networks whose name `only` matches, those left as they are first."""
    kinds = [(), *((kind,) for kind in KINDS), *STACKS]
    for name, layers in networks().items():
        for place, names in enumerate(kinds):
            for seed in range(SEEDS if names else 1):
                if not re.search(only, name):
                    continue
                # Every third is of factors that are rounded.
                rng = np.random.default_rng([place, seed])
                larger = inflated(layers, names, Setting(rng, 1.0, seed < SEEDS - 1))
                kind = " ".join(names) or "original"
                case = (name, kind, seed, same_in_rationals(layers, larger), size_of(larger))
                try:
                    left, deviation = reduced(larger)
                except OnnxExactError as error:
                    yield Result(*case, size_of(larger), None, str(error)[:200])
                else:
                    yield Result(*case, left, deviation)


def markdown(results: Sequence[Result]) -> str:
    """The record in a few tables."""
    before: dict[str, Size] = {k: tuple(v) for k, v in json.loads(BEFORE.read_text()).items()}
    now = {r.network: r.left for r in results if r.kinds == "original"}
    cases = [r for r in results if r.kinds != "original"]
    lines = ["# Inflated networks, reduced", "", "Written by `python -m benchmarks.inflate`.", ""]
    found_on = machine(PACKAGES)
    lines += [f"{found_on['processor']}, Python {found_on['python']}. {len(cases)} cases.", ""]
    lines += [
        "| inflation | cases | at most the original, as it was reduced before | as it is now |"
    ]
    lines += ["| --- | --- | --- | --- |"]
    tally: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for r in cases:
        fits = _within(r, before[r.network]), _within(r, now[r.network])
        for kind in (r.kinds, "the original exactly" if r.exact else "with numbers rounded", "all"):
            tally[kind].append(fits)
    last = ("the original exactly", "with numbers rounded", "all")
    for kind in sorted(tally, key=lambda kind: last.index(kind) if kind in last else -1):
        found = tally[kind]
        counts = [sum(column) for column in zip(*found, strict=True)]
        lines.append(f"| {kind} | {len(found)} | {counts[0]} | {counts[1]} |")
    lines += ["", "Not at most the original as it is reduced now:", ""]
    missed = [r for r in cases if not _within(r, now[r.network])]
    lines += [
        f"- {r.network}, {r.kinds}, seed {r.seed}, {'exact' if r.exact else 'rounded'}:"
        f" {r.left} for {now[r.network]} {r.reason}"
        for r in missed
    ] or ["- none"]
    uncertified = [r for r in cases if r.deviation is None]
    lines += ["", f"Without a certified deviation: {len(uncertified)}.", ""]
    return "\n".join(lines)


def _within(result: Result, size: Size) -> bool:
    return not result.reason and all(a <= b for a, b in zip(result.left, size, strict=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes the record; 1 where a case is larger than before."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.inflate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default="", help="a regular expression of names")
    parser.add_argument("--out", type=Path, default=PAGE, help="default: %(default)s")
    options = parser.parse_args(arguments)
    results = []
    for result in measured(options.only):
        results.append(result)
        print(result, file=sys.stderr, flush=True)
    write_text(options.out, json.dumps([asdict(r) for r in results], indent=1) + "\n")
    write_text(options.out.with_suffix(".md"), markdown(results))
    before = json.loads(BEFORE.read_text())
    return int(not all(_within(r, before[r.network]) for r in results))


if __name__ == "__main__":
    sys.exit(main())
