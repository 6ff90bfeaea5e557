"""The windows of a convolution or a pool along the axes of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx_exact.graph.bounds.context import Context
from onnx_exact.graph.layout import Dim


@dataclass(frozen=True)
class Windows:
    """The attributes of a convolution or a pool; one entry each for every axis of the image."""

    kernel: tuple[int, ...]
    strides: Sequence[int]
    dilations: Sequence[int]
    before: Sequence[int]
    after: Sequence[int]
    auto_pad: str
    ceil: bool

    @staticmethod
    def of(c: Context, kernel: tuple[int, ...]) -> Windows | None:
        """Those of a node; None where they do not fit together."""
        n = len(kernel)
        strides, dilations = c.integers("strides") or [1] * n, c.integers("dilations") or [1] * n
        pads, mode = c.integers("pads") or [0] * (2 * n), c.text("auto_pad", "NOTSET")
        if len(strides) != n or len(dilations) != n or len(pads) != 2 * n:
            return None
        if min((1, *kernel, *strides, *dilations)) < 1 or min((0, *pads)) < 0:
            return None
        if mode not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
            return None
        if mode != "NOTSET":
            pads = [0] * (2 * n)
        ceil = bool(c.integer("ceil_mode", 0))
        return Windows(kernel, strides, dilations, pads[:n], pads[n:], mode, ceil)

    @property
    def extent(self) -> list[int]:
        """From the first to the last entry of a window."""
        return [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]

    @property
    def padded(self) -> bool:
        """Whether a window may reach beyond the image."""
        return self.auto_pad.startswith("SAME") or any(self.before) or any(self.after) or self.ceil

    def may_miss_the_image(self, shape: Sequence[Dim]) -> bool:
        """Whether a window may lie in the padding alone.

        Runtimes differ in which windows they leave out with `ceil_mode`: all are looked at.
        """
        return any(self._may_miss(axis, dim) for axis, dim in enumerate(shape))

    def _may_miss(self, axis: int, dim: Dim) -> bool:
        dilation, before, after = self.dilations[axis], self.before[axis], self.after[axis]
        if self.auto_pad.startswith("SAME"):
            # Less is added than a window reaches over: one without gaps meets the image.
            return dilation > 1
        beyond = self.strides[axis] - 1 if self.ceil else 0
        if dilation == 1 and max(before, after + beyond) < self.kernel[axis]:
            return False
        if not dim.static:
            return before + after + beyond > 0
        last = dim.size + after - self.extent[axis] + beyond
        return any(
            all(not 0 <= start + tap * dilation < dim.size for tap in range(self.kernel[axis]))
            for start in range(-before, last + 1, self.strides[axis])
        )
