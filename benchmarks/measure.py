"""Decides the units of one case and measures it: in a process of its own, so that the peak is too.

`python -m benchmarks.measure CASE METHOD LIMIT SEED VERDICTS` takes the case as JSON, prints what
was measured as JSON, and leaves the verdicts in the file VERDICTS.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx.defs

from benchmarks.deciding.cases import Case, case_from_json
from benchmarks.deciding.verdicts import Verdicts
from benchmarks.running.searches import searches_counted
from benchmarks.training.data import BenchmarkError
from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Evidence, Stability, Status
from onnx_exact.domains import resolve_domain
from onnx_exact.graph.locate import locate_chains
from onnx_exact.graph.metadata import metadata_of
from onnx_exact.graph.ranges import Ranges
from onnx_exact.graph.read import inputs_of, read_model
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.runtime.deadline import Deadline

# ru_maxrss counts kibibytes on Linux and bytes on macOS.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024
# Processes and threads at most: the times that are asked for are those of two cores.
JOBS = 2
# Before the first stage that is told: the points that every run starts with.
FIRST_STAGE = "samples"

# What decides a chain over a box, by the method, deadline, seed and progress of the options.
Decide = Callable[[Chain, Box, Options], Stability]


@dataclass(frozen=True)
class Measured:
    """One run on one case.

    Attributes:
        units, decided, open: numbers of ReLU units.
        layers: for each ReLU layer its inactive, active, unstable and open units.
        evidence: how many units each kind of evidence decided.
        splittings: of the input box, and of ReLUs: how many trees verdicts rest on, their nodes
            together, and those of the largest.
        read_seconds: from the file to the chain and its box.
        stage_seconds: of deciding, by stage.
        layer_seconds: the same by stage and layer.
        seconds: of reading and deciding, by the clock on the wall.
        cpu_seconds: the same as the processor's time of all threads.
        peak_mb: the most memory that the process ever had, in 10^6 bytes.
    """

    units: int
    decided: int
    open: int
    layers: list[dict[str, int]]
    evidence: dict[str, int]
    splittings: dict[str, dict[str, int]]
    read_seconds: float
    stage_seconds: dict[str, float]
    layer_seconds: dict[str, float]
    seconds: float
    cpu_seconds: float
    peak_mb: float


class StageClock:
    """A progress callback that adds up the time between one call and the next."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self.layers: dict[str, float] = {}
        self._now = (FIRST_STAGE, "")
        self._since = time.perf_counter()

    def __call__(self, stage: str, detail: str) -> None:
        """From now on the time is that of `stage`; `detail` begins with the layer."""
        self.stop()
        self._now = (stage, detail.split(",")[0])

    def stop(self) -> None:
        """Books the time since the last call on the stage that was told then."""
        now = time.perf_counter()
        stage, layer = self._now
        passed, self._since = now - self._since, now
        self.stages[stage] = self.stages.get(stage, 0.0) + passed
        key = f"{stage}: {layer}" if layer else stage
        self.layers[key] = self.layers.get(key, 0.0) + passed


def load(case: Case) -> tuple[Chain, Box]:
    """The only chain of the network of `case`, and what its input can be.

    Raises:
        BenchmarkError: the network has not exactly one chain.
    """
    source = read_model(case.file)
    domain = resolve_domain(case.domain_spec, inputs_of(source.model), metadata_of(source.model))
    located = locate_chains(source.model)
    if len(located) != 1:
        raise BenchmarkError(f"{case.name} has {len(located)} chains: only one can be measured")
    box = Ranges(source.model, domain.boxes).chain_domain(located[0]).box
    return located[0].chain, box


def _set_up_libraries() -> None:
    """What libraries do once, when they are first used, is measured no more than importing them."""
    np.random.default_rng(0)
    onnx.defs.has("Relu")


def measure(
    case: Case,
    method: str,
    limit: float,
    seed: int,
    decide: Decide = analyze_chain,
    jobs: int = 1,
) -> tuple[Measured, Stability]:
    """Reads and decides one case in this process.

    Args:
        case: its network is there.
        method: of `onnx_exact.methods.METHODS`.
        limit: seconds for deciding.
        seed: of every random choice.
        decide: what decides, where it is not the tool itself.
        jobs: processes and threads at most; the time of processes is not in `cpu_seconds`.
    """
    _set_up_libraries()
    cpu = time.process_time()
    begin = time.perf_counter()
    chain, box = load(case)
    read = time.perf_counter() - begin
    clock = StageClock()
    options = Options(method, Deadline(limit), seed, jobs, progress=clock)
    stability = decide(chain, box, options)
    clock.stop()
    total = time.perf_counter() - begin
    undecided = stability.count(Status.UNDECIDED)
    measured = Measured(
        units=chain.relu_units,
        decided=chain.relu_units - undecided,
        open=undecided,
        layers=_layers(stability),
        evidence=_evidence(stability),
        splittings=_splittings(stability),
        read_seconds=round(read, 4),
        stage_seconds=_rounded(clock.stages),
        layer_seconds=_rounded(clock.layers),
        seconds=round(total, 4),
        cpu_seconds=round(time.process_time() - cpu, 4),
        peak_mb=round(peak_bytes() / 1e6, 1),
    )
    return measured, stability


def peak_bytes() -> int:
    """The most memory that this process ever had.

    Where there is no /proc, of what it was forked from as well: Linux counts that in ru_maxrss.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT


def _layers(stability: Stability) -> list[dict[str, int]]:
    words = {
        "inactive": Status.INACTIVE,
        "active": Status.ACTIVE,
        "unstable": Status.UNSTABLE,
        "open": Status.UNDECIDED,
    }
    return [
        {word: layer.count(status) for word, status in words.items()}
        for layer in stability.layers
        if layer is not None
    ]


def _evidence(stability: Stability) -> dict[str, int]:
    """How many units were decided by each kind of evidence, the cheapest first."""
    layers = [layer for layer in stability.layers if layer is not None]
    return {
        kind.name.lower(): sum(int((layer.evidence == kind).sum()) for layer in layers)
        for kind in Evidence
        if kind is not Evidence.NONE
    }


def _splittings(stability: Stability) -> dict[str, dict[str, int]]:
    sizes: dict[str, list[int]] = {"box": [], "relu": []}
    for tree in stability.trees:
        sizes["box" if tree.leaves is None else "relu"].append(len(tree.splits))
    return {
        kind: {"trees": len(nodes), "nodes": sum(nodes), "largest": max(nodes, default=0)}
        for kind, nodes in sizes.items()
    }


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in seconds.items()}


def main(argv: Sequence[str]) -> None:
    """Measures one case as the module's words say."""
    case, method, limit, seed, verdicts = argv
    with searches_counted() as searches:
        measured, stability = measure(
            case_from_json(json.loads(case)), method, float(limit), int(seed), jobs=JOBS
        )
    Verdicts.of(stability, searches.steps).save(Path(verdicts))
    print(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main(sys.argv[1:])
