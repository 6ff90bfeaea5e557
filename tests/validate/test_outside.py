"""Whatever changes outside of the chains is refused, whether a point shows it or not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, helper

from onnx_exact import optimize
from onnx_exact.errors import ValidationError
from onnx_exact.validate.outside import check_outside
from tests.validate.networks import amplifying, both, branching, constant, replaced, with_tail

CHAIN = [("x", "f")]


def copy(made: ModelProto) -> ModelProto:
    other = ModelProto()
    other.CopyFrom(made)
    return other


def attribute(made: ModelProto) -> ModelProto:
    made.graph.node[-1].attribute[0].i = 0
    return made


def wiring(made: ModelProto) -> ModelProto:
    made.graph.node[-1].input[0] = "h1"
    return made


def operator(made: ModelProto) -> ModelProto:
    made.graph.node[-1].op_type = "LogSoftmax"
    return made


def output(made: ModelProto) -> ModelProto:
    made.graph.output[0].name = "z"
    return made


def another_node(made: ModelProto) -> ModelProto:
    made.graph.node[-1].input[0] = "g"
    made.graph.node.append(helper.make_node("Identity", ["f"], ["g"]))
    return made


def opset(made: ModelProto) -> ModelProto:
    made.opset_import[0].version = 18
    return made


@pytest.mark.parametrize("change", [attribute, wiring, operator, output, another_node, opset])
def test_change_of_the_graph_is_refused(change: Callable[[ModelProto], ModelProto]) -> None:
    old = with_tail(both())
    check_outside(old, copy(old), CHAIN)
    with pytest.raises(ValidationError, match="outside of its chains"):
        check_outside(old, change(copy(old)), CHAIN)


def test_change_of_a_constant_is_refused_by_one_bit() -> None:
    old = with_tail(amplifying())
    wrong = np.nextafter(constant(old, "k"), np.float32(0), dtype=np.float32)
    with pytest.raises(ValidationError, match="the constant 'k' changed"):
        check_outside(old, replaced(old, "k", wrong), CHAIN)


def test_change_of_a_branch_that_no_point_takes_is_refused() -> None:
    old = with_tail(branching())
    new, _ = optimize(old, domain="0:1")
    check_outside(old, new, CHAIN)
    branch = new.graph.node[-1].attribute[0].g
    assert branch.name in {"t", "e"}
    for a in new.graph.node[-1].attribute:
        if a.name == "else_branch":
            a.g.node[0].op_type = "Abs"
    with pytest.raises(ValidationError, match="the node 'y' changed"):
        check_outside(old, new, CHAIN)


def test_what_is_inside_of_a_chain_may_change() -> None:
    old = with_tail(both())
    check_outside(old, replaced(old, "W0", constant(old, "W0") * 2), CHAIN)
    with pytest.raises(ValidationError, match="the constant 'W0' changed"):
        check_outside(old, replaced(old, "W0", constant(old, "W0") * 2), [])


def test_sizes_and_types_that_are_declared_for_tensors_do_not_count() -> None:
    old = with_tail(both())
    new = copy(old)
    del new.graph.value_info[:]
    check_outside(old, new, CHAIN)
