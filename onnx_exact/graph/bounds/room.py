"""How much may be known of tensors: entry by entry, and by channel where those are too many."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from onnx_exact.graph.bounds.interval import Interval
from onnx_exact.graph.layout import Dim

# Of all intervals of a graph together, beside its constants and what was given for its inputs.
FACT_BYTES = 64 * 2**20
# Two sides in float64.
ENTRY_BYTES = 16


def fits_alone(entries: int) -> bool:
    """Whether an interval of so many entries leaves room for others."""
    return 2 * ENTRY_BYTES * entries <= FACT_BYTES


def by_channel(x: Interval) -> Interval:
    """The bounds over all positions of an image."""
    return x.hull(tuple(range(2, x.rank)))


class Room:
    """What the intervals of a graph take; each gets half of what is left at most."""

    def __init__(self) -> None:
        self._of: dict[str, int] = {}
        self._held = 0

    def fits(self, entries: int) -> bool:
        """Whether an interval of so many entries may be kept."""
        return 2 * ENTRY_BYTES * entries <= FACT_BYTES - self._held

    def inputs(
        self, shape: Iterable[Dim] | None, inputs: tuple[Interval | None, ...]
    ) -> tuple[Interval | None, ...]:
        """What a node is to be evaluated on, so that its output of this shape may be kept."""
        sizes = [dim.size for dim in shape or () if dim.static]
        if self.fits(prod(sizes)):
            return inputs
        return tuple(x and by_channel(x) for x in inputs)

    def keep(self, tensor: str, found: Interval) -> Interval:
        """The interval, its hull by channel, or over everything, whichever there is room for."""
        self.free(tensor)
        for kept in (found, by_channel(found)):
            if self.fits(kept.lower.size):
                self._of[tensor] = ENTRY_BYTES * kept.lower.size
                self._held += self._of[tensor]
                return kept
        return found.hull()

    def free(self, tensor: str) -> None:
        """Forgets what a tensor takes."""
        self._held -= self._of.pop(tensor, 0)
