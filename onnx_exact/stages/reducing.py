"""Makes every chain of a run smaller, and the model of them.

With a certificate a chain stays as it is where the checker could not read what it would become, or
where the chain behind it has no room for how far it would be off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from onnx import ModelProto

from onnx_exact.certify.summary import Certified, worst
from onnx_exact.graph.constants import entries_of
from onnx_exact.graph.index import Index
from onnx_exact.graph.metadata import stamp
from onnx_exact.graph.plain import is_plain
from onnx_exact.graph.splice import splice
from onnx_exact.labels.narrow import Narrowed
from onnx_exact.reduce import ReduceOptions, Reduction, reduce_chain
from onnx_exact.runtime.memory import release_memory
from onnx_exact.stages.certified import CHECKED, certify, exceeds, lift
from onnx_exact.stages.meaningful import meaningful, observed_range
from onnx_exact.stages.narrowed import once_more
from onnx_exact.stages.provenance import provenance
from onnx_exact.stages.run import Run
from onnx_exact.validate import Rewritten


@dataclass(frozen=True, eq=False)
class Reduced:
    """What became of the chains of a run.

    Attributes:
        reductions: of each chain.
        bounds: on how far each is off.
        spliced: the model with all of them in their places; None where nothing changed.
        narrowed: channels that could go of it then.
    """

    reductions: tuple[Reduction, ...]
    bounds: tuple[Certified, ...]
    spliced: ModelProto | None
    narrowed: Narrowed | None = None

    @property
    def model(self) -> ModelProto | None:
        """The result; None where nothing changed."""
        return self.spliced if self.narrowed is None else self.narrowed.model

    def all_narrowed(self, run: Run) -> Narrowed | None:
        """The channels that went, before the chains were reduced and after."""
        then = self.narrowed
        if run.narrowed is None or then is None:
            return run.narrowed or then
        # What the chains themselves have lost in between is told by the chains.
        lost = then.parameters[0] - then.parameters[1]
        first, last = run.narrowed.parameters
        return replace(run.narrowed.then(then), parameters=(first, last - lost))

    @property
    def worst(self) -> Certified | None:
        """The bound on the chain that may be furthest off."""
        return worst(self.bounds)

    def rewritten(self, run: Run) -> list[Rewritten]:
        """The chains that were replaced, as they are to be judged."""
        return [
            Rewritten(
                *(located, reduction.network, where.box, bound.max_abs),
                plain=is_plain(run.source.model, located),
            )
            for (located, where, _), reduction, bound in zip(
                run.chains, self.reductions, self.bounds, strict=True
            )
            if reduction.changed
        ]


def reduce_and_rewrite(run: Run) -> Reduced:
    """The chains of a run as smaller ones, and the model of them."""
    run.limit.require_rest("reduce")
    found = [_reduced(run, place) for place in range(len(run.chains))]
    if run.limit.until("reduce").passed:
        run.limit.cut("reduce")
    release_memory()
    while True:
        reductions = tuple(reduction for reduction, _ in found)
        new = _rewrite(run, reductions)
        refused = {} if new is None else _refused(run, new, reductions)
        if not refused:
            bounds = tuple(bound for _, bound in found)
            return Reduced(reductions, bounds, new, _once_more(run, reductions, new))
        for place, why in refused.items():
            found[place] = _unchanged(run, place, why)


def _once_more(
    run: Run, reductions: tuple[Reduction, ...], new: ModelProto | None
) -> Narrowed | None:
    """What goes of the graph since chains of it were reduced."""
    if new is None or not any(reduction.changed for reduction in reductions):
        return None
    with run.stage("rewrite"):
        return once_more(run, new)


def _unreadable(run: Run, new: ModelProto, reductions: tuple[Reduction, ...]) -> dict[int, str]:
    """The places of new chains that a certificate cannot speak of, with the reason."""
    if run.certificate is None:
        return {}
    # It knows the checker, which no other run needs.
    from onnx_exact.stages.checkable import unreadable

    chains = zip(run.chains, reductions, strict=True)
    replaced = {k: (c[0], r.chain) for k, (c, r) in enumerate(chains) if r.changed}
    found = unreadable(run.source, new, replaced)
    words = "no certificate can speak of what it would be"
    return {place: f"{words}: {why}" for place, why in found.items()}


def _refused(run: Run, new: ModelProto, reductions: tuple[Reduction, ...]) -> dict[int, str]:
    """The places of new chains that are not to be, with the reason."""
    changed = [place for place, reduction in enumerate(reductions) if reduction.changed]
    return _unreadable(run, new, reductions) | _growing(run, new, changed)


def _growing(run: Run, new: ModelProto, changed: list[int]) -> dict[int, str]:
    """The places of chains whose weights others read too, where these make a model larger."""
    model = run.source.model
    if entries_of(new) <= entries_of(model):
        return {}
    index, found = Index(model), {}
    for place in changed:
        own = {node for site in run.chains[place][0].sites for node in site.nodes}
        read = {name for node in own for name in index.nodes[node].input}
        others = (
            set(index.readers.get(name, ())) - own for name in read if index.is_constant(name)
        )
        if any(others):
            found[place] = "its weights are shared with others, and the model would grow"
    return found


def _unchanged(run: Run, place: int, reason: str) -> tuple[Reduction, Certified]:
    """A chain as it is, and why."""
    reduction = Reduction.none(run.chains[place][0].chain, reason)
    return reduction, certify(run, place, reduction)


def _reduced(run: Run, place: int) -> tuple[Reduction, Certified]:
    """Reduces a chain, as far as the bound on its deviation says something of its outputs."""
    settings, allowed = run.settings, run.allowed[place]
    located, where, stability = run.chains[place]
    if allowed.reason:
        return _unchanged(run, place, f"no certificate can speak of it: {allowed.reason}")
    options = ReduceOptions(settings.reductions, settings.max_deviation, settings.goal)

    def attempt(exact: frozenset[int], removal: bool) -> tuple[Reduction, Certified]:
        with run.stage("reduce"):
            reduction = reduce_chain(
                *(located.chain, stability, where.box, located.dtype),
                *(replace(options, exact=exact, removal=removal), located.folded),
                run.limit.until("reduce"),
            )
        run.limit.require("certify")
        with run.stage("certify"):
            reduction = lift(run, place, reduction, exact)
            return reduction, certify(run, place, reduction)

    def extent() -> float:
        return observed_range(located.chain, where.box, stability.witnesses, settings.seed)

    layers = len(located.chain.layers)
    reduction, bound = meaningful(
        attempt, layers, extent, finite=where.box.finite, most=allowed.deviation / CHECKED
    )
    if exceeds(bound, allowed):
        why = "its outputs would be further off than the chain behind it has room for"
        return _unchanged(run, place, why)
    return reduction, bound


def _rewrite(run: Run, reductions: tuple[Reduction, ...]) -> ModelProto | None:
    """The model with every reduced chain in its place, or None where nothing changed."""
    replacements = [
        (located, reduction.network)
        for (located, _, _), reduction in zip(run.chains, reductions, strict=True)
        if reduction.changed
    ]
    if not replacements and run.narrowed is None:
        return None
    with run.stage("rewrite"):
        new = splice(run.source.model, replacements)
        stamp(new, provenance(run))
    return new
