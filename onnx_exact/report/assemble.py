"""Gathers what a run found and changed into its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from onnx import ModelProto

from onnx_exact._version import __version__
from onnx_exact.decide.verdict import Evidence, LayerVerdicts, Status
from onnx_exact.graph.locate import LocatedChain
from onnx_exact.network.affine import Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.split import SplitChain
from onnx_exact.reduce import LayerReduction, Reduction
from onnx_exact.report.report import (
    ChainReport,
    ChannelReport,
    FormReport,
    LayerReport,
    Refusal,
    Report,
    SliceReport,
    TimeReport,
    Totals,
)
from onnx_exact.stages.reducing import Reduced
from onnx_exact.stages.run import Run
from onnx_exact.stages.writing import Written


def assemble(
    run: Run,
    command: str,
    reduced: Reduced | None = None,
    written: Written | None = None,
) -> Report:
    """The report of a run; without `reduced` and `written` that of an analysis."""
    reductions = None if reduced is None else reduced.reductions
    per_chain: Sequence[Reduction | None] = (
        [None] * len(run.chains) if reductions is None else reductions
    )
    chains, refused = [], []
    for (located, _, stability), reduction in zip(run.chains, per_chain, strict=True):
        names = preactivation_tensors(run.source.model, located)
        layers = [
            _layer(
                layer.width, names[index], verdicts, reduction.layers[index] if reduction else None
            )
            for index, (layer, verdicts) in enumerate(
                zip(located.chain.layers, stability.layers, strict=True)
            )
        ]
        if not layers[-1].relu:
            layers[-1] = replace(
                layers[-1], lower=stability.output_lower, upper=stability.output_upper
            )
        read = (reduction.network if reduction else located.chain).input_read
        chains.append(
            ChainReport(
                located.name,
                tuple(layers),
                located.nodes,
                located.dtype.name,
                unread_inputs=tuple(np.flatnonzero(~read.any(axis=0)).tolist()),
                inputs=read.shape[1],
                rounded=reduction is not None and not reduction.removal_only,
                slice=_slice(read, located.dtype.itemsize),
                forms=tuple(
                    FormReport(form.layer, form.form, form.reason, form.numbers)
                    for form in (reduction.forms if reduction else ())
                ),
            )
        )
        for r in reduction.refused if reduction else ():
            refused.append(Refusal(located.name, r.layer, r.what, r.reason, r.numbers))
    settings = run.settings
    narrowed = run.narrowed if reduced is None else reduced.all_narrowed(run)
    return Report(
        command=command,
        version=__version__,
        source=run.source.path.name if run.source.path else "",
        source_sha256=run.source.sha256,
        domain=run.domain.to_json(),
        domain_source=run.domain.source,
        domain_declared=run.domain.declared,
        method=settings.method,
        seed=settings.seed,
        changed=run.narrowed is not None
        or any(reduction.changed for reduction in reductions or ()),
        chains=tuple(chains),
        totals=_totals(run, reductions, written.size if written else None),
        deviation=written.deviation if written else None,
        seconds=run.seconds,
        refused=tuple(refused),
        certified=None if reduced is None else reduced.worst,
        interrupted=any(stability.interrupted for _, _, stability in run.chains),
        time_limit=TimeReport(run.limit.seconds, tuple(run.limit.cut_short)),
        warnings=(*run.source.warnings, *(written.lost if written else ())),
        left_out=run.left_out,
        channels=tuple(
            ChannelReport(c.node, c.before, c.after)
            for c in (narrowed.channels if narrowed else ())
        ),
        channels_in_blocks=run.held_by_blocks,
        parameters=narrowed.parameters if narrowed else None,
        channels_deviation=0.0 if narrowed is None else narrowed.deviation,
    )


def preactivation_tensors(model: ModelProto, located: LocatedChain) -> list[str]:
    """For each layer of a chain the tensor that its ReLU reads, or that it makes without one."""
    return [
        site.output if site.relu is None else model.graph.node[site.relu].input[0]
        for site in located.sites
    ]


def _slice(read: Array, itemsize: int) -> SliceReport | None:
    """What keeping the inputs from the first to the last that is read would save."""
    where = np.flatnonzero(read.any(axis=0))
    if not where.size:
        # A constant: nothing reads anything.
        return None
    start, stop = int(where[0]), int(where[-1]) + 1
    saved = read.shape[1] - (stop - start)
    connections = saved * len(read)
    return SliceReport(start, stop, saved, connections, connections * itemsize) if saved else None


def _layer(
    width: int, tensor: str, verdicts: LayerVerdicts | None, reduction: LayerReduction | None
) -> LayerReport:
    if verdicts is None:
        found = LayerReport(width, tensor=tensor, relu=False)
    else:
        found = LayerReport(
            width,
            **_counts([verdicts]),
            relu=True,
            status=tuple(Status(status).name.lower() for status in verdicts.status),
            evidence=tuple(Evidence(evidence).name.lower() for evidence in verdicts.evidence),
            lower=verdicts.lower,
            upper=verdicts.upper,
            tensor=tensor,
        )
    if reduction is None:
        return found
    return replace(
        found,
        removed=reduction.removed,
        negligible=reduction.negligible,
        merged=reduction.merged,
        folded=reduction.folded,
        units_after=reduction.units_after,
    )


def _counts(layers: Sequence[LayerVerdicts]) -> dict[str, int]:
    names = {
        "stably_inactive": Status.INACTIVE,
        "stably_active": Status.ACTIVE,
        "unstable": Status.UNSTABLE,
        "undecided": Status.UNDECIDED,
    }
    counts = {name: sum(v.count(status) for v in layers) for name, status in names.items()}
    counts["by_solver"] = sum(int((v.evidence == Evidence.SOLVER).sum()) for v in layers)
    decided = sum(v.units for v in layers) - counts["undecided"]
    counts["proved"] = decided - counts["by_solver"]
    return counts


def _totals(run: Run, reductions: Sequence[Reduction] | None, bytes_after: int | None) -> Totals:
    chains = [located for located, _, _ in run.chains]
    before = [located.chain for located in chains]
    after = None if reductions is None else [reduction.network for reduction in reductions]
    # As the file has them: a layer that stays may be a product of larger factors there.
    connections = sum(located.connections() for located in chains)
    left = None
    if after is not None:
        pairs = zip(chains, after, strict=True)
        left = sum(located.connections(network) for located, network in pairs)
    verdicts = [v for _, _, stability in run.chains for v in stability.layers if v is not None]
    return Totals(
        units_before=_units(before),
        units_after=None if after is None else _units(after),
        connections_before=connections,
        connections_after=left,
        parameters_before=connections + _biases(before),
        parameters_after=None if after is None or left is None else left + _biases(after),
        bytes_before=run.source.nbytes,
        bytes_after=bytes_after,
        **_counts(verdicts),
    )


def _units(chains: Sequence[Chain | SplitChain]) -> int:
    return sum(chain.relu_units for chain in chains)


def _biases(chains: Sequence[Chain | SplitChain]) -> int:
    return sum(chain.parameters - chain.connections for chain in chains)
