"""Between the pipeline and the labels: the model without channels that can go, tried against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from onnx import ModelProto

from onnx_exact.domains import Domain
from onnx_exact.errors import ModelError, OnnxExactError, ValidationError
from onnx_exact.graph.batch import runnable
from onnx_exact.graph.doubled import doubled
from onnx_exact.graph.kept import not_kept
from onnx_exact.graph.ranges import Ranges
from onnx_exact.graph.read import CHECKER_ERRORS, InputSpec, Source, check, one_line
from onnx_exact.labels.classes import classes
from onnx_exact.labels.narrow import Narrowed, narrow
from onnx_exact.methods import DEFAULT_MAX_DEVIATION, DEPLOY, REDUCTIONS
from onnx_exact.network import Box
from onnx_exact.settings import Settings
from onnx_exact.stages.run import Run
from onnx_exact.validate import Deviation, validate

# Above this both models are too large to be held in memory beside each other.
MOST_BYTES = 2**30


def narrowed(
    source: Source,
    inputs: tuple[InputSpec, ...],
    domain: Domain,
    ranges: Ranges,
    settings: Settings,
) -> tuple[Source, Narrowed | None, Deviation | None]:
    """The source without channels that can go, what went, and how far apart both were seen to be.

    Nothing goes where a certificate that is asked for could not speak of it, or where the outputs
    differ in onnxruntime by more than another order of summing explains: then the source has a
    warning that says so.
    """
    if settings.reductions != REDUCTIONS[0] or source.nbytes > MOST_BYTES:
        return source, None, None
    try:
        found = _until_no_more_goes(source.model, domain, ranges, settings)
    except OnnxExactError:
        raise
    except Exception as error:  # a defect here takes nothing from what comes after it
        said = f"channels stay, by a defect of onnx-exact, please report it with the model: {error}"
        return replace(source, warnings=(*source.warnings, said)), None, None
    if found is None:
        return source, None, None
    try:
        if not source.warnings:
            check(found.model, found.model.SerializeToString())
        seen = validate(
            runnable(source.model, source.path, source.model),
            runnable(found.model, None, source.model),
            *(inputs, domain),
            rtol=settings.rtol,
            atol=settings.atol,
            seed=settings.seed,
        )
    except (ValidationError, ModelError, *CHECKER_ERRORS) as error:
        said = f"channels that could go stay, since they could not be tried: {one_line(error)}"
        return replace(source, warnings=(*source.warnings, said)), None, None
    if settings.certificate is not None:
        # It knows the checker, which no other run needs.
        from onnx_exact.stages.checkable import against_channels

        why = against_channels(source, found, domain)
        if why:
            said = f"channels that could go stay, since no certificate can speak of them: {why}"
            return replace(source, warnings=(*source.warnings, said)), None, None
    lost = not_kept(source.model, found.model)
    warnings = (*source.warnings, *lost)
    return replace(source, model=found.model, warnings=warnings, changed=True), found, seen


def _until_no_more_goes(
    model: ModelProto, domain: Domain, ranges: Ranges, settings: Settings
) -> Narrowed | None:
    """What is left may have constants of its own."""
    found = more = _narrow(model, domain, ranges, settings, inside_chains(model, ranges))
    while found is not None and more is not None:
        checked = settings.certificate is not None
        ranges = Ranges(found.model, domain.boxes, checked=checked)
        staying = inside_chains(found.model, ranges)
        more = _narrow(found.model, domain, ranges, settings, staying)
        found = found if more is None else found.then(more)
    return found


def _narrow(
    model: ModelProto, domain: Domain, ranges: Ranges, settings: Settings, staying: set[str]
) -> Narrowed | None:
    """Once; constants that are not 0 stay where less than the usual rounding is asked for.

    And where there is to be a certificate.
    """
    align, rounds = _align(settings), _rounds(settings)
    exact = _exact(model, domain, ranges)
    return narrow(model, ranges.of, align, staying, constants=rounds, exact=exact)


def held_by_blocks(
    model: ModelProto, ranges: Ranges, settings: Settings, narrowed: Narrowed | None
) -> int:
    """How many channels could go and stay, so that blocks are full.

    Args:
        model: what is left.
        ranges: of it.
        settings: of the run.
        narrowed: what went.
    """
    if _align(settings) == 1 or settings.reductions != REDUCTIONS[0]:
        return 0
    if narrowed is None and settings.certificate is not None:
        # They may stay for want of a certificate.
        return 0
    staying, rounds = inside_chains(model, ranges), _rounds(settings)
    found = classes(model, ranges.of, staying, constants=rounds)
    return sum(each.size - each.stay for each in found)


def _align(settings: Settings) -> int | None:
    return settings.align or (None if settings.goal == DEPLOY else 1)


def _rounds(settings: Settings) -> bool:
    return settings.max_deviation >= DEFAULT_MAX_DEVIATION and settings.certificate is None


def once_more(run: Run, new: ModelProto) -> Narrowed | None:
    """What channels can go of a model whose chains were reduced: some were read by these alone.

    Nothing where a certificate is asked for, which speaks of channels of the original.
    """
    settings = run.settings
    free = settings.certificate is None and settings.reductions == REDUCTIONS[0]
    if not free or run.source.nbytes > MOST_BYTES:
        return None
    ranges = Ranges(new, run.domain.boxes)
    # What chains are compared by stays.
    staying = inside_chains(new, ranges) | {chain.input for chain in ranges.chains}
    try:
        found = _narrow(new, run.domain, ranges, settings, staying)
        if found is not None:
            compared(run, new, runnable(found.model, None, new))
    except (ValidationError, ModelError, *CHECKER_ERRORS):
        return None
    return found


def compared(run: Run, old: ModelProto, new: bytes | Path) -> Deviation:
    """How far apart a model and one without some of its channels are seen to be.

    Raises:
        ValidationError: by more than another order of summing explains.
    """
    settings = run.settings
    return validate(
        *(runnable(old, None, old), new, run.inputs, run.domain),
        rtol=settings.rtol,
        atol=settings.atol,
        seed=settings.seed,
    )


def _exact(model: ModelProto, domain: Domain, ranges: Ranges) -> Callable[[str], Box]:
    """Bounds on the tensors of a model as good as over the reals, made when they are asked for."""

    @cache
    def best() -> Ranges:
        twice = doubled(model)
        return ranges if twice is None else Ranges(twice, domain.boxes)

    return lambda tensor: best().of(tensor)


def inside_chains(model: ModelProto, ranges: Ranges) -> set[str]:
    """What the nodes of chains make."""
    names = {name for chain in ranges.chains for name in chain.nodes}
    made = (node for node in model.graph.node if node.output)
    return {
        tensor for node in made if (node.name or node.output[0]) in names for tensor in node.output
    }
