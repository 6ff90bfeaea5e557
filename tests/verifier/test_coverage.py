"""Nothing that a model computes is left out: it is compared, or the output of a checked chain."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_exact.cli import main
from onnx_exact.errors import NotVerifiedError, UncheckedError
from onnx_exact.verified import Verification, verify
from tests.verifier.build import Written, tiny, write

FLOAT = TensorProto.FLOAT
BOX = {"x": {"lower": 0.0, "upper": 1.0}}
Values = Sequence[tuple[str, Sequence[Any]]]


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def built(
    nodes: Sequence[NodeProto],
    tensors: Mapping[str, Any],
    inputs: Values = (("x", ["N", 2]),),
    outputs: Values = (("y", ["N", 1]),),
    **options: Any,
) -> ModelProto:
    sides = [[helper.make_tensor_value_info(n, FLOAT, s) for n, s in v] for v in (inputs, outputs)]
    stored = [numpy_helper.from_array(np.asarray(v), k) for k, v in tensors.items()]
    graph = helper.make_graph(nodes, "g", *sides, stored)
    opsets = [helper.make_opsetid("", 17), *options.pop("opsets", [])]
    return helper.make_model(graph, **{"opset_imports": opsets, "ir_version": 8, **options})


def f32(values: Any) -> Any:
    return np.asarray(values, np.float32)


# relu(x - y - 3) is 0 over [0, 1]^2, so that y is the bias alone.
DEAD = [node("Gemm", "x W b", "g"), node("Relu", "g", "r"), node("Gemm", "r V c", "y")]
WEIGHTS = {"W": f32([[1], [-1]]), "b": f32([-3]), "V": f32([[1]]), "c": f32([0.25])}
CONSTANT = [node("Gemm", "x Z z", "y")]
ZERO = {"Z": f32([[0], [0]]), "z": f32([0.25])}
HEAD = {
    "input": "x",
    "output": "y",
    "widths": [1, 1],
    "relu": [True, False],
    "result_widths": [1],
    "result_relu": [False],
    "sources": [1],
    "trees": [],
}
ARRAYS = {
    "c0_l0_status": np.array([1], np.int8),
    "c0_l0_proof": np.array([1], np.int8),
    "c0_m0_unit": np.array([0], np.int32),
}


def certified(
    folder: Path,
    old: ModelProto,
    new: ModelProto,
    domain: Mapping[str, Any] = BOX,
    **head: Any,
) -> Written:
    return write(folder, old, new, HEAD | head, ARRAYS, domain)


def check(written: Written) -> Verification:
    return verify(written.old, written.new, written.certificate)


def test_the_dead_unit_may_go(tmp_path: Path) -> None:
    assert check(certified(tmp_path, built(DEAD, WEIGHTS), built(CONSTANT, ZERO))).verified


def two_chains(constant: float, scale: float) -> ModelProto:
    """From h = constant x to y, and from x itself: to z."""
    nodes = [
        node("Mul", "x k", "h"),
        node("Gemm", "h A", "g1"),
        node("Relu", "g1", "r1"),
        node("Gemm", "r1 V", "y"),
        node("Gemm", "h B", "g2"),
        node("Relu", "g2", "r2"),
        node("Gemm", "r2 U", "z"),
    ]
    rng = np.random.default_rng(0)
    shapes = {"A": (2, 3), "V": (3, 1), "B": (2, 3), "U": (3, 1)}
    tensors = {name: f32(rng.normal(size=shape)) for name, shape in shapes.items()}
    tensors["A"] = tensors["A"] / np.float32(scale)
    outputs = [("y", ["N", 1]), ("z", ["N", 1])]
    return built(nodes, tensors | {"k": f32([constant] * 2)}, outputs=outputs)


def all_live(widths: Sequence[int], chains: int) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for c in range(chains):
        arrays |= {f"c{c}_l0_{what}": np.zeros(widths[0], np.int8) for what in ("status", "proof")}
        arrays |= {
            f"c{c}_m{k}_unit": np.arange(width, dtype=np.int32) for k, width in enumerate(widths)
        }
    return arrays


@pytest.mark.parametrize(("first", "why"), [("x", "'h' is read outside"), ("h", "")])
def test_no_chain_starts_inside_of_another(first: str, why: str, tmp_path: Path) -> None:
    """With the second chain from h, and the first through it, h may be 64 times as large."""
    factor = 64.0 if why else 1.0
    old, new = two_chains(1.0, 1.0), two_chains(factor, factor)
    same = {"widths": [3, 1], "relu": [True, False]}
    same |= {f"result_{key}": value for key, value in same.items()} | {"sources": [0, 1]}
    heads = [{**HEAD, **same, "input": i, "output": o} for i, o in ((first, "y"), ("h", "z"))]
    written = write(tmp_path, old, new, {}, all_live([3, 1], 2), BOX).changed({"chains": heads})
    if why:
        with pytest.raises(NotVerifiedError, match=why):
            check(written)
    else:
        assert check(written).verified


def test_every_output_of_a_node_in_a_chain_is_inside(tmp_path: Path) -> None:
    """The mask of a Dropout has one entry fewer in the new model."""
    nodes = [
        *DEAD[:2],
        node("Dropout", "r", "e mask"),
        node("Gemm", "e V c", "y"),
        node("Cast", "mask", "m", to=FLOAT),
        node("ReduceSum", "m", "z", keepdims=0),
    ]
    wide = {"W": f32([[1, 1], [-1, 1]]), "b": f32([-3, 0.5]), "V": f32([[1], [2]]), "c": f32([0])}
    thin = {"W": f32([[1], [1]]), "b": f32([0.5]), "V": f32([[2]]), "c": f32([0])}
    outputs = [("y", ["N", 1]), ("z", [])]
    old, new = (built(nodes, tensors, outputs=outputs) for tensors in (wide, thin))
    head = {"widths": [2, 1], "result_widths": [1, 1], "result_relu": [True, False]}
    arrays = {
        "c0_l0_status": np.array([1, 0], np.int8),
        "c0_l0_proof": np.array([1, 0], np.int8),
        "c0_m0_unit": np.array([-1, 0], np.int32),
        "c0_m1_unit": np.array([0], np.int32),
    }
    written = write(tmp_path, old, new, {**HEAD, **head, "sources": [0, 1]}, arrays, BOX)
    with pytest.raises(NotVerifiedError, match="'mask' is read outside of its chain"):
        check(written)


@pytest.mark.parametrize(("version", "constant"), [(3, True), (8, False)])
def test_what_a_user_may_feed_is_no_constant(version: int, constant: bool, tmp_path: Path) -> None:
    """From IR version 4 on initializers that are inputs too have a default, no value."""
    shapes = {name: list(value.shape) for name, value in (WEIGHTS | ZERO).items()}
    old, new = (
        built(
            nodes,
            tensors,
            [("x", ["N", 2]), *((name, shapes[name]) for name in tensors)],
            ir_version=version,
            opset_imports=[helper.make_opsetid("", 8)],
        )
        for nodes, tensors in ((DEAD, WEIGHTS), (CONSTANT, ZERO))
    )
    written = certified(tmp_path, old, new)
    if constant:
        assert check(written).verified
        return
    with pytest.raises(NotVerifiedError, match="inputs differ"):
        check(written)
    both = [("x", ["N", 2]), *shapes.items()]
    old, new = (
        built(nodes, WEIGHTS | ZERO, both, ir_version=version) for nodes in (DEAD, CONSTANT)
    )
    with pytest.raises(UncheckedError, match="operator Gemm"):
        check(certified(tmp_path, old, new))


FOREIGN = [helper.make_opsetid("my", 1)]


def function(domain: str, name: str) -> onnx.FunctionProto:
    """Four times what it reads."""
    body = [node("Add", "a a", "s"), node("Add", "s s", "o")]
    return helper.make_function(domain, name, ["a"], ["o"], body, [helper.make_opsetid("", 17)])


@pytest.mark.parametrize("domain", ["", "my"])
def test_only_operators_of_the_standard_mean_what_it_says(domain: str, tmp_path: Path) -> None:
    """A node called Identity of another domain, which is four times its input."""
    options: dict[str, Any] = {"opsets": FOREIGN, "functions": [function("my", "Identity")]}
    new = [node("Identity", "k", "y", domain=domain)]
    inputs, outputs = [("x", [1, 2])], [("y", [1, 1])]
    models = (
        built(nodes, tensors, inputs, outputs, **options)
        for nodes, tensors in ((DEAD, WEIGHTS), (new, {"k": f32([[0.25]])}))
    )
    written = certified(tmp_path, *models)
    if domain:
        with pytest.raises(UncheckedError, match="operator Identity"):
            check(written)
    else:
        assert check(written).verified


def test_a_function_that_shadows_an_operator_takes_its_meaning_away(tmp_path: Path) -> None:
    for name, refused in (("Gemm", True), ("Other", False)):
        functions = [function("", name)]
        models = (
            built(nodes, tensors, functions=functions)
            for nodes, tensors in ((DEAD, WEIGHTS), (CONSTANT, ZERO))
        )
        written = certified(tmp_path, *models)
        if refused:
            with pytest.raises(UncheckedError, match="operator Gemm"):
                check(written)
        else:
            assert check(written).verified


def test_where_shapes_do_not_follow_nothing_is_checked(tmp_path: Path) -> None:
    """q + k fits for one size of q alone, at which samples and features change places."""
    inputs, outputs = [("x", ["N", 2]), ("q", ["K"])], [("y", ["N", 1]), ("o", [3])]
    tail = [node("Add", "q k", "o")]
    models = (
        built([*nodes, *tail], {**tensors, "k": f32([1, 2, 3])}, inputs, outputs)
        for nodes, tensors in ((DEAD, WEIGHTS), (CONSTANT, ZERO))
    )
    domain = BOX | {"q": {"lower": 0.0, "upper": 1.0}}
    with pytest.raises(UncheckedError, match="do not follow from its inputs"):
        check(certified(tmp_path, *models, domain))


def test_features_have_to_lie_where_they_lay(tmp_path: Path) -> None:
    """The new model adds up samples where the old one adds up features: the same at one size."""
    inputs, outputs = [("x", [2, 2])], [("y", [2, 1])]
    old = built(DEAD, WEIGHTS, inputs, outputs)
    turned = [node("Gemm", "x Z z", "y", transA=1)]
    with pytest.raises(NotVerifiedError, match="lays out other entries"):
        check(certified(tmp_path, old, built(turned, ZERO, inputs, outputs)))
    same = built(CONSTANT, ZERO, inputs, outputs)
    assert check(certified(tmp_path, old, same)).verified


def test_a_subgraph_reads_too(tmp_path: Path) -> None:
    """The branches of an If give out what is inside of the chain."""
    value = helper.make_tensor_value_info("i", FLOAT, None)
    branches = [
        helper.make_graph([node("Identity", "r", "i")], name, [], [value]) for name in ("a", "b")
    ]
    condition = [node("If", "t", "z", then_branch=branches[0], else_branch=branches[1])]
    outputs = [("y", ["N", 1]), ("z", None)]
    models = (
        built([*DEAD, *condition], {**WEIGHTS, "t": np.array(True)}, outputs=outputs)
        for _ in range(2)
    )
    head = {"result_widths": [1, 1], "result_relu": [True, False], "sources": [0, 1]}
    with pytest.raises(NotVerifiedError, match="'r' is read outside of its chain"):
        check(certified(tmp_path, *models, **head))


Change = Callable[[ModelProto], Any]
DIFFERENT: dict[str, tuple[Change, str]] = {
    "IR version": (lambda m: setattr(m, "ir_version", 9), "IR versions differ"),
    "opset": (lambda m: setattr(m.opset_import[0], "version", 18), "operator sets differ"),
    "functions": (
        lambda m: (m.functions.append(function("my", "f")), m.opset_import.extend(FOREIGN)),
        "operator sets differ",
    ),
    "an input more": (
        lambda m: m.graph.input.append(helper.make_tensor_value_info("n", FLOAT, [1])),
        "inputs differ",
    ),
    "a weight that is nan": (
        lambda m: m.graph.initializer[0].CopyFrom(
            numpy_helper.from_array(f32([[np.nan], [0]]), "Z")
        ),
        "not finite",
    ),
    "a weight that is infinite": (
        lambda m: m.graph.initializer[1].CopyFrom(numpy_helper.from_array(f32([np.inf]), "z")),
        "not finite",
    ),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_else_a_model_says_has_to_be_the_same(what: str, tmp_path: Path) -> None:
    change, why = DIFFERENT[what]
    new = built(CONSTANT, ZERO)
    change(new)
    with pytest.raises(NotVerifiedError, match=why):
        check(certified(tmp_path, built(DEAD, WEIGHTS), new))


@pytest.mark.parametrize(("second", "verified"), [(2.0, True), (3.0, False)])
def test_the_default_of_an_optional_input_is_compared(
    second: float, verified: bool, tmp_path: Path
) -> None:
    inputs = [("x", ["N", 2]), ("p", [1])]
    models = (
        built(nodes, {**tensors, "p": f32([p])}, inputs)
        for nodes, tensors, p in ((DEAD, WEIGHTS, 2.0), (CONSTANT, ZERO, second))
    )
    written = certified(tmp_path, *models)
    if verified:
        assert check(written).verified
    else:
        with pytest.raises(NotVerifiedError, match="constant 'p' differs"):
            check(written)


def test_models_need_not_be_files(tmp_path: Path) -> None:
    written = tiny(tmp_path)
    models = [onnx.load(path) for path in (written.old, written.new)]
    marks = {
        key: {"sha256": sha256(model), "bytes": 0}
        for key, model in zip(("original", "result"), models, strict=True)
    }
    changed = written.changed(marks)
    assert verify(models[0], models[1], changed.certificate).verified
    with pytest.raises(NotVerifiedError, match="another result than the result"):
        verify(models[0], models[0], changed.certificate)


def sha256(model: ModelProto) -> str:
    import hashlib

    return hashlib.sha256(model.SerializeToString()).hexdigest()


def test_exit_codes_tell_who_is_to_blame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tiny(tmp_path)
    files = [str(written.old), str(written.new)]
    missing = str(tmp_path / "missing.onnx")
    garbage = tmp_path / "garbage.npz"
    garbage.write_bytes(b"garbage")
    lie = written.changed(c0_l0_status=np.array([3, 2, 2], np.int8)).certificate.read_bytes()
    (tmp_path / "lie.npz").write_bytes(lie)
    newer = written.changed({"version": 3}).certificate.read_bytes()
    (tmp_path / "newer.npz").write_bytes(newer)
    written.save()
    for arguments, code, culprit in (
        ([*files, "--certificate", str(written.certificate)], 0, ""),
        ([files[0], files[0]], 0, ""),
        ([*files, "--certificate", str(tmp_path / "lie.npz")], 1, "unit 1 of layer 1"),
        ([files[1], files[0], "--certificate", str(written.certificate)], 1, files[1]),
        ([files[0], missing], 2, missing),
        ([missing, files[1]], 2, missing),
        ([*files, "--certificate", str(garbage)], 2, str(garbage)),
        ([*files, "--certificate", missing], 2, missing),
        ([*files, "--domain", "1:0"], 2, "--domain 1:0"),
        ([*files, "--rtol", "-1"], 2, "--rtol"),
        ([*files, "--certificate", str(written.certificate), "--atol", "1"], 2, "without toler"),
        (files, 3, ""),
        ([*files, "--certificate", str(tmp_path / "newer.npz")], 3, "newer.npz"),
        ([*files, "--certificate", str(written.certificate), "--domain", "0:2"], 3, "smaller"),
        ([*files, "--certificate", str(written.certificate), "--time-limit", "1e-9"], 3, "limit"),
    ):
        try:
            found = main(["verify", *arguments])
        except SystemExit as error:
            found = error.code
        captured = capsys.readouterr()
        assert found == code, (arguments, captured.err)
        assert culprit in captured.err
        assert captured.err.count("\n") == bool(culprit)
        assert json.dumps(captured.err).count("Traceback") == 0
