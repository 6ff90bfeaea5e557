"""Lies about graphs: around one honest chain the two models are not the same, each in its own way.

Every lie stands beside its sibling, where the same thing is in both models, or says nothing.
onnxruntime is the judge: it shows other outputs, other inputs, or none at all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.verifier.build import Written
from tests.verifier.lies import SIDES, beside, marked, network_inputs

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Base:
    """Two models of an honest chain from "x" to "y", to be changed in place."""

    old: ModelProto
    new: ModelProto

    @property
    def both(self) -> tuple[ModelProto, ModelProto]:
        """Old and new."""
        return self.old, self.new


@dataclass(frozen=True)
class Form:
    """A lie and its sibling.

    Attributes:
        lie, sibling: change both models; the chain then lies between `source` and `output`.
        source, output: of the chain.
        feeds: what else to feed than x, to show the lie.
        boxed: whether the certificate says that the domain's own box holds the chain's input.
    """

    lie: Callable[[Base], None]
    sibling: Callable[[Base], None]
    source: str = "x"
    output: str = "y"
    feeds: Callable[[Base], dict[str, Array]] = lambda base: {}
    boxed: bool = False


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """A node with names apart by blanks."""
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def renamed(model: ModelProto, old: str, new: str) -> None:
    """Gives a tensor another name wherever nodes name it."""
    for n in model.graph.node:
        for names in (n.input, n.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new


def stored(model: ModelProto, name: str, values: Any, dtype: Any = np.float32) -> None:
    """Adds an initializer."""
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, dtype), name))


def behind(model: ModelProto, nodes: Sequence[NodeProto]) -> None:
    """Puts nodes from "v" to "y" behind the chain."""
    renamed(model, "y", "v")
    model.graph.node.extend(nodes)


def before(model: ModelProto, nodes: Sequence[NodeProto]) -> None:
    """Puts nodes from "x" to "u" before the chain."""
    renamed(model, "x", "u")
    rest = [NodeProto.FromString(n.SerializeToString()) for n in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])


def _scaled(first: float, second: float) -> Callable[[Base], None]:
    def change(base: Base) -> None:
        for model, value in zip(base.both, (first, second), strict=True):
            stored(model, "lie_c", value)
            behind(model, [node("Mul", "v lie_c", "y")])

    return change


def _operators(first: str, second: str) -> Callable[[Base], None]:
    def change(base: Base) -> None:
        for model, op in zip(base.both, (first, second), strict=True):
            stored(model, "lie_c", 0.5)
            behind(model, [node(op, "v lie_c", "y")])

    return change


def _attributes(first: float, second: float) -> Callable[[Base], None]:
    def change(base: Base) -> None:
        for model, alpha in zip(base.both, (first, second), strict=True):
            behind(model, [node("Elu", "v", "w"), node("LeakyRelu", "w", "y", alpha=alpha)])

    return change


def _additional(first: int, second: int) -> Callable[[Base], None]:
    def change(base: Base) -> None:
        for model, count in zip(base.both, (first, second), strict=True):
            names = ["v", *(f"lie_{i}" for i in range(count)), "y"]
            nodes = [node("Cos", a, b) for a, b in pairwise(names)]
            behind(model, nodes)

    return change


def _foreign(first: str, second: str) -> Callable[[Base], None]:
    """A node called Identity that doubles what it reads, at the end of the chain."""

    def change(base: Base) -> None:
        body = [node("Add", "a a", "b")]
        function = helper.make_function(
            "my", "Identity", ["a"], ["b"], body, [helper.make_opsetid("", 17)]
        )
        for model, where in zip(base.both, (first, second), strict=True):
            model.functions.append(function)
            model.opset_import.append(helper.make_opsetid("my", 1))
            behind(model, [node("Identity", "v", "y", domain=where)])

    return change


def _function(first: str, second: str) -> Callable[[Base], None]:
    """A function of the model's own behind the chain, with other bodies."""

    def change(base: Base) -> None:
        for model, op in zip(base.both, (first, second), strict=True):
            body = [node(op, "a a", "b")]
            opset = [helper.make_opsetid("", 17)]
            model.functions.append(helper.make_function("my", "Own", ["a"], ["b"], body, opset))
            model.opset_import.append(helper.make_opsetid("my", 1))
            behind(model, [node("Own", "v", "y", domain="my")])

    return change


def _output_names(first: str, second: str) -> Callable[[Base], None]:
    def change(base: Base) -> None:
        for model, name in zip(base.both, (first, second), strict=True):
            behind(model, [node("Abs", "v", name)])
            model.graph.output[0].name = name

    return change


def _more_inputs(first: bool, second: bool) -> Callable[[Base], None]:
    def change(base: Base) -> None:
        for model, has in zip(base.both, (first, second), strict=True):
            if has:
                value = helper.make_tensor_value_info("lie_z", TensorProto.INT64, [1])
                model.graph.input.append(value)

    return change


def _optional(first: float, second: float) -> Callable[[Base], None]:
    """An input that may be fed, with a value of its own otherwise."""

    def change(base: Base) -> None:
        for model, value in zip(base.both, (first, second), strict=True):
            stored(model, "lie_d", [value])
            shape = helper.make_tensor_value_info("lie_d", TensorProto.FLOAT, [1])
            model.graph.input.append(shape)
            behind(model, [node("Mul", "v lie_d", "y")])

    return change


def _overridable(inside: bool) -> Callable[[Base], None]:
    """A weight that may be fed, inside of the chain or behind it."""

    def change(base: Base) -> None:
        for model in base.both:
            width = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
            stored(model, "lie_w", np.eye(width))
            shape = helper.make_tensor_value_info("lie_w", TensorProto.FLOAT, [width, width])
            model.graph.input.append(shape)
        if inside:
            behind(base.old, [node("MatMul", "v lie_w", "y")])
            behind(base.new, [node("Identity", "v", "y")])
        else:
            for model in base.both:
                behind(model, [node("MatMul", "v lie_w", "y")])

    return change


def _doubled_weight(base: Base) -> dict[str, Array]:
    width = base.old.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    return {"lie_w": 2 * np.eye(width, dtype=np.float32)}


def _shapes(mixed: bool) -> Callable[[Base], None]:
    """Samples and features of the new model regrouped on the way."""

    def change(base: Base) -> None:
        for model, mixes in zip(base.both, (False, mixed), strict=True):
            width = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
            stored(model, "lie_s", [width, -1] if mixes else [-1, width], np.int64)
            stored(model, "lie_t", [-1, width], np.int64)
            nodes = [node("Reshape", "v lie_s", "w")]
            nodes += [node("Transpose", "w", "t")] if mixes else [node("Identity", "w", "t")]
            behind(model, [*nodes, node("Reshape", "t lie_t", "y")])

    return change


def _sizes(first: int, second: int) -> Callable[[Base], None]:
    """How many samples the model takes."""

    def change(base: Base) -> None:
        for model, size in zip(base.both, (first, second), strict=True):
            for value in (model.graph.input[0], model.graph.output[0]):
                dim = value.type.tensor_type.shape.dim[0]
                dim.Clear()
                dim.dim_value = size

    return change


def _front(first: float, second: float) -> Callable[[Base], None]:
    """What the chain reads is another tensor in the two models."""

    def change(base: Base) -> None:
        for model, value in zip(base.both, (first, second), strict=True):
            stored(model, "lie_c", value)
            before(model, [node("Mul", "x lie_c", "u")])

    return change


def _inner(given: bool) -> Callable[[Base], None]:
    """A tensor inside of the chain is given out: a copy of the first pre-activations."""

    def change(base: Base) -> None:
        for model in base.both:
            tensor = model.graph.node[0].output[0]
            if given:
                model.graph.node.append(node("Identity", tensor, "lie_o"))
                value = helper.make_tensor_value_info("lie_o", TensorProto.FLOAT, [None, None])
                model.graph.output.append(value)

    return change


FORMS: dict[str, Form] = {
    "a constant behind": Form(_scaled(1.0, 1.5), _scaled(1.5, 1.5), output="v"),
    "an operator behind": Form(_operators("Mul", "Add"), _operators("Add", "Add"), output="v"),
    "an attribute behind": Form(_attributes(0.1, 0.9), _attributes(0.9, 0.9), output="v"),
    "an additional node": Form(_additional(0, 1), _additional(1, 1), output="v"),
    "an operator of another domain": Form(_foreign("", "my"), _foreign("my", "my"), output="v"),
    "the same inside of the chain": Form(_foreign("", "my"), _foreign("", "")),
    "the body of a function": Form(_function("Add", "Mul"), _function("Mul", "Mul"), output="v"),
    "the name of an output": Form(_output_names("y", "z"), _output_names("z", "z"), output="v"),
    "an input more": Form(_more_inputs(False, True), _more_inputs(True, True)),
    "the default of an input": Form(_optional(1.0, 2.0), _optional(2.0, 2.0), output="v"),
    "samples and features mixed": Form(_shapes(True), _shapes(False)),
    "the number of samples": Form(_sizes(2, 3), _sizes(3, 3)),
    "a constant in front": Form(_front(1.0, 0.5), _front(1.0, 1.0), source="u"),
    "a box that does not hold its input": Form(
        _front(4.0, 4.0), _front(1.0, 1.0), source="u", boxed=True
    ),
    "a tensor inside given out": Form(_inner(True), _inner(False)),
    "a weight that may be fed": Form(
        _overridable(True), _overridable(False), output="v", feeds=_doubled_weight
    ),
}


def formed(written: Written, form: Form, lies: bool) -> Written:
    """A certificate of changed models: the lie, or its sibling."""
    import onnx

    base = Base(onnx.load(written.old), onnx.load(written.new))
    (form.lie if lies else form.sibling)(base)
    chain = {"input": form.source, "output": form.output}
    made = beside(written, "graph").chain(**chain)
    if form.boxed:
        made = made.changed(c0_box=domain_box(written))
    return marked(made, base.old, base.new)


def domain_box(written: Written) -> Array:
    """Lower and upper sides of the domain, (2, inputs)."""
    sides = written.header["domain"]["x"]
    inputs = network_inputs(written)
    return np.stack([np.broadcast_to(np.asarray(sides[side]), (1, inputs))[0] for side in SIDES])


def is_false(written: Written, form: Form, points: Array) -> bool:
    """Whether onnxruntime tells the two models apart at some points."""
    import onnx

    base = Base(onnx.load(written.old), onnx.load(written.new))
    feeds = form.feeds(base)
    if signature(base.old) != signature(base.new):
        return True
    outputs = []
    for model in base.both:
        found = []
        for count in (1, 3):
            rows = np.resize(points, (count, points.shape[1])).astype(np.float32)
            found += run(model, {"x": rows} | copy.deepcopy(feeds))
        outputs.append(found)
    return any(
        a.shape != b.shape or not np.allclose(a, b, rtol=1e-3, atol=1e-3)
        for a, b in zip(*outputs, strict=True)
    )


def signature(model: ModelProto) -> list[tuple[str, str]]:
    """Names and types of inputs and outputs."""
    values = (*model.graph.input, *model.graph.output)
    return [(v.name, str(v.type)) for v in values]


def run(model: ModelProto, feed: dict[str, Array]) -> list[Array]:
    """Outputs in onnxruntime."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    known = {value.name for value in session.get_inputs()}
    known |= {value.name for value in session.get_overridable_initializers()}
    found: list[Array] = session.run(None, {k: v for k, v in feed.items() if k in known})
    return found
