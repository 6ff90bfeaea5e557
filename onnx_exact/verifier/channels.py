"""The original without the channels that a certificate says have gone, made and proved here.

Of every tensor that is cut, K are the entries along one axis that stay. Node by node, in the order
of the graph, what a node makes of cut inputs is what it made of whole ones, cut:

    entry by entry, channel by channel    f(x)[K] = f(x[K])
    weights                               (V x)[O] = V[O, K] x[K],    if for every i outside of K
                                          V[O, i] = 0, or x_i = 0 on the domain
    data movement                         run on the numbers of the entries, whole and cut

in real arithmetic. No input and no output of the model is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from onnx import ModelProto, NodeProto

from onnx_exact.errors import NotVerifiedError, UncheckedError
from onnx_exact.verifier.coverage import require_steady_sizes
from onnx_exact.verifier.cutting import Cut, Cutting
from onnx_exact.verifier.front import Front
from onnx_exact.verifier.model import Model, names_read
from onnx_exact.verifier.movement import MOVES, moved, sized
from onnx_exact.verifier.operators import attributes
from onnx_exact.verifier.quantized import dequantized, dequantizing
from onnx_exact.verifier.refusals import require, require_known
from onnx_exact.verifier.rounding import Flags
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


class _Without(Cutting):
    """The graph as it is made, node by node."""

    def model(self) -> Model:
        """All nodes, one after another."""
        require_steady_sizes(self.old)
        for value in self.old.graph.output:
            require(value.name not in self.cuts, f"the output {value.name!r} would be cut")
        for tensor, cut in self.cuts.items():
            proper = tensor in self.old.producer and cut.kept.any()
            fixed = self.old.constant(tensor) is not None or dequantizing(self.old, tensor)
            require_known(not fixed, f"the constant {tensor!r}, cut")
            require(proper, f"{tensor!r} cannot have lost what the certificate says")
            sizes = {s[cut.axis] if cut.axis < len(s) else -1 for s in self.old.shapes(tensor)}
            require(sizes == {cut.kept.size}, f"{tensor!r} has other entries along that axis")
            left = tuple(
                (*shape[: cut.axis], int(cut.kept.sum()), *shape[cut.axis + 1 :])
                for shape in self.old.shapes(tensor)
            )
            there = tensor not in self.new.producer or self.new.shapes(tensor) == left
            require(there, f"{tensor!r} of {self.new.name} has not the channels that stay")
        nodes = [self._node(node) for node in self.old.nodes]
        for made, own in self.quantized.values():
            self.whole.update(n for slot, n in enumerate(made.input) if slot not in own)
        twice = sorted(self.made.keys() & self.whole)
        require_known(not twice, f"constants under one name: {''.join(twice[:1])!r}")
        proto = ModelProto()
        proto.CopyFrom(self.old.proto)
        graph = proto.graph
        stay = [t for t in graph.initializer if t.name not in self.made]
        for field, values in (
            (graph.node, nodes),
            (graph.initializer, [*stay, *self.made.values()]),
            (graph.value_info, [v for v in graph.value_info if v.name not in self.cuts]),
        ):
            del field[:]
            field.extend(values)
        return Model(proto, self.old.name)

    def _node(self, node: NodeProto) -> NodeProto:
        made = NodeProto()
        made.CopyFrom(node)
        if dequantizing(self.old, "".join(node.output[:1])) is not None:
            self.quantized[node.output[0]] = made, set()
            return made
        if not self.cuts.keys() & {*names_read(node), *node.output}:
            self.whole.update(names_read(node))
            return made
        rule = RULES.get(node.op_type)
        plain = self.old.is_standard(node) and not any(a.ref_attr_name for a in node.attribute)
        if rule is None or not plain:
            raise UncheckedError(f"cannot check: cut channels through {node.op_type}")
        self.own = set()
        try:
            rule(self, node, made)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise UncheckedError(f"cannot check: this {node.op_type}, with cut channels") from error
        self.whole.update(n for slot, n in enumerate(made.input) if slot not in self.own)
        return made

    def entrywise(self, node: NodeProto, made: NodeProto) -> None:
        """f(x)[K] = f(x[K]): whatever meets the axis that is cut is cut as well."""
        cut = self.cuts.get(node.output[0])
        if cut is None:
            raise NotVerifiedError(f"{node.output[0]!r} is whole, and made of what is cut")
        trains = node.op_type == "Dropout" and any(node.input[2:])
        require_known(len(node.output) == 1 and not trains, f"this {node.op_type}")
        quantizes = node.op_type in ("QuantizeLinear", "DequantizeLinear")
        for slot, name in enumerate(node.input):
            value = self.old.constant(name) if name else None
            shape = (self.shape(name) if name else ()) if value is None else value.shape
            axis = cut.axis - len(self.shape(node.output[0])) + len(shape)
            meets = axis >= 0 and shape[axis] != 1
            single = value is not None and value.size == 1
            require_known(single or not (quantizes and slot), "several scales")
            if meets and value is not None:
                require(shape[axis] == cut.kept.size, f"{name!r} has other entries")
                self.put(node, made, slot, value.compress(cut.kept, axis=axis))
            elif value is None and name:
                wanted = Cut(axis, cut.kept) if meets else None
                found = self.cuts.get(name)
                same = found is None if wanted is None else wanted.same(found)
                require(same, f"{name!r} is cut otherwise than {node.output[0]!r}")

    def by_channel(self, node: NodeProto, made: NodeProto) -> None:
        """Each channel of the output is made of the same one of the input."""
        cut, options = self.passed_on(node), attributes(node)
        plain = not options.get("training_mode", 0) and options.get("spatial", 1)
        plain &= cut.axis == 1
        require_known(plain and sum(map(bool, node.output)) == 1, f"this {node.op_type}")
        self.put_channels(node, made, cut, range(1, len(node.input)))

    def averaged(self, node: NodeProto, made: NodeProto) -> None:
        """A mean, or the like, along axes that are not cut."""
        source, cut = self.cuts.get(node.input[0]), self.cuts.get(node.output[0])
        if source is None:
            raise NotVerifiedError(f"{node.output[0]!r} is cut, and made of what is whole")
        options, rank = attributes(node), len(self.shape(node.input[0]))
        axes = list(options.get("axes", ()))
        if not axes and len(node.input) > 1 and node.input[1]:
            axes = self.constant(node, 1).reshape(-1).tolist()
        require_known(axes, f"the axes of {node.op_type}")
        along = {axis % rank for axis in axes}
        lower = 0 if options.get("keepdims", 1) else sum(axis < source.axis for axis in along)
        same = source.axis not in along and Cut(source.axis - lower, source.kept).same(cut)
        require(same, f"{node.output[0]!r} is cut otherwise than what it is made of")

    def padded(self, node: NodeProto, made: NodeProto) -> None:
        """Nothing is added along the axis that is cut."""
        cut = self.passed_on(node)
        pads = attributes(node).get("pads")
        pads = self.constant(node, 1).reshape(-1).tolist() if pads is None else pads
        rank = len(self.shape(node.input[0]))
        plain = len(pads) == 2 * rank and not any(node.input[3:])
        plain &= not any(name in self.cuts for name in node.input[1:])
        require_known(plain and pads[cut.axis] == pads[rank + cut.axis] == 0, "where it pads")

    def resized(self, node: NodeProto, made: NodeProto) -> None:
        """Each channel by itself, where the axis that is cut is not scaled."""
        cut, options = self.passed_on(node), attributes(node)
        plain = options.keys() <= {"mode", "coordinate_transformation_mode", "nearest_mode"}
        plain &= options.get("coordinate_transformation_mode") != b"tf_crop_and_resize"
        plain &= not any(node.input[3:]) and not self.cuts.keys() & {*node.input[1:]}
        scales = self.constant(node, len(node.input) - 1)
        require_known(plain and scales[cut.axis] == 1.0, f"this {node.op_type}")

    def weighted(self, node: NodeProto, made: NodeProto) -> None:
        """(V x)[O] = V[O, K] x[K], where what is not read is 0 or has weights of 0."""
        options, convolves = attributes(node), node.op_type.startswith("Conv")
        source, out = (self.cuts.get(t) for t in (node.input[0], node.output[0]))
        numbers = self.old.numbers(node.input[1])
        numbers = dequantized(self.old, node.input[1]) if numbers is None else numbers
        rank = len(self.shape(node.input[0]))
        plain = numbers is not None and numbers.ndim == (rank if convolves else 2)
        plain &= not options.get("transA", 0) and not self.cuts.keys() & {*node.input[1:]}
        require_known(plain, f"the weights of {node.op_type}")
        assert numbers is not None
        if options.get("group", 1) > 1:
            self._grouped(node, made, numbers.shape)
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
        cuts: dict[int, Flags] = {}
        if out is not None:
            through, cuts[to] = through[out.kept], out.kept
            bias = self.shape(node.input[2]) if any(node.input[2:]) else ()
            if bias and bias[-1] != 1:
                require(bias[-1] == out.kept.size, "a bias of other channels")
                self.cut(node, made, 2, {len(bias) - 1: out.kept})
        if source is not None:
            read = through.any(axis=0) & ~source.kept
            low, high = self.front.along(node.input[0], source.axis)
            # What is not a number is none times 0 either.
            known = (np.isfinite(low) & np.isfinite(high)) | source.kept
            require_known(known.all(), f"nothing bounds {node.input[0]!r}, which lost channels")
            lost = read & ~((low == 0.0) & (high == 0.0))
            require_known(
                not lost.any(),
                f"channel {int(lost.argmax())} of {node.input[0]!r} is read, and may not be 0",
            )
            cuts[of] = source.kept
        self.cut(node, made, 1, cuts)

    def _grouped(self, node: NodeProto, made: NodeProto, shape: Shape) -> None:
        """A kernel of its own for each group of channels, of which each goes as a whole."""
        group = next(a for a in made.attribute if a.name == "group")
        source, cut = (self.cuts.get(t) for t in (node.input[0], node.output[0]))
        if node.op_type != "Conv" or source is None or cut is None:
            raise UncheckedError("cannot check: channels in groups")
        require_known(source.axis == cut.axis == 1, "channels in groups")
        sizes = (shape[1] * group.i, shape[0])
        require((source.kept.size, cut.kept.size) == sizes, "other channels than the groups have")
        read, given = (c.kept.reshape(group.i, -1) for c in (source, cut))
        stay = read[:, :1]
        require((read == stay).all() and (given == stay).all(), "a part of a group is cut")
        group.i = int(stay.sum())
        self.put_channels(node, made, cut, range(1, sum(map(bool, node.input))))


Rule = Callable[[_Without, NodeProto, NodeProto], None]
RULES: dict[str, Rule] = {
    **dict.fromkeys(ENTRYWISE, _Without.entrywise),
    **dict.fromkeys(BY_CHANNEL, _Without.by_channel),
    **dict.fromkeys(MEANS, _Without.averaged),
    **dict.fromkeys(MOVES, moved),
    "Shape": sized,
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), _Without.weighted),
    "Pad": _Without.padded,
    "Resize": _Without.resized,
    "Upsample": _Without.resized,
}
