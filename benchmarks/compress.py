"""Measures what is gained on the trained networks: `python -m benchmarks.compress`.

For each network the units are decided once, and the same verdicts given to the published
reductions and to ours, in a plain chain and in the split form (`--goal size`); beside them stand
onnxslim and onnxsim alone, where they are installed (`pip install onnxslim onnxsim`). Connections,
file size, latency in onnxruntime and accuracy on the test set go to
`benchmarks/results/compress.json`; `python -m benchmarks.results` makes tables of them.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.decide import DECIDING, fingerprint
from benchmarks.reduce import ORIGINAL, Decided, decide
from benchmarks.running.latency import BATCHES, Runner, latencies
from benchmarks.running.processes import RESULTS, machine, now, write_text
from benchmarks.training.data import DATASETS, BenchmarkError, Dataset
from benchmarks.training.trained import TrainedNetwork, trained_networks
from onnx_exact.decide.verdict import Status
from onnx_exact.graph.locate import locate_chains
from onnx_exact.graph.splice import splice
from onnx_exact.methods import SIZE
from onnx_exact.network import Chain, SplitChain
from onnx_exact.reduce import ReduceOptions, reduce_chain

LIMIT = 60.0
TOOLS = ("onnxslim", "onnxsim")
REDUCED = {
    "published": ReduceOptions("published"),
    "all": ReduceOptions("all"),
    "split": ReduceOptions("all", goal=SIZE),
}
# The packages that the figures depend on.
ROOMS = (*DECIDING, "reduce")

Entry = dict[str, Any]
Simplify = Callable[[onnx.ModelProto], onnx.ModelProto]


def simplifiers() -> tuple[dict[str, Simplify], dict[str, str]]:
    """The other tools that are installed, and why the rest is missing."""
    made: dict[str, Callable[[Any], Simplify]] = {
        "onnxslim": lambda module: lambda model: module.slim(model),
        "onnxsim": lambda module: lambda model: module.simplify(model)[0],
    }
    found, missing = {}, {}
    for name in TOOLS:
        try:
            found[name] = made[name](importlib.import_module(name))
        except ImportError as error:
            missing[name] = f"{error}: pip install {name}"
    return found, missing


@dataclass(frozen=True, eq=False)
class Made:
    """A model, and what its one chain is."""

    model: onnx.ModelProto
    network: Chain | SplitChain

    @property
    def sizes(self) -> Entry:
        """Widths, connections and bytes."""
        return {
            "widths": [self.network.n_in, *(layer.width for layer in self.network.layers)],
            "connections": self.network.connections,
            "bytes": len(self.model.SerializeToString()),
        }


def make(decided: Decided, tools: dict[str, Simplify]) -> dict[str, Made]:
    """The original, what each set of reductions makes of it, and what other tools do."""
    located = decided.located
    original = Made(decided.model, located.chain)
    made = {ORIGINAL: original}
    for name, options in REDUCED.items():
        reduction = reduce_chain(
            located.chain, decided.stability, decided.where.box, located.dtype, options
        )
        network = reduction.network
        made[name] = original
        if network is not located.chain:
            made[name] = Made(splice(decided.model, [(located, network)]), network)
    for name, simplify in tools.items():
        copy = onnx.ModelProto()
        copy.CopyFrom(decided.model)
        # They write on standard output.
        with contextlib.redirect_stdout(io.StringIO()):
            simplified = simplify(copy)
        (found,) = locate_chains(simplified)
        made[name] = Made(simplified, found.chain)
    return made


def compress(network: TrainedNetwork, limit: float, seed: int) -> Entry:
    """All that is measured of one network, or the reason why nothing is."""
    entry: Entry = {
        **network.to_json(),
        "when": now(),
        "load": round(os.getloadavg()[0], 2),
        "limit": limit,
        "fingerprint": fingerprint(network.case, limit, seed, ROOMS),
    }
    decided = decide(network.case, limit, seed)
    if isinstance(decided, str):
        return entry | {"skipped": decided}
    tools, missing = simplifiers()
    made = make(decided, tools)
    # What is still the original is measured once.
    first = {name: next(n for n in made if made[n] is found) for name, found in made.items()}
    runners = {name: Runner(made[name].model) for name in dict.fromkeys(first.values())}
    seconds = latencies(runners, decided.located.dtype, seed)
    answers = _answers(network, runners)
    labels = _data(network.spec.data).test_labels
    kinds = {
        name: {
            **found.sizes,
            "latency_us": {
                str(batch): None if s is None else round(s * 1e6, 2)
                for batch, s in zip(BATCHES, seconds[first[name]], strict=True)
            },
            "accuracy": round(float((answers[first[name]] == labels).mean()), 4),
            "answers_changed": int((answers[first[name]] != answers[ORIGINAL]).sum()),
        }
        for name, found in made.items()
    }
    open_units = decided.stability.count(Status.UNDECIDED)
    return entry | {"open": open_units, "kinds": kinds, "missing": missing}


@functools.cache
def _data(name: str) -> Dataset:
    return DATASETS[name]()


def _answers(network: TrainedNetwork, runners: dict[str, Runner]) -> dict[str, Any]:
    """The class that each model gives each image of the test set."""
    samples = _data(network.spec.data).test_inputs
    return {name: np.argmax(runner.outputs(samples), axis=1) for name, runner in runners.items()}


def one_line(name: str, entry: Entry) -> str:
    """How one network went."""
    if "skipped" in entry:
        return f"{name}: {entry['skipped']}"
    kinds = entry["kinds"]
    left = {kind: found["connections"] for kind, found in kinds.items()}
    before, after = (kinds[kind]["accuracy"] for kind in (ORIGINAL, "all"))
    return (
        f"{name}: {'-'.join(map(str, kinds['all']['widths']))},"
        f" {1 - left['all'] / left[ORIGINAL]:.1%} of the connections removed (published"
        f" {1 - left['published'] / left[ORIGINAL]:.1%}), accuracy {before:.2%} then {after:.2%}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compress", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", nargs="+", default=[], metavar="NETWORK", help="these alone")
    parser.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="leave out what was measured already")
    parser.add_argument("--out", type=Path, default=RESULTS / "compress.json", metavar="FILE")
    args = parser.parse_args(argv)
    results: Entry = {"rows": {}}
    if args.out.exists():
        results = json.loads(args.out.read_text(encoding="utf-8"))
    packages = [name for name in TOOLS if name in simplifiers()[0]]
    results |= {"machine": machine(("numpy", "onnx", "onnxruntime", *packages)), "seed": args.seed}
    for network in trained_networks():
        if not network.file.exists() or (args.only and network.name not in args.only):
            continue
        current = fingerprint(network.case, args.limit, args.seed, ROOMS)
        if args.resume and results["rows"].get(network.name, {}).get("fingerprint") == current:
            continue
        try:
            results["rows"][network.name] = entry = compress(network, args.limit, args.seed)
        except BenchmarkError as error:
            print(f"benchmarks.compress: {error}", file=sys.stderr)
            return 2
        print(one_line(network.name, entry), flush=True)
        write_text(args.out, json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
