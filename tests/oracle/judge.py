"""One run of the tool on one small network, held to what is exactly true.

What is wrong comes back in words, one line each. A unit may always be left undecided, and the tool
may always refuse with an error of its own; both are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
from onnx import ModelProto

from onnx_exact import pipeline
from onnx_exact.decide.verdict import LayerVerdicts, Status
from onnx_exact.errors import OnnxExactError, ValidationError
from onnx_exact.methods import DEFAULT_MAX_DEVIATION, GOALS, METHODS, REDUCTIONS
from onnx_exact.report import Report
from onnx_exact.report.assemble import assemble
from onnx_exact.stages.run import Run
from tests.oracle.families import Network
from tests.oracle.graphs import Graph, read_graph
from tests.oracle.pieces import Truth, cut_up, furthest
from tests.oracle.regions import Range


@dataclass(frozen=True)
class Way:
    """How the tool is run; `exact` asks for rewrites alone that round nothing."""

    method: str
    goal: str
    reductions: str
    exact: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.goal} {self.reductions}{' exact' if self.exact else ''}"


# Every goal with every choice of reductions.
REWRITES = tuple((goal, reductions) for goal in GOALS for reductions in REDUCTIONS)
# Of so many networks one has only rewrites that round nothing.
EXACT_EVERY = 5
# For deciding; what is then open is undecided.
SECONDS = 0.5


def ways_for(index: int) -> tuple[Way, ...]:
    """Six ways, all methods and all rewrites among them; each pair comes up in turn."""
    exact = index % EXACT_EVERY == 0
    return tuple(
        Way(METHODS[(index // EXACT_EVERY + k) % len(METHODS)], *rewrite, exact)
        for k, rewrite in enumerate(REWRITES)
    )


@dataclass(frozen=True, eq=False)
class Known:
    """A network and the truth about it."""

    network: Network
    graph: Graph
    truth: Truth

    @staticmethod
    def of(network: Network) -> Known:
        """By enumeration."""
        graph = read_graph(network.model)
        return Known(network, graph, cut_up(graph, network.box))


@dataclass(frozen=True)
class Judgement:
    """What came of one run.

    Attributes:
        wrong: what is not true, in words.
        refused: the error that the tool ended with, empty for none.
        units, undecided: units that had a verdict asked for, and those without one.
        changed: whether the model was rewritten.
        removal_only: whether that rounded nothing.
        certified: whether there is a bound on the deviation.
    """

    wrong: tuple[str, ...] = ()
    refused: str = ""
    units: int = 0
    undecided: int = 0
    changed: bool = False
    removal_only: bool = False
    certified: bool = False


def judge(known: Known, way: Way) -> Judgement:
    """Runs the tool in one way, and says what is wrong."""
    network = known.network
    settings: dict[str, Any] = {
        "domain": {"x": (network.box.lower.tolist(), network.box.upper.tolist())},
        "method": way.method,
        "goal": way.goal,
        "reductions": way.reductions,
        "max_deviation": 0.0 if way.exact else DEFAULT_MAX_DEVIATION,
        "time_limit": SECONDS,
    }
    try:
        with _captured() as runs:
            try:
                new, report = pipeline.optimize(network.model, **settings)
            except ValidationError as error:
                # What it was about to write is gone, but its verdicts are as before.
                pipeline.analyze(network.model, **settings)
                return Judgement(tuple(_wrong_verdicts(known, runs[0])), _named(error))
    except OnnxExactError as error:
        return Judgement(refused=_named(error))
    except Exception as error:
        return Judgement(wrong=(f"crashed with {_named(error)}",))
    totals = report.totals
    return Judgement(
        wrong=(*_wrong_verdicts(known, runs[0]), *_wrong_result(known, new, report, way.exact)),
        units=totals.units_before,
        undecided=totals.undecided,
        changed=report.changed,
        removal_only=report.changed and not any(chain.rounded for chain in report.chains),
        certified=report.certified is not None and report.certified.max_abs is not None,
    )


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


@contextmanager
def _captured() -> Iterator[list[Run]]:
    """Keeps the runs of the pipeline, whose verdicts a report only counts."""
    runs: list[Run] = []

    def keep(run: Run, *rest: Any, **more: Any) -> Report:
        runs.append(run)
        return assemble(run, *rest, **more)

    with patch.object(pipeline, "assemble", keep):
        yield runs


def _wrong_verdicts(known: Known, run: Run) -> Iterator[str]:
    """Verdicts that are not true, and bounds that do not hold the exact range."""
    nodes = known.network.model.graph.node
    for located, _, stability in run.chains:
        for site, verdicts in zip(located.sites, stability.layers, strict=True):
            if verdicts is None or site.relu is None:
                continue
            tensor = nodes[site.relu].input[0]
            ranges = known.truth.ranges[tensor]
            yield from _false(tensor, verdicts, ranges)
            yield from _outside(tensor, verdicts.lower, verdicts.upper, ranges)
        output = known.graph.steps[-1].source
        if located.output == output:
            lower, upper = stability.output_lower, stability.output_upper
            yield from _outside(output, lower, upper, known.truth.ranges[output])


def _false(tensor: str, verdicts: LayerVerdicts, ranges: tuple[Range, ...]) -> Iterator[str]:
    for unit, (least, greatest) in enumerate(ranges):
        status = Status(int(verdicts.status[unit]))
        true = {
            Status.UNDECIDED: True,
            Status.INACTIVE: greatest <= 0,
            Status.ACTIVE: least >= 0,
            Status.UNSTABLE: least < 0 < greatest,
        }[status]
        if not true:
            evidence = int(verdicts.evidence[unit])
            span = f"[{float(least)}, {float(greatest)}]"
            yield f"{tensor} unit {unit} is called {status.name} by {evidence}, but spans {span}"


def _outside(tensor: str, lower: Any, upper: Any, ranges: tuple[Range, ...]) -> Iterator[str]:
    for unit, (least, greatest) in enumerate(ranges):
        low, high = float(lower[unit]), float(upper[unit])
        if not low <= least or not greatest <= high:
            span = f"[{float(least)}, {float(greatest)}]"
            yield f"{tensor} unit {unit} is bounded by [{low}, {high}], but spans {span}"


def _wrong_result(known: Known, new: ModelProto, report: Report, exact: bool) -> Iterator[str]:
    """What is wrong with the new model, and with what is said of it."""
    original = known.network.model
    if not report.changed:
        if new.graph != original.graph:
            yield "a model that was not changed is another one"
        return
    onnx.checker.check_model(new)
    graph = read_graph(new)
    if graph.connections > known.graph.connections:
        yield f"{known.graph.connections} connections became {graph.connections}"
    if graph.relu_units > known.graph.relu_units:
        yield f"{known.graph.relu_units} units became {graph.relu_units}"
    for chain in report.chains:
        for index, layer in enumerate(chain.layers):
            if layer.units_after is not None and layer.units_after > layer.units:
                yield f"layer {index} grew from {layer.units} to {layer.units_after} units"
    moved = max(furthest(known.truth, graph))
    if moved and exact:
        yield f"nothing was to be rounded, but off by {float(moved)}"
    if moved and not any(chain.rounded for chain in report.chains):
        yield f"only removed, but off by {float(moved)}"
    found = report.certified
    if found is not None and found.max_abs is not None and found.is_output:
        if moved > Fraction(found.max_abs):
            yield f"certified {found.max_abs}, but off by {float(moved)}"
    elif moved > (allowed := own_rounding(known)):
        yield f"off by {float(moved)}, with no certificate and {float(allowed)} allowed"


def own_rounding(known: Known) -> Fraction:
    """What evaluating the original in its own type may add to an output.

    gamma_N (|W^L| ( ... |W^1| |x| + |b^1| ... ) + |b^L|) with N the operations of all layers
    (Higham 2002, section 3.1): the measure where nothing is certified.
    """
    box = known.network.box
    sides = np.maximum(np.abs(box.lower), np.abs(box.upper))
    absolute = read_graph(known.network.model, absolute=True)
    most = max(absolute.evaluate([Fraction(float(side)) for side in sides]))
    kind = known.network.model.graph.input[0].type.tensor_type.elem_type
    unit_roundoff = Fraction(float(np.finfo(onnx.helper.tensor_dtype_to_np_dtype(kind)).eps)) / 2
    spread = absolute.operations * unit_roundoff
    return spread / (1 - spread) * most
