"""The original without the channels that a certificate says have gone, made and proved here.

Of every tensor that is cut, K are the entries along one axis that stay. Node by node, in the order
of the graph, what a node makes of cut inputs is what it made of whole ones, cut:

    entry by entry, channel by channel    f(x)[K] = f(x[K])
    weights                               (V x)[O] = V[O, K] x[K],    if for every i outside of K
                                          V[O, i] = 0, or x_i = 0 on the domain
    data movement                         run on the numbers of the entries, whole and cut

in real arithmetic. No input and no output of the model is cut. The names under which cut constants
stand, and the numbers that tell data movement where to go, are taken from the result; they are
proved all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from onnx_exact.errors import NotVerifiedError, UncheckedError
from onnx_exact.verifier.front import Front
from onnx_exact.verifier.model import Model, names_read
from onnx_exact.verifier.movement import MOVES, Cut, moves_alike
from onnx_exact.verifier.operators import attributes
from onnx_exact.verifier.refusals import require, require_known
from onnx_exact.verifier.shapes import Shape

# fmt: off
ENTRYWISE = (
    "Abs", "Add", "Cast", "Celu", "Clip", "Cos", "DequantizeLinear", "Div", "Dropout", "Elu", "Erf",
    "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Max", "Min", "Mul", "Neg",
    "PRelu", "QuantizeLinear", "Relu", "Selu", "Sigmoid", "Sin", "Softplus", "Sqrt", "Sub", "Sum",
    "Tanh",
)
BY_CHANNEL = ("AveragePool", "BatchNormalization", "GlobalAveragePool", "GlobalMaxPool", "MaxPool")
MEANS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")
# fmt: on
# What sizes that are not known are tried at where data movement is run.
SIZES = (0, 1, 2, 3)


def without_channels(old: Model, new: Model, cuts: Mapping[str, Cut], front: Front) -> Model:
    """What the original is without the entries that have gone.

    Args:
        old, new: the original and the result.
        cuts: of the original's tensors.
        front: intervals of the original's tensors over the domain.

    Raises:
        NotVerifiedError: it would not be the same function.
        UncheckedError: what cannot be checked.
    """
    # Open sizes are those with which the original runs, whatever still tells them elsewhere.
    new.told = {**new.told, **old.told}
    made = _Without(old, new, cuts, front).model()
    made.told = old.told
    return made


class _Without:
    def __init__(self, old: Model, new: Model, cuts: Mapping[str, Cut], front: Front) -> None:
        self._old, self._new, self._cuts, self._front = old, new, cuts, front
        # Constants that are cut or new, and those that are read as they were.
        self._made: dict[str, TensorProto] = {}
        self._whole = {value.name for value in old.graph.output}
        # Inputs of the node that is being made which are constants of its own.
        self._own: set[int] = set()

    def model(self) -> Model:
        """All nodes, one after another."""
        for node in self._old.nodes:
            require_known(node.op_type != "Slice" or self._of_known_sizes(node), "an open Slice")
        for value in self._old.graph.output:
            require(value.name not in self._cuts, f"the output {value.name!r} would be cut")
        for tensor, cut in self._cuts.items():
            proper = tensor in self._old.producer and cut.kept.any()
            require_known(self._old.constant(tensor) is None, f"the constant {tensor!r}, cut")
            require(proper, f"{tensor!r} cannot have lost what the certificate says")
            sizes = {s[cut.axis] if cut.axis < len(s) else -1 for s in self._old.shapes(tensor)}
            require(sizes == {cut.kept.size}, f"{tensor!r} has other entries along that axis")
            left = tuple(
                (*shape[: cut.axis], int(cut.kept.sum()), *shape[cut.axis + 1 :])
                for shape in self._old.shapes(tensor)
            )
            there = tensor not in self._new.producer or self._new.shapes(tensor) == left
            require(there, f"{tensor!r} of {self._new.name} has not the channels that stay")
        nodes = [self._node(node) for node in self._old.nodes]
        twice = sorted(self._made.keys() & self._whole)
        require_known(not twice, f"constants under one name: {''.join(twice[:1])!r}")
        proto = ModelProto()
        proto.CopyFrom(self._old.proto)
        graph = proto.graph
        stay = [t for t in graph.initializer if t.name not in self._made]
        for field, values in (
            (graph.node, nodes),
            (graph.initializer, [*stay, *self._made.values()]),
            (graph.value_info, []),
        ):
            del field[:]
            field.extend(values)
        return Model(proto, self._old.name)

    def _of_known_sizes(self, node: NodeProto) -> bool:
        """Whether a Slice goes along axes of known sizes: others it may cut short at some alone."""
        trials = self._old.shapes(node.input[0])
        axes = attributes(node).get("axes")
        if len(node.input) > 3 and node.input[3]:
            given = self._old.constant(node.input[3])
            axes = None if given is None else given.reshape(-1).tolist()
        elif len(node.input) > 1:
            starts = self._old.constant(node.input[1])
            axes = range(len(trials[0])) if starts is None else range(starts.size)
        rank = len(trials[0])
        along = range(rank) if axes is None else [axis % rank for axis in axes]
        return all(len({shape[axis] for shape in trials}) == 1 for axis in along)

    def _node(self, node: NodeProto) -> NodeProto:
        made = NodeProto()
        made.CopyFrom(node)
        if not self._cuts.keys() & {*names_read(node), *node.output}:
            self._whole.update(names_read(node))
            return made
        rule = RULES.get(node.op_type)
        plain = self._old.is_standard(node) and not any(a.ref_attr_name for a in node.attribute)
        if rule is None or not plain:
            raise UncheckedError(f"cannot check: cut channels through {node.op_type}")
        self._own = set()
        try:
            rule(self, node, made)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise UncheckedError(f"cannot check: this {node.op_type}, with cut channels") from error
        self._whole.update(n for slot, n in enumerate(made.input) if slot not in self._own)
        return made

    def _twin(self, node: NodeProto) -> NodeProto | None:
        """The node of the result that makes the same tensor in the same way."""
        position = self._new.producer.get(node.output[0])
        twin = None if position is None else self._new.nodes[position]
        same = twin is not None and (twin.op_type, twin.domain) == (node.op_type, node.domain)
        return twin if same else None

    def _put(self, node: NodeProto, made: NodeProto, slot: int, values: NDArray[Any]) -> None:
        """Gives a node a constant of its own, under the name that it has in the result."""
        twin, name = self._twin(node), f"{node.output[0]}:{slot}"
        if twin is not None and slot < len(twin.input):
            name = twin.input[slot]
        fed = {value.name for value in self._old.graph.input}
        require_known(
            name and name not in self._old.producer and name not in fed, f"the constant {name!r}"
        )
        tensor = numpy_helper.from_array(np.array(values, order="C"), name)
        known = self._made.setdefault(name, tensor)
        require_known(
            known.SerializeToString() == tensor.SerializeToString(), f"two constants {name!r}"
        )
        made.input[slot] = name
        self._own.add(slot)

    def _constant(self, node: NodeProto, slot: int) -> NDArray[Any]:
        """A constant input."""
        value = self._old.constant("".join(node.input[slot : slot + 1]))
        require_known(value is not None, f"what {node.op_type} reads beside its input")
        return np.asarray(value)

    def _put_channels(self, node: NodeProto, made: NodeProto, cut: Cut, slots: range) -> None:
        """Gives a node what constants have for each channel."""
        for slot in slots:
            values = self._constant(node, slot)
            require(values.shape[:1] == cut.kept.shape, f"{node.input[slot]!r} has other entries")
            self._put(node, made, slot, values[cut.kept])

    def _passed_on(self, node: NodeProto) -> Cut:
        """The cut of a node's input, which its output has to have as well."""
        cut = self._cuts.get(node.input[0])
        if cut is None or not cut.same(self._cuts.get(node.output[0])):
            raise NotVerifiedError(f"{node.output[0]!r} is cut otherwise than what it is made of")
        return cut

    def _shape(self, tensor: str) -> Shape:
        return self._old.shapes(tensor)[0]

    def entrywise(self, node: NodeProto, made: NodeProto) -> None:
        """f(x)[K] = f(x[K]): whatever meets the axis that is cut is cut as well."""
        cut = self._cuts.get(node.output[0])
        if cut is None:
            raise NotVerifiedError(f"{node.output[0]!r} is whole, and made of what is cut")
        trains = node.op_type == "Dropout" and any(node.input[2:])
        require_known(len(node.output) == 1 and not trains, f"this {node.op_type}")
        quantizes = node.op_type in ("QuantizeLinear", "DequantizeLinear")
        for slot, name in enumerate(node.input):
            value = self._old.constant(name) if name else None
            shape = (self._shape(name) if name else ()) if value is None else value.shape
            axis = cut.axis - len(self._shape(node.output[0])) + len(shape)
            meets = axis >= 0 and shape[axis] != 1
            single = value is not None and value.size == 1
            require_known(single or not (quantizes and slot), "several scales")
            if meets and value is not None:
                require(shape[axis] == cut.kept.size, f"{name!r} has other entries")
                self._put(node, made, slot, value.compress(cut.kept, axis=axis))
            elif value is None and name:
                wanted = Cut(axis, cut.kept) if meets else None
                found = self._cuts.get(name)
                same = found is None if wanted is None else wanted.same(found)
                require(same, f"{name!r} is cut otherwise than {node.output[0]!r}")

    def by_channel(self, node: NodeProto, made: NodeProto) -> None:
        """Each channel of the output is made of the same one of the input."""
        cut, options = self._passed_on(node), attributes(node)
        plain = not options.get("training_mode", 0) and options.get("spatial", 1)
        plain &= cut.axis == 1
        require_known(plain and sum(map(bool, node.output)) == 1, f"this {node.op_type}")
        self._put_channels(node, made, cut, range(1, len(node.input)))

    def averaged(self, node: NodeProto, made: NodeProto) -> None:
        """A mean, or the like, along axes that are not cut."""
        source, cut = self._cuts.get(node.input[0]), self._cuts.get(node.output[0])
        if source is None:
            raise NotVerifiedError(f"{node.output[0]!r} is cut, and made of what is whole")
        options, rank = attributes(node), len(self._shape(node.input[0]))
        axes = list(options.get("axes", ()))
        if not axes and len(node.input) > 1 and node.input[1]:
            axes = self._constant(node, 1).reshape(-1).tolist()
        require_known(axes, f"the axes of {node.op_type}")
        along = {axis % rank for axis in axes}
        lower = 0 if options.get("keepdims", 1) else sum(axis < source.axis for axis in along)
        same = source.axis not in along and Cut(source.axis - lower, source.kept).same(cut)
        require(same, f"{node.output[0]!r} is cut otherwise than what it is made of")

    def padded(self, node: NodeProto, made: NodeProto) -> None:
        """Nothing is added along the axis that is cut."""
        cut = self._passed_on(node)
        pads = attributes(node).get("pads")
        pads = self._constant(node, 1).reshape(-1).tolist() if pads is None else pads
        rank = len(self._shape(node.input[0]))
        plain = len(pads) == 2 * rank and not any(node.input[3:])
        plain &= not any(name in self._cuts for name in node.input[1:])
        require_known(plain and pads[cut.axis] == pads[rank + cut.axis] == 0, "where it pads")

    def resized(self, node: NodeProto, made: NodeProto) -> None:
        """Each channel by itself, where the axis that is cut is not scaled."""
        cut, options = self._passed_on(node), attributes(node)
        plain = options.keys() <= {"mode", "coordinate_transformation_mode", "nearest_mode"}
        plain &= options.get("coordinate_transformation_mode") != b"tf_crop_and_resize"
        plain &= not any(node.input[3:]) and not self._cuts.keys() & {*node.input[1:]}
        scales = self._constant(node, len(node.input) - 1)
        require_known(plain and scales[cut.axis] == 1.0, f"this {node.op_type}")

    def weighted(self, node: NodeProto, made: NodeProto) -> None:
        """(V x)[O] = V[O, K] x[K], where what is not read is 0 or has weights of 0."""
        options, convolves = attributes(node), node.op_type.startswith("Conv")
        source, out = (self._cuts.get(t) for t in (node.input[0], node.output[0]))
        weight = self._constant(node, 1)
        numbers = self._old.numbers(node.input[1])
        rank = len(self._shape(node.input[0]))
        plain = numbers is not None and numbers.ndim == (rank if convolves else 2)
        plain &= not options.get("transA", 0) and not self._cuts.keys() & {*node.input[1:]}
        require_known(plain, f"the weights of {node.op_type}")
        assert numbers is not None
        if options.get("group", 1) > 1:
            self._grouped(node, made, weight)
            return
        turned = node.op_type == "Conv" or bool(options.get("transB", 0))
        to, of = (0, 1) if turned else (1, 0)
        ends = (source, 1 if convolves else rank - 1), (out, 1 if convolves else rank - 1)
        require(
            all(cut is None or cut.axis == axis for cut, axis in ends),
            f"{node.output[0]!r} or what it is made of is cut along another axis",
        )
        through = (numbers != 0.0).any(axis=tuple(range(2, numbers.ndim)))
        through = through if turned else through.T
        sizes = zip((out, source), through.shape, strict=True)
        require(all(c is None or c.kept.size == size for c, size in sizes), "other channels")
        if out is not None:
            through, weight = through[out.kept], weight.compress(out.kept, axis=to)
            if len(node.input) > 2 and node.input[2]:
                bias = self._constant(node, 2)
                if bias.ndim and bias.shape[-1] != 1:
                    require(bias.shape[-1] == out.kept.size, "a bias of other channels")
                    self._put(node, made, 2, bias.compress(out.kept, axis=-1))
        if source is not None:
            read = through.any(axis=0) & ~source.kept
            low, high = self._front.along(node.input[0], source.axis)
            # What is not a number is none times 0 either.
            known = (np.isfinite(low) & np.isfinite(high)) | source.kept
            require_known(known.all(), f"nothing bounds {node.input[0]!r}, which lost channels")
            lost = read & ~((low == 0.0) & (high == 0.0))
            require_known(
                not lost.any(),
                f"channel {int(lost.argmax())} of {node.input[0]!r} is read, and may not be 0",
            )
            weight = weight.compress(source.kept, axis=of)
        self._put(node, made, 1, weight)

    def _grouped(self, node: NodeProto, made: NodeProto, weight: NDArray[Any]) -> None:
        """A kernel of its own for each group of channels, of which each goes as a whole."""
        group = next(a for a in made.attribute if a.name == "group")
        source, cut = (self._cuts.get(t) for t in (node.input[0], node.output[0]))
        if node.op_type != "Conv" or source is None or cut is None:
            raise UncheckedError("cannot check: channels in groups")
        require_known(source.axis == cut.axis == 1, "channels in groups")
        sizes = (weight.shape[1] * group.i, len(weight))
        require((source.kept.size, cut.kept.size) == sizes, "other channels than the groups have")
        read, given = (c.kept.reshape(group.i, -1) for c in (source, cut))
        stay = read[:, :1]
        require((read == stay).all() and (given == stay).all(), "a part of a group is cut")
        group.i = int(stay.sum())
        self._put_channels(node, made, cut, range(1, sum(map(bool, node.input))))

    def moved(self, node: NodeProto, made: NodeProto) -> None:
        """Data movement, run on numbered entries, whole and cut."""
        twin = self._twin(node)
        if twin is None:
            raise UncheckedError(f"cannot check: where {node.op_type} goes in the result")
        moves = MOVES[node.op_type]
        data = node.input[moves]
        fits = data == twin.input[moves] and list(node.output) == list(twin.output)
        require(fits, f"{node.output[0]!r} is made of other tensors in the result")
        constant = [self._old.constant(name) is not None for name in data]
        require_known(not any(constant), f"{node.op_type} of constants")
        del made.input[len(data) :]
        parameters = {}
        for slot in range(len(data), len(twin.input)):
            made.input.append(twin.input[slot])
            if twin.input[slot]:
                own = twin.input[slot] not in node.input
                value = (self._new if own else self._old).constant(twin.input[slot])
                require_known(value is not None, f"where {node.op_type} goes")
                parameters[slot] = np.asarray(value)
                old = self._old.constant("".join(node.input[slot : slot + 1]))
                rank = 1 if old is None else old.ndim
                require_known(parameters[slot].ndim == rank, f"where {node.op_type} goes")
                if own:
                    self._put(node, made, slot, np.asarray(value))
        del made.attribute[:]
        made.attribute.extend(twin.attribute)
        self._only_along_the_cut(node, twin, parameters)
        first = {
            name: self._constant(node, slot)
            for slot, name in enumerate(node.input)
            if name and slot >= len(data)
        }
        then = {made.input[slot]: value for slot, value in parameters.items()}
        for size in SIZES:
            shapes = {name: self._sized(name, size) for name in data}
            same = moves_alike(
                (node, first), (made, then), shapes, self._cuts, self._old.proto.opset_import
            )
            require_known(same, f"{node.op_type} to {node.output[0]!r} moves other entries")

    def _sized(self, tensor: str, size: int) -> Shape:
        """The shape of a tensor with a size in place of those that are not known."""
        trials = zip(*self._old.shapes(tensor), strict=True)
        return tuple(n[0] if len(set(n)) == 1 else size for n in trials)

    def _only_along_the_cut(
        self, node: NodeProto, twin: NodeProto, new: Mapping[int, NDArray[Any]]
    ) -> None:
        """Where it goes along other axes, whose sizes may not be known, is what it was."""
        options, cut = attributes(node), self._cuts.get(node.input[0])
        rank = len(self._shape(node.input[0]))
        if node.op_type in ("Gather", "Split"):
            along = options.get("axis", 0) % rank
            changes = 1 not in new or (cut is not None and cut.axis == along)
            changes |= node.op_type == "Split" and any(o in self._cuts for o in node.output)
            same = changes or np.array_equal(new[1], self._constant(node, 1))
            require_known(same, f"where {node.op_type} goes")
        if node.op_type == "Slice" and not any(node.input[1:]):
            require_known(not new and attributes(node) == attributes(twin), "where Slice goes")
        elif node.op_type == "Slice":
            given = {slot for slot, name in enumerate(node.input) if slot and name}
            require_known(given == new.keys(), "where Slice goes")
            old = {slot: self._constant(node, slot).reshape(-1) for slot in new}
            axes = old.get(3, np.arange(len(old[1]))) % rank
            other = axes != (rank if cut is None else cut.axis)
            ends = all(np.array_equal(new[k].reshape(-1)[other], old[k][other]) for k in (1, 2))
            rest = all(np.array_equal(new[k], old[k]) for k in (3, 4) if k in old)
            require_known(ends and rest, "where Slice goes")


Rule = Callable[[_Without, NodeProto, NodeProto], None]
RULES: dict[str, Rule] = {
    **dict.fromkeys(ENTRYWISE, _Without.entrywise),
    **dict.fromkeys(BY_CHANNEL, _Without.by_channel),
    **dict.fromkeys(MEANS, _Without.averaged),
    **dict.fromkeys(MOVES, _Without.moved),
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), _Without.weighted),
    "Pad": _Without.padded,
    "Resize": _Without.resized,
    "Upsample": _Without.resized,
}
