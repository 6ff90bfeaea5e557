"""The published algorithms, kept to compare with; `--method isa` and `--method per-unit`.

Serra et al. 2021 (ISA): sampled points leave the candidates, the signs that no sample shows; one
mixed-integer program over the whole network, with interval bounds as big-M, finds the others.
Serra et al. 2020: no samples; one program for each unit and sign, layer by layer, with the verdicts
on earlier units fixed. Both differ from the papers only where a verdict would not be sound: a unit
is stable if the solver proved it beyond its tolerance, never because the time was up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.programs import settle_layer, settle_together
from onnx_exact.decide.propagate import bound_by_intervals
from onnx_exact.network.affine import Array
from onnx_exact.runtime.deadline import Deadline

Progress = Callable[[str, str], None]


def decide_at_once(
    knowledge: Knowledge, deadline: Deadline, progress: Progress, points: Iterable[Array] = ()
) -> None:
    """ISA: interval bounds, points, then one program for all signs that the points do not show.

    Args:
        knowledge: what is known already.
        deadline: for everything.
        progress: called with a stage and a detail.
        points: samples in batches, looked at as long as there are candidates and time; the first
            batch in any case.
    """
    for index in range(len(knowledge.chain.layers)):
        bound_by_intervals(knowledge, index)
    for batch in points:
        if knowledge.open_units:
            knowledge.show(batch)
        if deadline.passed:
            break
    unclear = settle_together(knowledge, deadline, progress)
    # What solutions claim and their own forward pass denies has to be asked for by itself.
    for index in sorted({query.layer for query in unclear}):
        settle_layer(knowledge, index, deadline)


def decide_one_by_one(
    knowledge: Knowledge, deadline: Deadline, jobs: int, progress: Progress
) -> None:
    """Two programs for each unit that interval bounds leave open, first layer first."""
    for index in range(len(knowledge.chain.layers)):
        bound_by_intervals(knowledge, index)
        if knowledge.chain.layers[index].relu and not deadline.passed:
            progress("milp", f"layer {index + 1}, {knowledge.open_units} units open")
            settle_layer(knowledge, index, deadline, jobs=jobs)
