"""Classes of channels that stay or go together, and what keeps those that stay: for `inspect`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from onnx import ModelProto

from onnx_exact.graph.index import Index
from onnx_exact.labels.alive import kept_labels
from onnx_exact.labels.labelling import PINNED
from onnx_exact.labels.labels import MAKERS, has_channels, label
from onnx_exact.labels.move import Labels
from onnx_exact.network import Box


@dataclass(frozen=True)
class ChannelClass:
    """Convolutions and matrices whose outputs have the same channels.

    Attributes:
        nodes: their names.
        size: how many channels each has.
        stay: how many of them stay.
        why: what keeps these, in words; empty where it is that they are read, with weights other
            than 0, and not constant.
    """

    nodes: tuple[str, ...]
    size: int
    stay: int
    why: str


def classes(
    model: ModelProto,
    bounds: Callable[[str], Box],
    staying: Iterable[str],
    *,
    constants: bool = True,
) -> tuple[ChannelClass, ...]:
    """The classes of a model, in the order of the graph; none without convolutions.

    Args:
        model: not changed.
        bounds: on each of its tensors, over the domain.
        staying: tensors that keep all that they have.
        constants: whether channels that are constant and not 0 may go.
    """
    index = Index(model)
    if not has_channels(index):
        return ()
    found = label(index, bounds, frozenset(staying), constants)
    kept = kept_labels(found, 1)
    nodes: dict[tuple[int, ...], list[str]] = {}
    made: dict[tuple[int, ...], Labels] = {}
    for node in index.nodes:
        labels = found.of.get(node.output[0]) if node.output else None
        if node.op_type in MAKERS and labels is not None and labels.size > 1:
            key = tuple(found.class_of(labels).tolist())
            nodes.setdefault(key, []).append(node.name or node.output[0])
            made[key] = labels.reshape(-1)
    reasons: dict[int, str] = {}
    for labels, why in found.held:
        for place in {*found.class_of(labels).tolist()} - {PINNED}:
            reasons.setdefault(place, why)
    return tuple(
        ChannelClass(tuple(names), len(key), int(kept[made[key]].sum()), _why(key, reasons))
        for key, names in nodes.items()
    )


def _why(key: tuple[int, ...], reasons: dict[int, str]) -> str:
    """What keeps a class, where it is not that its channels are read."""
    return next((reasons[place] for place in key if place in reasons), "")
