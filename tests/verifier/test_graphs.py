"""Graphs of several forms, through `optimize` and `verify`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnx_exact.errors import NotVerifiedError
from onnx_exact.pipeline import optimize_file
from onnx_exact.verified import Verification, verify
from onnx_exact.verifier.chain import read_chain
from onnx_exact.verifier.model import Model
from tests.oracle.networks import random_case
from tests.verifier.build import Written, gemm_model, model_of, read, tiny

WIDTH = 12


def node(op: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


@functools.cache
def weights(seed: int) -> tuple[TensorProto, ...]:
    """Two layers of which many units are stable over [0, 1]^6, and what stands around them."""
    rng = np.random.default_rng(seed)
    arrays = {
        "w": rng.normal(size=(6, WIDTH)),
        "b": rng.choice([-6.0, 0.1, 6.0], size=WIDTH),
        "u": rng.normal(size=(WIDTH, 5)) * (rng.random((WIDTH, 5)) < 0.5),
        "d": rng.choice([-20.0, 0.5, 20.0], size=5),
        "v": rng.normal(size=(5, 2)),
        "mean": rng.normal(size=6) / 8,
        "spread": rng.uniform(0.5, 2, size=6),
        "gain": rng.uniform(0.5, 2, size=WIDTH),
        "zero": np.zeros(WIDTH),
        "one": np.ones(WIDTH),
        "other": rng.normal(size=2),
    }
    tensors = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in arrays.items()]
    return (*tensors, numpy_helper.from_array(np.array([-1, 6]), "shape"))


PLAIN = [
    node("Gemm", "x w b", "g"),
    node("Relu", "g", "h"),
    node("Gemm", "h u d", "p"),
    node("Relu", "p", "q"),
    node("Gemm", "q v", "y"),
]
SPLIT = [
    node("Sub", "x mean", "m"),
    node("Div", "m spread", "n"),
    node("Reshape", "n shape", "r"),
    node("MatMul", "r w", "k"),
    node("Add", "k b", "g"),
    node("Relu", "g", "h"),
    node("MatMul", "h u", "l"),
    node("Add", "d l", "p"),
    node("Relu", "p", "q"),
    node("MatMul", "q v", "y"),
]
NORMALIZED = [
    node("Gemm", "x w b", "g"),
    node("BatchNormalization", "g gain zero zero one", "n"),
    node("Relu", "n", "h"),
    node("Dropout", "h", "i"),
    node("Gemm", "i u d", "p"),
    *PLAIN[3:],
]
BEHIND = [
    *PLAIN[:4],
    node("Gemm", "q v", "e"),
    node("Identity", "other", "o"),
    node("Mul", "e o", "f"),
    node("Sigmoid", "f", "y"),
]
GRAPHS: dict[str, tuple[Sequence[NodeProto], bool]] = {
    "plain": (PLAIN, True),
    "normalised input, MatMul and Add": (SPLIT, True),
    "batch normalisation": (NORMALIZED, True),
    "more behind the chain": (BEHIND, False),
}


def optimized(nodes: Sequence[NodeProto], seed: int, folder: Path) -> Written:
    read_names = {name for n in nodes for name in n.input}
    tensors = [t for t in weights(seed) if t.name in read_names]
    paths = folder / "old.onnx", folder / "new.onnx", folder / "certificate.npz"
    onnx.save(model_of(nodes, tensors, ["N", 6], ["N", 2]), paths[0])
    optimize_file(paths[0], paths[1], domain="0:1", certificate=paths[2])
    return read(*paths)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("what", GRAPHS)
def test_results_are_accepted_and_changed_weights_refused(
    what: str, seed: int, tmp_path: Path
) -> None:
    nodes, at_the_end = GRAPHS[what]
    written = optimized(nodes, seed, tmp_path)
    found = verify(written.old, written.new, written.certificate)
    assert written.header["chains"][0]["result_widths"] != written.header["chains"][0]["widths"]
    assert found.output_deviation == at_the_end
    assert found.deviation < 1e-4

    model = onnx.load(written.new)
    tensor = max(model.graph.initializer, key=lambda t: np.prod(t.dims))
    values = numpy_helper.to_array(tensor).copy()
    values.flat[np.abs(values).argmax()] *= np.float32(1.001)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, written.new)
    changed = written.changed(
        {"result": {"sha256": Model(written.new, "a model").sha256, "bytes": 0}}
    )
    with pytest.raises(NotVerifiedError, match="deviation"):
        verify(changed.old, changed.new, changed.certificate)


def test_two_chains_are_checked_one_by_one(tmp_path: Path) -> None:
    second = [
        node("Gemm", "x w b", "g2"),
        node("Relu", "g2", "h2"),
        node("Gemm", "h2 u", "z"),
    ]
    tensors = [t for t in weights(0) if t.name in {"w", "b", "u", "d", "v"}]
    model = model_of([*PLAIN, *second], tensors, ["N", 6], ["N", 2])
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 5]))
    paths = tmp_path / "old.onnx", tmp_path / "new.onnx", tmp_path / "certificate.npz"
    onnx.save(model, paths[0])
    optimize_file(paths[0], paths[1], domain="0:1", certificate=paths[2])
    found = verify(*paths)
    assert [chain.name for chain in found.chains] == ["x -> y", "x -> z"]

    written = read(*paths)
    heads = written.header["chains"]
    with pytest.raises(NotVerifiedError):
        verify(paths[0], paths[1], written.changed({"chains": heads[::-1]}).certificate)
    with pytest.raises(NotVerifiedError):
        verify(paths[0], paths[1], written.changed({"chains": heads[:1]}).certificate)


def test_a_tensor_inside_of_a_chain_may_not_be_read_by_others(tmp_path: Path) -> None:
    """The new model gives out what was not given out before, under a name that was."""
    written = tiny(tmp_path)
    for path in (written.old, written.new):
        model = onnx.load(path)
        value = helper.make_tensor_value_info("h0", TensorProto.FLOAT, ["N", None])
        model.graph.output.append(value)
        onnx.save(model, path)
    marks = {
        key: {"sha256": Model(path, "a model").sha256, "bytes": 0}
        for key, path in (("original", written.old), ("result", written.new))
    }
    with pytest.raises(NotVerifiedError, match="'h0' is read outside of its chain"):
        verify(written.old, written.new, written.changed(marks).certificate)


def test_units_that_turn_out_stable_need_not_have_been_claimed(tmp_path: Path) -> None:
    """An undecided unit, and one put in the place of stably active ones, have the same weights."""
    written = random_written("dyadic", 4021, tmp_path)
    assert_float32(verify(written.old, written.new, written.certificate))


def assert_float32(found: Verification) -> None:
    """Off by what rounding new weights to float32 does to the largest output, and no more."""
    assert found.deviation < 2.0**-22 * max(chain.largest for chain in found.chains)


def random_written(family: str, seed: int, folder: Path, **settings: Any) -> Written:
    case = random_case(family, seed)
    layers = [(x.affine.weight, x.affine.bias, x.relu) for x in case.chain.layers]
    paths = folder / "old.onnx", folder / "new.onnx", folder / "certificate.npz"
    onnx.save(gemm_model(layers), paths[0])
    box = {"x": (case.box.lower, case.box.upper)}
    optimize_file(*paths[:2], domain=box, certificate=paths[2], **settings)
    return read(*paths)


def test_layers_that_were_written_one_by_one_are_read_one_by_one(tmp_path: Path) -> None:
    """Reading composes the two matrices that are left where their product is no larger."""
    written = random_written("normal", 2102, tmp_path, reductions="published")
    widths = written.header["chains"][0]["result_widths"]
    assert len(widths) > len(read_chain(Model(written.new, "a model"), "x", "y").layers)
    assert_float32(verify(written.old, written.new, written.certificate))


def test_what_folding_rounds_is_the_same_where_a_layer_stays(tmp_path: Path) -> None:
    """The bias of -10 2^60 and the 1 that is added to it are no float64 number."""
    signs = np.where(np.arange(20) < 10, -1, 1)
    arrays = {
        "w": (signs * 2.0**60)[:, None],
        "b": np.array([-10 * 2.0**60]),
        "c": np.ones(1),
        "v": np.ones((1, 1)),
    }
    tensors = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in arrays.items()]
    nodes = [
        node("Gemm", "x w b", "g"),
        node("Add", "g c", "a"),
        node("Relu", "a", "r"),
        node("Gemm", "r v", "y"),
    ]
    paths = tmp_path / "old.onnx", tmp_path / "new.onnx", tmp_path / "certificate.npz"
    onnx.save(model_of(nodes, tensors, ["N", 20], ["N", 1]), paths[0])
    optimize_file(paths[0], paths[1], domain="0:1", certificate=paths[2])
    found = verify(*paths)
    assert found.verified
    assert found.deviation == 0.0
    layer = read_chain(Model(paths[0], "a model"), "x", "y").layers[0]
    assert layer.bias_error is not None
    assert layer.bias_error[0] >= 1.0
