"""What a chain's input can be: intervals of the tensors in front of it, over the domain.

Every interval holds for the real numbers that the operators define, as all that is certified; only
a Cast rounds, for that is what it means. Arrays have the tensor's rank, with size 1 along axes of
which all entries have the same bounds, symbolic ones among them. What has no rule is unbounded, and
no chain behind it can be checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TypeGuard

import numpy as np
from onnx import NodeProto, TensorProto
from onnx.helper import tensor_dtype_to_np_dtype

from onnx_exact.verifier.front_rules import EVERY_OUTPUT, INTEGERS, PICKS, RULES, Place, anywhere
from onnx_exact.verifier.intervals import Interval, added, hull
from onnx_exact.verifier.model import FLOATS, MOST_ENTRIES, Model
from onnx_exact.verifier.operators import SAME, Layout, attributes
from onnx_exact.verifier.refusals import require_known
from onnx_exact.verifier.rounding import Array

# What integers can be, by type.
WHOLE: dict[int, tuple[float, float]] = {
    TensorProto.BOOL: (0.0, 1.0),
    TensorProto.INT8: (-128.0, 127.0),
    TensorProto.UINT8: (0.0, 255.0),
    TensorProto.INT16: (-32768.0, 32767.0),
    TensorProto.UINT16: (0.0, 65535.0),
    TensorProto.INT32: (-(2.0**31), 2.0**31),
    TensorProto.UINT32: (0.0, 2.0**32),
    TensorProto.INT64: (-(2.0**63), 2.0**63),
    TensorProto.UINT64: (0.0, 2.0**64),
}


class Front:
    """Intervals of the tensors of a model, computed when they are asked for.

    Args:
        model: the model.
        boxes: lower and upper sides of the inputs that have a domain, of the input's rank.
    """

    def __init__(self, model: Model, boxes: Mapping[str, Interval]) -> None:
        self._model, self._known, self._evaluated = model, dict(boxes), 0

    def learn(self, tensor: str, layout: Layout, bounds: Interval, apart: Array) -> None:
        """Takes in what is known of the output of a checked chain, in either model.

        The intervals of the model's own nodes hold for it, too, and may differ between positions.

        Args:
            tensor, layout: the output, and where its features lie.
            bounds: on its features in this model, shape (features,).
            apart: on how far the other model's is from it, for the same input of the chain.
        """
        shape = self._model.shapes(tensor)[0]
        start, stop = layout.at(0, shape) or (0, 0)
        sizes = (1,) * start + shape[start:stop] + (1,) * (len(shape) - stop)
        # Where no axes hold the features alone, every entry is one of them.
        ends = (*bounds, apart) if stop else (*hull(bounds, (0,)), hull((apart, apart), (0,))[1])
        low, high, off = (end.reshape(sizes) for end in ends)
        least, most = self._of(tensor)
        with np.errstate(all="ignore"):
            inner = np.maximum(least, low), np.minimum(most, high)
            self._known[tensor] = added(inner, (-off, off))

    def takes_all(self, tensor: str) -> bool:
        """Whether a tensor takes every value in its bounds: an input, its entries regrouped."""
        while tensor in self._model.producer:
            node = self._model.nodes[self._model.producer[tensor]]
            plain = self._model.is_standard(node) and node.op_type in SAME
            if not plain or any(self._model.constant(name) is None for name in node.input[1:]):
                return False
            tensor = node.input[0]
        return True

    def features(self, tensor: str, layout: Layout) -> Interval:
        """Bounds on the features of a tensor, shape (features,).

        Raises:
            UncheckedError: there are none.
        """
        found, shape = self._of(tensor), self._model.shapes(tensor)[0]
        axes = layout.at(0, shape)
        start, stop = axes or (0, 0)
        sizes = (layout.features,) if axes is None else shape[start:stop]
        require_known(layout.features <= MOST_ENTRIES, f"{tensor!r} has too many features")
        found = hull(found, (*range(start), *range(stop, len(shape))))
        low, high = (
            np.broadcast_to(v.reshape(v.shape[start:stop]), sizes).reshape(-1) for v in found
        )
        require_known(
            np.isfinite(low).all() and np.isfinite(high).all(),
            f"nothing bounds {tensor!r}, the input of a chain",
        )
        return low, high

    def along(self, tensor: str, axis: int) -> Interval:
        """The bounds of a tensor along an axis whose size is known."""
        found, shape = self._of(tensor), self._model.shapes(tensor)[0]
        low, high = hull(found, tuple(k for k in range(len(shape)) if k != axis))
        size = shape[axis : axis + 1]
        return np.broadcast_to(low.reshape(-1), size), np.broadcast_to(high.reshape(-1), size)

    def _of(self, tensor: str) -> Interval:
        """The bounds of a tensor, from those of all that comes before it in the graph."""
        last = self._model.producer.get(tensor, -1)
        for node in self._model.nodes[self._evaluated : last + 1]:
            self._evaluate(node)
        self._evaluated = max(self._evaluated, last + 1)
        return self._leaf(tensor)

    def _leaf(self, tensor: str) -> Interval:
        if tensor not in self._known:
            values = self._model.constant(tensor)
            # Numbers that float64 has, none of them NaN.
            if values is None or not (
                values.dtype.kind in "fiub"
                and np.isfinite(values).all()
                and np.array_equal(values.astype(np.float64).astype(values.dtype), values)
            ):
                sizes = (1,) * len(self._model.shapes(tensor)[0])
                low, high = WHOLE.get(self._model.elem_type(tensor), (-np.inf, np.inf))
                return np.full(sizes, low), np.full(sizes, high)
            self._known[tensor] = (values.astype(np.float64),) * 2
        return self._known[tensor]

    def _evaluate(self, node: NodeProto) -> None:
        model = self._model
        rule = RULES.get(node.op_type) if model.is_standard(node) else None
        for output in node.output[: None if node.op_type in EVERY_OUTPUT else 1]:
            kind = model.elem_type(output)
            meant = kind in FLOATS or node.op_type in INTEGERS
            if rule is None or not output or not meant or model.constant(output) is not None:
                continue
            picks = [anywhere] if node.op_type in PICKS else []
            for how in (rule, *picks):
                with np.errstate(all="ignore"), suppress(Exception):
                    # Sizes may fit nothing, and ONNX's reference fail in any way.
                    shapes, dtype = model.shapes(output), tensor_dtype_to_np_dtype(kind)
                    tensors = [self._leaf(name) for name in node.input if name]
                    if not all(np.isfinite(side).all() for ends in tensors for side in ends):
                        # What is not a number is none whatever is done to it.
                        break
                    place = Place(model, node, attributes(node), tensors, shapes, dtype, output)
                    found = how(place)
                    if _fits(found, shapes):
                        self._known[output] = found
                        break


def _fits(found: Interval | None, shapes: tuple[tuple[int, ...], ...]) -> TypeGuard[Interval]:
    """Whether bounds have the tensor's rank, and size 1 wherever that of the tensor is unknown."""
    return found is not None and all(
        side.ndim == len(shape)
        and all(size in (1, whole) for size, whole in zip(side.shape, shape, strict=True))
        and not np.isnan(side).any()
        for side in found
        for shape in shapes
    )
