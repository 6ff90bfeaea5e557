"""Measures what the reductions save: `python -m benchmarks.reduce`.

For every case the units are decided once, and the same verdicts are given to the published
reductions and to all of them, in the chain form and in the split form. Connections, units, file
size, latency in onnxruntime and the deviation from the float64 evaluation of the original go to
`benchmarks/results/reduce.json`, and a table of them to `reduce.md` beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from benchmarks.deciding.cases import Case, cases
from benchmarks.reducing.tables import markdown, one_line
from benchmarks.running.latency import BATCHES, Runner, latencies
from benchmarks.running.processes import RESULTS, machine
from benchmarks.training.networks import NETWORKS
from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Stability, Status
from onnx_exact.domains import resolve_domain
from onnx_exact.graph.locate import LocatedChain, locate_chains
from onnx_exact.graph.metadata import metadata_of
from onnx_exact.graph.ranges import ChainDomain, Ranges
from onnx_exact.graph.read import inputs_of, read_model
from onnx_exact.graph.splice import splice
from onnx_exact.methods import SIZE
from onnx_exact.network.affine import Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.split import SplitChain
from onnx_exact.reduce import ReduceOptions, Reduction, reduce_chain
from onnx_exact.runtime.deadline import Deadline

TIME_LIMIT = 60.0
POINTS = 10_000
# Of the points: at most this share are witnesses, half of the others are corners.
WITNESSES = 0.2
# Corners with this share of the entries at their upper side, in turn.
UPPER_SHARES = (0.5, 0.1, 0.9)
ORIGINAL = "original"
KINDS = {
    "published": ReduceOptions("published"),
    "all": ReduceOptions("all"),
    "split": ReduceOptions("all", goal=SIZE),
}

Entry = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Decided:
    """The only chain of a case's model, decided."""

    model: ModelProto
    located: LocatedChain
    where: ChainDomain
    stability: Stability


def measured() -> dict[str, Case]:
    """The cases that deciding is measured on, and every other network that was trained with l1."""
    known = cases()
    taken = {case.file for case in known}
    others = [path for path in sorted(NETWORKS.glob("*_l1-*.onnx")) if path not in taken]
    more = [Case(path.stem, path) for path in others if "_l1-0_" not in path.name]
    return {case.name: case for case in [*known, *more]}


def decide(case: Case, limit: float, seed: int) -> Decided | str:
    """The chain of a case and its verdicts, or why it is not measured."""
    source = read_model(case.file)
    domain = resolve_domain(case.domain_spec, inputs_of(source.model), metadata_of(source.model))
    found = locate_chains(source.model)
    outputs = {output.name for output in source.model.graph.output}
    if len(found) != 1 or found[0].output not in outputs:
        return "is not one chain up to its output"
    where = Ranges(source.model, domain.boxes).chain_domain(found[0])
    if where.origin is None:
        return "does not begin at an input of the graph"
    options = Options(deadline=Deadline(limit), seed=seed)
    stability = analyze_chain(found[0].chain, where.box, options)
    return Decided(source.model, found[0], where, stability)


def run_case(case: Case, limit: float, seed: int) -> Entry:
    """All that is measured of one case, or the reason why nothing is."""
    entry: Entry = {"network": case.file.name, "domain": case.domain_words, "limit": limit}
    decided = decide(case, limit, seed)
    if isinstance(decided, str):
        return entry | {"skipped": decided}
    located = decided.located
    kinds: dict[str, Entry] = {ORIGINAL: _sizes(decided.model, located.chain)}
    models = {ORIGINAL: decided.model}
    for name, options in KINDS.items():
        reduction = reduce_chain(
            located.chain, decided.stability, decided.where.box, located.dtype, options
        )
        models[name] = decided.model
        if reduction.changed:
            models[name] = splice(decided.model, [(located, reduction.network)])
        if options.goal == SIZE and reduction.split is None:
            models[name] = models["all"]
        kinds[name] = _sizes(models[name], reduction.network) | _refused(reduction)
        kinds[name]["within_need"] = _within_need(decided.stability, reduction)
    # What a reduction left as it was is measured once.
    first = {name: next(n for n in models if models[n] is models[name]) for name in models}
    runners = {name: Runner(models[name]) for name in dict.fromkeys(first.values())}
    seconds = latencies(runners, located.dtype, seed)
    deviations = _deviations(decided, runners, seed)
    for name, same in first.items():
        kinds[name]["latency_us"] = {
            str(batch): None if s is None else round(s * 1e6, 2)
            for batch, s in zip(BATCHES, seconds[same], strict=True)
        }
        kinds[name]["deviation"] = deviations[same]
    return entry | {"layers": _verdicts(decided.stability), "kinds": kinds}


def _sizes(model: ModelProto, chain: Chain | SplitChain) -> Entry:
    return {
        "widths": [chain.n_in, *(layer.width for layer in chain.layers)],
        "units": chain.relu_units,
        "connections": chain.connections,
        "bytes": len(model.SerializeToString()),
    }


def _refused(reduction: Reduction) -> Entry:
    return {
        "refused": [
            {"what": r.what, "layer": r.layer, "reason": r.reason, "numbers": dict(r.numbers)}
            for r in reduction.refused
        ]
    }


def _within_need(stability: Stability, reduction: Reduction) -> bool:
    """Whether every hidden layer has at most its unstable units and what is needed of the others.

    That is min(stably active, inputs, units of the next layer), of the network as it is now; a
    layer that is gone needs nothing.
    """
    left = [index for index, layer in enumerate(reduction.layers) if layer.units_after]
    if len(left) != len(reduction.chain.layers):
        return False
    for place, index in enumerate(left[:-1]):
        verdicts = stability.layers[index]
        if verdicts is None:
            continue
        layer, after = reduction.chain.layers[place : place + 2]
        open_ = verdicts.count(Status.UNSTABLE) + verdicts.count(Status.UNDECIDED)
        need = min(verdicts.count(Status.ACTIVE), layer.affine.n_in, after.width)
        if layer.width > open_ + need:
            return False
    return True


def _verdicts(stability: Stability) -> list[dict[str, int]]:
    return [
        {status.name.lower(): verdicts.count(status) for status in Status}
        for verdicts in stability.layers
        if verdicts is not None
    ]


def _deviations(decided: Decided, runners: dict[str, Runner], seed: int) -> dict[str, float]:
    """The largest deviation of each model from the original in float64, over the same points."""
    origin = decided.where.origin
    assert origin is not None
    points = points_of(decided, np.random.default_rng(seed))
    samples = origin.to_graph(points).astype(decided.located.dtype)
    expected = decided.located.chain.forward(origin.to_chain(samples))
    return {
        name: float(np.abs(runner.outputs(samples).reshape(expected.shape) - expected).max())
        for name, runner in runners.items()
    }


def points_of(decided: Decided, rng: np.random.Generator) -> Array:
    """Witnesses, corners and uniformly random points of the chain's box, `POINTS` in all."""
    box, witnesses = decided.where.box, decided.stability.witnesses
    witnesses = witnesses[: int(WITNESSES * POINTS)]
    corners = (POINTS - len(witnesses)) // 2
    sizes = [len(part) for part in np.array_split(np.arange(corners), len(UPPER_SHARES))]
    parts = [box.corners(rng, size, share) for size, share in zip(sizes, UPPER_SHARES, strict=True)]
    return np.vstack([witnesses, *parts, box.sample(rng, POINTS - len(witnesses) - corners)])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reduce", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="CASE", help="only these cases")
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER")
    arguments = parser.parse_args(argv)
    known = measured()
    unknown = sorted(set(arguments.only or ()) - known.keys())
    if unknown:
        print(f"error: no case {unknown[0]!r}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    path = arguments.out / "reduce.json"
    results: Entry = {"rows": {}}
    if path.exists():
        results = json.loads(path.read_text(encoding="utf-8"))
    results["machine"] = machine()
    for name in arguments.only or known:
        if not known[name].present:
            print(f"{name}: not there")
            continue
        entry = run_case(known[name], arguments.time_limit, arguments.seed)
        results["rows"][name] = entry
        print(one_line(name, entry), flush=True)
        _write(path, json.dumps(results, indent=1) + "\n")
        _write(path.with_suffix(".md"), markdown(results))
    return 0


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    raise SystemExit(main())
