"""A graph without the channels that can go: labelled, cut, until nothing more goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from onnx_exact.graph.constants import entries_of
from onnx_exact.graph.index import Index
from onnx_exact.labels.alive import kept_labels
from onnx_exact.labels.apart import outputs_apart
from onnx_exact.labels.labelling import Labelling
from onnx_exact.labels.labels import MAKERS, has_channels, label
from onnx_exact.labels.params import Cuts
from onnx_exact.labels.write import UnwritableError, write
from onnx_exact.network import Box


@dataclass(frozen=True)
class Channels:
    """The channels of one convolution, or the units of one matrix.

    Attributes:
        node: its name, or that of what it puts out.
        before, after: how many.
    """

    node: str
    before: int
    after: int


@dataclass(frozen=True, eq=False)
class Narrowed:
    """A model with fewer channels that computes the same, apart from rounding where it says so.

    Attributes:
        model: a copy.
        channels: of its convolutions and matrices, those that have fewer.
        parameters: entries of its constants, before and after.
        deviation: an upper bound on how far any output may be off, in real arithmetic, since
            readers got what they made of constants, rounded to their type; 0 where none did.
        cuts: of the original's tensors, along which axis which entries stay.
    """

    model: ModelProto
    channels: tuple[Channels, ...]
    parameters: tuple[int, int]
    deviation: float
    cuts: dict[str, Cuts]

    def then(self, more: Narrowed) -> Narrowed:
        """What went with what went of the rest."""
        total = {c.node: c for c in self.channels}
        for c in more.channels:
            before = total[c.node].before if c.node in total else c.before
            total[c.node] = Channels(c.node, before, c.after)
        parameters = self.parameters[0], more.parameters[1]
        deviation = self.deviation + more.deviation
        cuts = self.cuts | {t: _composed(self.cuts.get(t, {}), c) for t, c in more.cuts.items()}
        return Narrowed(more.model, tuple(total.values()), parameters, deviation, cuts)


def narrow(
    model: ModelProto,
    bounds: Callable[[str], Box],
    align: int | None,
    staying: Collection[str] = (),
    *,
    constants: bool = True,
    exact: Callable[[str], Box] | None = None,
) -> Narrowed | None:
    """The model without the channels that can go; None where none can.

    Args:
        model: not changed.
        bounds: on each of its tensors, over the domain.
        align: see `onnx_exact.labels.alive.kept_labels`.
        staying: tensors that keep all that they have.
        constants: whether channels that are constant and not 0 may go, which rounds.
        exact: bounds in real arithmetic; None for no others.
    """
    index = Index(model)
    if not has_channels(index):
        return None
    if not constants:
        return _only_zeros(index, bounds, staying, align)
    labelling = label(index, bounds, staying, exact=exact)
    found = _narrowed(labelling, align)
    if found is None:
        return None
    # What readers made of constants may be more than what went, or not be bounded behind them.
    plain = _only_zeros(index, bounds, staying, align) if labelling.moved else None
    most = found.parameters[0] if plain is None else plain.parameters[1]
    fits = found.parameters[1] < most and found.deviation < math.inf
    return found if fits else plain


def _only_zeros(
    index: Index, bounds: Callable[[str], Box], staying: Collection[str], align: int | None
) -> Narrowed | None:
    """The model without channels that are 0 or not read; None where there are none."""
    found = _narrowed(label(index, bounds, staying, constants=False), align)
    # Shared weights of which one reader needs less than another are copied.
    return None if found is not None and found.parameters[1] > found.parameters[0] else found


def _narrowed(labelling: Labelling, align: int | None) -> Narrowed | None:
    index = labelling.index
    while True:
        kept = kept_labels(labelling, align)
        if kept.all():
            return None
        try:
            made, cuts = write(labelling, kept)
        except UnwritableError as error:
            labelling.pin(error.labels, "data movement could not be written without them")
            continue
        channels = []
        for node in index.nodes:
            labels = labelling.of.get(node.output[0]) if node.output else None
            if node.op_type in MAKERS and labels is not None and not kept[labels].all():
                name = node.name or node.output[0]
                channels.append(Channels(name, labels.size, int(kept[labels].sum())))
        parameters = entries_of(index.model), entries_of(made)
        off = outputs_apart(Index(made), labelling.bounds, labelling.moved)
        return Narrowed(made, tuple(channels), parameters, off, cuts)


def _composed(first: Cuts, then: Cuts) -> Cuts:
    """What stays of a tensor that is cut twice, by its first entries."""
    found = dict(first)
    for axis, kept in then.items():
        whole = found.get(axis, np.ones(kept.size, dtype=bool)).copy()
        whole[whole] = kept
        found[axis] = whole
    return found
