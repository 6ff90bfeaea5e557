"""Who is compared: each decides the units of a network, by its own means.

Whatever a contestant needs before it can begin (libraries, data, a compiled model) is prepared
before its time starts.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.deciding.cases import Case
from benchmarks.measure import Decide, load
from benchmarks.training.data import DATASETS, BenchmarkError
from benchmarks.training.networks import read_record
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Evidence, LayerVerdicts, Stability, Status
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box


class SkippedError(Exception):
    """A contestant cannot take part in a case, for the reason in the message."""


@dataclass(frozen=True)
class Contestant:
    """One way to decide.

    Attributes:
        name: short, unique.
        words: what it is, in a line.
        once: whether it takes so long that it is measured once.
        method: of `onnx_exact.methods.METHODS`, where it is the tool's own; else its name.
        prepare: makes ready for a case; raises `SkippedError` where it cannot take part.
    """

    name: str
    words: str
    once: bool
    method: str
    prepare: Callable[[Case], Decide]


def _prepare_tool(case: Case) -> Decide:
    return analyze_chain


def _prepare_tool_with_solver(case: Case) -> Decide:
    # Otherwise the import would count as time of deciding.
    importlib.import_module("pyscipopt")
    return analyze_chain


def _training_inputs(case: Case) -> NDArray[np.float32]:
    entry = read_record().get(case.name)
    if entry is None:
        raise SkippedError("its training data is not on record")
    try:
        return DATASETS[str(entry["data"])]().train_inputs
    except BenchmarkError as error:
        raise SkippedError(str(error)) from error


def _prepare_published(case: Case) -> Decide:
    from threadpoolctl import threadpool_limits

    from onnx_exact.decide.published import decide_at_once

    importlib.import_module("pyscipopt")
    samples = _training_inputs(case)

    def decide(chain: Chain, box: Box, options: Options) -> Stability:
        knowledge = Knowledge(chain, box, believing=True)
        with threadpool_limits(limits=1):
            knowledge.show(samples.astype(np.float64))
            decide_at_once(knowledge, options.deadline, options.progress)
        return knowledge.freeze()

    return decide


def _prepare_gurobi_at_once(case: Case) -> Decide:
    from benchmarks.comparing import gurobi

    gurobi.make_ready(load(case)[0])
    samples = _training_inputs(case)

    def decide(chain: Chain, box: Box, options: Options) -> Stability:
        knowledge = Knowledge(chain, box, believing=True)
        knowledge.show(samples.astype(np.float64))
        gurobi.decide_at_once(knowledge, options.deadline, options.progress)
        return knowledge.freeze()

    return decide


def _prepare_gurobi_one_by_one(case: Case) -> Decide:
    from benchmarks.comparing import gurobi

    gurobi.make_ready(load(case)[0])

    def decide(chain: Chain, box: Box, options: Options) -> Stability:
        knowledge = Knowledge(chain, box, believing=True)
        gurobi.decide_one_by_one(knowledge, options.deadline, options.progress)
        return knowledge.freeze()

    return decide


def _prepare_lirpa(case: Case) -> Decide:
    from benchmarks import lirpa

    try:
        lirpa.make_importable()
    except BenchmarkError as error:
        raise SkippedError(str(error)) from error
    bound = lirpa.crown_bounds(*load(case))

    def decide(chain: Chain, box: Box, options: Options) -> Stability:
        relu = iter(bound())
        layers = [_by_bounds(*next(relu)) if layer.relu else None for layer in chain.layers]
        nothing = np.zeros(0)
        return Stability(tuple(layers), np.zeros((0, chain.n_in)), nothing, nothing)

    return decide


def _by_bounds(lower: NDArray[np.float32], upper: NDArray[np.float32]) -> LayerVerdicts:
    """The verdicts that bounds alone amount to."""
    status = np.full(lower.shape, Status.UNDECIDED, dtype=np.int8)
    status[lower >= 0.0] = Status.ACTIVE
    status[upper <= 0.0] = Status.INACTIVE
    evidence = np.where(status == Status.UNDECIDED, Evidence.NONE, Evidence.LINEAR)
    unseen = np.zeros(lower.shape, dtype=bool)
    low, high = (side.astype(np.float64) for side in (lower, upper))
    return LayerVerdicts(status, evidence.astype(np.int8), low, high, unseen, unseen)


OURS = "auto"
CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant(OURS, "the default of the tool", False, "auto", _prepare_tool),
        Contestant(
            "bounds",
            "bounds, optimised slopes and a search for witnesses; no branching, no solver",
            False,
            "bounds",
            _prepare_tool,
        ),
        Contestant(
            "lirpa",
            "CROWN bounds of auto_LiRPA, float32, no witnesses",
            False,
            "lirpa",
            _prepare_lirpa,
        ),
        Contestant(
            "isa",
            "the 2021 algorithm in SCIP as published: the training set leaves the candidates",
            True,
            "isa",
            _prepare_published,
        ),
        Contestant(
            "isa+corners",
            "the 2021 algorithm in SCIP, with random points, corners and the extreme corners of"
            " first-layer units in place of the training set (`--method isa`)",
            True,
            "isa",
            _prepare_tool_with_solver,
        ),
        Contestant(
            "per-unit",
            "the 2020 algorithm in SCIP (`--method per-unit`)",
            True,
            "per-unit",
            _prepare_tool_with_solver,
        ),
        Contestant(
            "isa-gurobi",
            "the 2021 algorithm as published in Gurobi, where its size-limited licence admits the"
            " network",
            True,
            "isa",
            _prepare_gurobi_at_once,
        ),
        Contestant(
            "per-unit-gurobi",
            "the 2020 algorithm in Gurobi, likewise",
            True,
            "per-unit",
            _prepare_gurobi_one_by_one,
        ),
    )
}
