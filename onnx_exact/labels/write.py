"""Writes a graph without labels that go: constants are cut, data movement is written anew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper

from onnx_exact.graph.index import Index
from onnx_exact.graph.splice import align_inputs
from onnx_exact.labels.constants import Adder, offset, takes_constants
from onnx_exact.labels.labelling import Flags, Labelling
from onnx_exact.labels.labels import ENTRYWISE
from onnx_exact.labels.move import MOVES, Labels, run_on
from onnx_exact.labels.params import Cuts, Cutter
from onnx_exact.labels.steady import always_zero, steady_labels

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class UnwritableError(Exception):
    """Data movement that cannot be written for what is left of a tensor.

    Attributes:
        labels: those that would have to stay.
    """

    def __init__(self, labels: Labels) -> None:
        super().__init__()
        self.labels = labels


def write(labelling: Labelling, kept: Flags) -> tuple[ModelProto, dict[str, Cuts]]:
    """A copy of the model with the labels that stay, and what stays of each tensor that is cut.

    Args:
        labelling: of its graph.
        kept: which labels stay.

    Raises:
        UnwritableError: naming labels without which it cannot be written.
    """
    writer = _Writer(labelling, kept)
    return writer.written(), writer.cuts()


class _Writer:
    def __init__(self, labelling: Labelling, kept: Flags) -> None:
        self._labelling, self._kept, self._index = labelling, kept, labelling.index
        self._model = ModelProto()
        self._model.CopyFrom(labelling.index.model)
        self._graph: GraphProto = self._model.graph
        self._cutter = Cutter(self._index, self._graph)
        self._adder = Adder(self._index, self._graph, self._cutter)

    def written(self) -> ModelProto:
        self._labelling.moved = {}
        for position, node in enumerate(self._index.nodes):
            touched = any(self._cuts(name) for name in (*node.input, *node.output))
            if touched:
                self._write(node, self._graph.node[position])
                self._give_constants(position, node, self._graph.node[position])
        self._adder.insert()
        self._cutter.drop_unread()
        old = {t.name: list(t.dims) for t in self._index.graph.initializer}
        new = {t.name: t for t in self._graph.initializer}
        fresh = {name: t for name, t in new.items() if old.get(name) != list(t.dims)}
        align_inputs(self._model, set(old), fresh, old.keys() - new.keys())
        self._correct_types()
        return self._model

    def cuts(self) -> dict[str, Cuts]:
        """By tensor, along which axis which entries stay."""
        found = {tensor: self._cuts(tensor) for tensor in self._labelling.of}
        return {tensor: cuts for tensor, cuts in found.items() if cuts}

    def _cuts(self, tensor: str) -> Cuts:
        """Along which axis a tensor loses which entries; at most one."""
        labels = self._labelling.of.get(tensor)
        if labels is None or self._kept[labels].all():
            return {}
        kept = self._kept[labels]
        for axis in range(kept.ndim):
            others = tuple(other for other in range(kept.ndim) if other != axis)
            if (kept == kept.any(axis=others, keepdims=True)).all():
                return {axis: np.asarray(kept.any(axis=others))}
        raise AssertionError(f"{tensor} loses no whole slices")

    def _write(self, node: NodeProto, new: NodeProto) -> None:
        op = node.op_type
        before, after = self._cuts(node.input[0]), self._cuts(node.output[0])
        if op in ("Conv", "ConvTranspose"):
            self._convolution(node, new, before.get(1), after.get(1))
        elif op in ("Gemm", "MatMul"):
            self._product(node, new, before, after)
        elif op == "BatchNormalization":
            for slot in range(1, 5):
                self._set(new, slot, {0: after[1]})
        elif op in ENTRYWISE:
            self._entrywise(node, new, after)
        elif op in MOVES:
            self._move(node, new)

    def _give_constants(self, position: int, node: NodeProto, new: NodeProto) -> None:
        """Adds what a reader made of constants that are gone from its input."""
        cuts = self._cuts(node.input[0])
        if node.op_type not in WEIGHTED or not cuts or not takes_constants(self._index, node):
            return
        (axis, kept), source = next(iter(cuts.items())), node.input[0]
        box, labels = self._labelling.bounds(source), self._labelling.of[source]
        constant = steady_labels(self._labelling, source, labels)
        constant &= ~always_zero(self._labelling, source, labels)
        sides = [size if i == axis else 1 for i, size in enumerate((kept.size,) * labels.ndim)]
        gone = ~kept.reshape(sides) & constant
        if not gone.any():
            return
        found = offset(self._index, node, box, self._labelling.exact(source), gone)
        if found is None:
            raise UnwritableError(labels[np.broadcast_to(gone, labels.shape)])
        values, off = found
        for along, some in self._cuts(node.output[0]).items():
            if values.shape[along] > 1:
                values = values.compress(some, axis=along)
        rounded = self._adder.give(position, new, values) if values.any() else 0.0
        self._labelling.moved[node.output[0]] = off + rounded

    def _set(self, new: NodeProto, slot: int, cuts: Cuts) -> None:
        new.input[slot] = self._cutter.cut(new.input[slot], cuts)

    def _convolution(
        self,
        node: NodeProto,
        new: NodeProto,
        before: NDArray[np.bool_] | None,
        after: NDArray[np.bool_] | None,
    ) -> None:
        group = next((a for a in new.attribute if a.name == "group"), None)
        if group is not None and group.i > 1:
            assert after is not None
            # As many groups as have their channels.
            group.i = int(after.sum()) * group.i // after.size
            cuts = {0: after}
        else:
            axes = (1, 0) if node.op_type == "Conv" else (0, 1)
            pairs = zip(axes, (before, after), strict=True)
            cuts = {axis: kept for axis, kept in pairs if kept is not None}
        self._set(new, 1, cuts)
        if len(new.input) > 2 and new.input[2] and after is not None:
            self._set(new, 2, {0: after})

    def _product(self, node: NodeProto, new: NodeProto, before: Cuts, after: Cuts) -> None:
        """The matrix has its inputs along one axis, its outputs along the other."""
        turned = any(a.name == "transB" and a.i for a in node.attribute)
        cuts = {int(turned): kept for kept in before.values()}
        cuts |= {int(not turned): kept for kept in after.values()}
        self._set(new, 1, cuts)
        bias = self._index.value(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        kept = next(iter(after.values()), None)
        if bias is not None and kept is not None and bias.values.shape[-1:] == kept.shape:
            self._set(new, 2, {bias.values.ndim - 1: kept})

    def _entrywise(self, node: NodeProto, new: NodeProto, after: Cuts) -> None:
        """Cuts what stands beside the tensor, where it has an entry for each."""
        rank = self._labelling.rank(node.output[0])
        assert rank is not None
        for slot, name in enumerate(node.input):
            value = self._index.value(name) if name else None
            if value is None or value.values.size == 1:
                continue
            lacking = rank - value.values.ndim
            cuts = {
                axis - lacking: kept
                for axis, kept in after.items()
                if axis >= lacking and value.values.shape[axis - lacking] > 1
            }
            self._set(new, slot, cuts)

    def _move(self, node: NodeProto, new: NodeProto) -> None:
        """Parameters anew, then the node is run on the labels that stay."""
        wanted = {name: self._left(name) for name in node.output if name}
        getattr(self, f"_{node.op_type.lower()}", lambda *_: None)(node, new, wanted)
        moved = node.input if node.op_type == "Concat" else node.input[:1]
        known = Index(self._model)
        found = run_on(known, new, [self._left(name) for name in moved])
        for name, labels in wanted.items():
            if found is None or not np.array_equal(found[name], labels):
                raise UnwritableError(self._gone(node))

    def _left(self, tensor: str) -> Labels:
        """The labels of a tensor that stay, one for each entry."""
        shape = self._labelling.shape(tensor)
        if shape is None:
            raise UnwritableError(self._labelling.of[tensor])
        labels = np.broadcast_to(self._labelling.of[tensor], shape)
        for axis, kept in self._cuts(tensor).items():
            labels = labels.compress(kept, axis=axis)
        return np.asarray(labels)

    def _gone(self, node: NodeProto) -> Labels:
        tensors = (*node.input, *node.output)
        found = [self._labelling.of[name] for name in tensors if name in self._labelling.of]
        labels = np.concatenate([v.reshape(-1) for v in found])
        return np.unique(labels[~self._kept[labels]])

    def _constant(self, new: NodeProto, slot: int, values: Sequence[int]) -> None:
        """Gives a node integers of its own."""
        name = self._cutter.add(new.input[slot], np.asarray(values, np.int64))
        new.input[slot] = name

    def _reshape(self, node: NodeProto, new: NodeProto, wanted: dict[str, Labels]) -> None:
        target = self._index.integers(node.input[1]) if len(node.input) > 1 else None
        sizes = wanted[node.output[0]].shape
        if target is None or len(target) != len(sizes):
            return
        anew = [t if t in (-1, 0) else size for t, size in zip(target, sizes, strict=True)]
        if anew != target:
            self._constant(new, 1, anew)

    def _split(self, node: NodeProto, new: NodeProto, wanted: dict[str, Labels]) -> None:
        options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        axis = options.get("axis", 0)
        sizes = [wanted[name].shape[axis] if name else 0 for name in node.output]
        if "num_outputs" in options:
            kept = [a for a in new.attribute if a.name != "num_outputs"]
            del new.attribute[:]
            new.attribute.extend(kept)
        if self._index.opset < 13:
            kept = [a for a in new.attribute if a.name != "split"]
            del new.attribute[:]
            new.attribute.extend([*kept, helper.make_attribute("split", sizes)])
        elif len(new.input) > 1:
            self._constant(new, 1, sizes)
        else:
            new.input.append(self._cutter.add("split", np.asarray(sizes, np.int64)))

    def _slice(self, node: NodeProto, new: NodeProto, wanted: dict[str, Labels]) -> None:
        """Starts and ends count what stays in front of them."""
        cuts = self._cuts(node.input[0])
        if self._index.opset < 10 or not cuts or len(node.input) < 3:
            return
        (cut, kept), rank = next(iter(cuts.items())), wanted[node.output[0]].ndim
        starts, ends = (self._index.integers(node.input[slot]) for slot in (1, 2))
        axes = list(range(rank))
        if len(node.input) > 3 and node.input[3]:
            axes = self._index.integers(node.input[3]) or axes
        if starts is None or ends is None:
            return
        before = np.concatenate([[0], np.cumsum(kept)])
        for place, axis in enumerate(axes[: len(starts)]):
            if axis % rank == cut:
                for side in (starts, ends):
                    at = side[place] + (kept.size if side[place] < 0 else 0)
                    side[place] = int(before[min(max(at, 0), kept.size)])
        self._constant(new, 1, starts)
        self._constant(new, 2, ends)

    def _gather(self, node: NodeProto, new: NodeProto, wanted: dict[str, Labels]) -> None:
        """Indices count what stays in front of them."""
        cuts, value = self._cuts(node.input[0]), self._index.value(node.input[1])
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        rank = self._labelling.rank(node.input[0]) or 1
        if value is None or axis % rank not in cuts or value.values.ndim != 1:
            return
        kept = cuts[axis % rank]
        at = value.values.astype(np.int64) % kept.size
        before = np.cumsum(kept) - 1
        self._constant(new, 1, before[at[kept[at]]].tolist())

    def _correct_types(self) -> None:
        sizes = {tensor.name: tensor.dims for tensor in self._graph.initializer}
        # Some exporters declare their constants too.
        for value in [v for v in self._graph.value_info if v.name in self._cutter.changed]:
            if value.name in sizes and value.type.tensor_type.HasField("shape"):
                for dim, size in zip(
                    value.type.tensor_type.shape.dim, sizes[value.name], strict=False
                ):
                    dim.dim_value = size
            else:
                self._graph.value_info.remove(value)
        for value in (*self._graph.value_info, *self._graph.output):
            dims = value.type.tensor_type.shape.dim
            for axis, kept in self._cuts(value.name).items():
                if axis < len(dims):
                    dims[axis].dim_value = int(kept.sum())
        # What is said of how a tensor is quantised, or trained, was said of all of it.
        del self._model.training_info[:]
        said = [
            a
            for a in self._graph.quantization_annotation
            if not self._cuts(a.tensor_name) and a.tensor_name not in self._cutter.changed
        ]
        del self._graph.quantization_annotation[:]
        self._graph.quantization_annotation.extend(said)
