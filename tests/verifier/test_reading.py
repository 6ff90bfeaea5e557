"""Both models are read as onnxruntime runs them; what is not understood is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnx_exact.errors import ModelError, NotVerifiedError, UncheckedError
from onnx_exact.verifier.chain import Layer, read_chain, read_constant
from onnx_exact.verifier.coverage import Pair, compare_outside, compare_signatures
from onnx_exact.verifier.front import Front
from onnx_exact.verifier.model import Model
from onnx_exact.verifier.operators import Layout
from tests.verifier.build import gemm_model, model_of

SHARED = Path(__file__).parents[3] / "shared" / "models"
RNG = np.random.default_rng(7)


def stored(**arrays: Any) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in arrays.items()]


def integers(**arrays: Any) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.asarray(v, np.int64), k) for k, v in arrays.items()]


def weights(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def node(op: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


NORMAL = stored(s=weights(3), o=weights(3), m=weights(3), v=np.abs(weights(3)) + 0.1)
Spec = tuple[Sequence[NodeProto], Sequence[onnx.TensorProto], Sequence[Any], Sequence[Any]]
READ: dict[str, Spec] = {
    "Gemm": (
        [node("Gemm", "x w b", "y", alpha=0.3, beta=1.7, transB=1)],
        stored(w=weights(3, 4), b=weights(3)),
        ["N", 4],
        ["N", 3],
    ),
    "Gemm, transposed": (
        [node("Gemm", "x w b", "y", transA=1)],
        stored(w=weights(4, 3), b=weights(1, 1)),
        [4, "N"],
        ["N", 3],
    ),
    "Gemm without a bias": (
        [node("Gemm", "x w", "y")],
        stored(w=weights(4, 3)),
        ["N", 4],
        ["N", 3],
    ),
    "MatMul, Add": (
        [node("MatMul", "x w", "p"), node("Add", "b p", "y")],
        stored(w=weights(4, 3), b=weights(3)),
        ["N", 1, 4],
        ["N", 1, 3],
    ),
    "MatMul from the left": (
        [node("MatMul", "w x", "p"), node("Add", "p b", "y")],
        stored(w=weights(3, 4), b=weights(3, 1)),
        [4, 1],
        [3, 1],
    ),
    "Sub, Mul, Div before and after": (
        [
            node("Sub", "x a", "p"),
            node("Div", "p c", "q"),
            node("MatMul", "q w", "r"),
            node("Mul", "r d", "t"),
            node("Sub", "e t", "y"),
        ],
        stored(a=weights(4), c=weights(1) + 3, w=weights(4, 3), d=weights(3), e=weights(1, 3)),
        ["N", 4],
        ["N", 3],
    ),
    "BatchNormalization": (
        [
            node("Gemm", "x w", "p"),
            node("BatchNormalization", "p s o m v", "q", epsilon=0.01),
            node("Relu", "q", "r"),
            node("Gemm", "r u", "y"),
        ],
        [*stored(w=weights(4, 3), u=weights(3, 2)), *NORMAL],
        ["N", 4],
        ["N", 2],
    ),
    "two linear layers": (
        [node("Gemm", "x w a", "p"), node("Gemm", "p u b", "y")],
        stored(w=weights(4, 3), a=weights(3), u=weights(3, 2), b=weights(2)),
        ["N", 4],
        ["N", 2],
    ),
    "two linear layers that stay apart": (
        [node("Gemm", "x w a", "p"), node("Gemm", "p u b", "y")],
        stored(w=weights(9, 1), a=weights(1), u=weights(1, 9), b=weights(9)),
        ["N", 9],
        ["N", 9],
    ),
    "Flatten, Reshape, Squeeze, Unsqueeze, Identity, Dropout": (
        [
            node("Flatten", "x", "f"),
            node("Gemm", "f w", "p"),
            node("Relu", "p", "r"),
            node("Reshape", "r shape", "t"),
            node("Unsqueeze", "t two", "q"),
            node("Squeeze", "q two", "c"),
            node("Identity", "c", "i"),
            node("Dropout", "i", "d"),
            node("Flatten", "d", "g"),
            node("Gemm", "g u", "y"),
        ],
        [*stored(w=weights(6, 4), u=weights(4, 2)), *integers(shape=[-1, 2, 2], two=[2])],
        ["N", 2, 3],
        ["N", 2],
    ),
    "a Cast to the type that is there": (
        [
            node("Gemm", "x w b", "p"),
            node("Cast", "p", "q", to=TensorProto.FLOAT),
            node("Relu", "q", "r"),
            node("Cast", "r", "y", to=TensorProto.FLOAT),
        ],
        stored(w=weights(4, 3), b=weights(3)),
        ["N", 4],
        ["N", 3],
    ),
    "Constant nodes": (
        [
            helper.make_node("Constant", [], ["w"], value=stored(w=weights(4, 3))[0]),
            helper.make_node("Constant", [], ["b"], value_floats=[1.0, 2.0, 3.0]),
            helper.make_node("Constant", [], ["c"], value_float=0.5),
            helper.make_node("Identity", ["c"], ["k"]),
            node("Gemm", "x w b", "p"),
            node("Mul", "p k", "y"),
        ],
        [],
        ["N", 4],
        ["N", 3],
    ),
    "several positions of a sample": (
        [node("MatMul", "x w", "p"), node("Add", "p b", "y")],
        stored(w=weights(4, 3), b=weights(3)),
        ["N", 5, 4],
        ["N", 5, 3],
    ),
    "features in front of the samples": (
        [node("MatMul", "w x", "p"), node("Add", "p b", "q"), node("Relu", "q", "y")],
        stored(w=weights(3, 4), b=weights(3, 1)),
        [4, "N"],
        [3, "N"],
    ),
    "a fixed number of samples": (
        [
            node("Gemm", "x w b", "p"),
            node("Reshape", "p shape", "q"),
            node("Sub", "q c", "r"),
            node("MatMul", "r u", "y"),
        ],
        [
            *stored(w=weights(4, 3), b=weights(3), c=np.ones((7, 1, 1)), u=weights(3, 2)),
            *integers(shape=[7, 1, 3]),
        ],
        [7, 4],
        [7, 1, 2],
    ),
    "a reshape to sizes that are computed": (
        [
            node("Shape", "x", "s"),
            node("Gather", "s zero", "n"),
            node("Concat", "n rest", "t", axis=0),
            node("Reshape", "x t", "r"),
            node("Gemm", "r w", "y"),
        ],
        [*stored(w=weights(4, 3)), *integers(zero=[0], rest=[4])],
        ["N", 2, 2],
        ["N", 3],
    ),
}


def saved(folder: Path, spec: Spec, opset: int = 17) -> Model:
    nodes, tensors, into, out = spec
    path = folder / "model.onnx"
    onnx.save(model_of(nodes, tensors, into, out, opset=opset), path)
    return Model(path, "a model")


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("what", READ)
def test_a_chain_is_read_as_onnxruntime_runs_it(what: str, samples: int, tmp_path: Path) -> None:
    import onnxruntime

    model = saved(tmp_path, READ[what])
    session = onnxruntime.InferenceSession(str(model.source), providers=["CPUExecutionProvider"])
    chain = read_chain(model, "x", "y")
    sizes = [samples if n is None else n for n in model.inputs[0].shape or ()]
    x = RNG.normal(size=sizes).astype(np.float32)
    expected = session.run(None, {"x": x})[0]
    trail = 1 if set(chain.before.trail) == {1} else samples
    positions = x.reshape(-1, chain.before.features, trail).astype(np.float64)
    found, off = outputs(chain.layers, np.moveaxis(positions, 1, 2))
    if set(chain.after.trail) != {1}:
        found = np.moveaxis(found, 1, 2)
    found = found.reshape(expected.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert off < 1e-12


def outputs(layers: Sequence[Layer], h: Any) -> tuple[Any, float]:
    """What the layers compute, and what their weights may be off by at most."""
    off = 0.0
    for layer in layers:
        off = off * np.abs(layer.weight).sum() + float(layer.off(np.abs(h)).max())
        h = h @ layer.weight.T + layer.bias
        h = np.maximum(h, 0.0) if layer.relu else h
    return h, off


def test_a_constant_stands_for_a_chain(tmp_path: Path) -> None:
    gemm = [node("Gemm", "x w", "y")]
    old = read_chain(saved(tmp_path, (gemm, stored(w=weights(4, 3)), ["N", 4], ["N", 3])), "x", "y")
    expand = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Concat", "n rest", "t", axis=0),
        node("Expand", "c t", "y"),
    ]
    value = weights(3)
    tensors = [*stored(c=value), *integers(zero=[0], rest=[3])]
    model = saved(tmp_path, (expand, tensors, ["N", 4], ["N", 3]))
    found = read_constant(model, "x", "y", old)
    assert found is not None
    np.testing.assert_array_equal(found.layers[0].bias, value)
    assert found.nodes == {0, 1, 2, 3}
    assert found.inside == {"s", "n", "t"}
    other = saved(tmp_path, (gemm, stored(w=weights(4, 3)), ["N", 4], ["N", 3]))
    assert read_constant(other, "x", "y", old) is None


def test_errors_of_composed_weights_hold_in_rationals(tmp_path: Path) -> None:
    w, u = weights(5, 4), weights(3, 5)
    nodes = [node("Gemm", "x w", "p", transB=1), node("Gemm", "p u", "y", transB=1)]
    (layer,) = read_chain(
        saved(tmp_path, (nodes, stored(w=w, u=u), ["N", 4], ["N", 3])), "x", "y"
    ).layers
    assert layer.weight_error is not None
    for i in range(3):
        for j in range(4):
            exact = sum(Fraction(float(u[i, k])) * Fraction(float(w[k, j])) for k in range(5))
            error = abs(exact - Fraction(layer.weight[i, j]))
            assert error <= Fraction(layer.weight_error[i, j]) < Fraction(1, 10**13)


REFUSED: dict[str, tuple[str, Spec]] = {
    "another operator": ("Sigmoid", ([node("Sigmoid", "x", "y")], [], ["N", 4], ["N", 4])),
    "an operator of others": (
        "Gemm",
        ([helper.make_node("Gemm", ["x"], ["y"], domain="others")], [], ["N", 4], ["N", 4]),
    ),
    "weights that are computed": ("MatMul", ([node("MatMul", "x x", "y")], [], [1, 1], [1, 1])),
    "a constant divided": (
        "Div",
        ([node("Div", "c x", "y")], stored(c=weights(4)), ["N", 4], ["N", 4]),
    ),
    "a division by zero": (
        "Div",
        ([node("Div", "x c", "y")], stored(c=[1, 0, 1, 1]), ["N", 4], ["N", 4]),
    ),
    "a constant that makes the tensor larger": (
        "Add",
        ([node("Add", "x c", "y")], stored(c=weights(3, 4)), [1, 4], [3, 4]),
    ),
    "a dropout in training": (
        "Dropout",
        (
            [node("Dropout", "x ratio on", "y")],
            [
                *stored(ratio=0.5),
                numpy_helper.from_array(np.array(True), "on"),
            ],
            ["N", 4],
            ["N", 4],
        ),
    ),
    "a batch normalisation in training": (
        "BatchNormalization",
        (
            [
                helper.make_node(
                    "BatchNormalization",
                    ["x", "s", "o", "m", "v"],
                    ["y", "mean", "var"],
                    training_mode=1,
                )
            ],
            NORMAL,
            ["N", 3],
            ["N", 3],
        ),
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_understood_is_refused_by_name(what: str, tmp_path: Path) -> None:
    operator, spec = REFUSED[what]
    path = tmp_path / "model.onnx"
    model = model_of(*spec)
    model.opset_import.append(helper.make_opsetid("others", 1))
    onnx.save(model, path)
    with pytest.raises(UncheckedError, match=f"cannot check: operator {operator}"):
        read_chain(Model(path, "a model"), "x", "y")


MIXED = {
    "features and positions swapped": (
        [node("Gemm", "x w", "p"), node("Reshape", "p shape", "q"), node("MatMul", "q u", "y")],
        [*stored(w=weights(4, 4), u=weights(2, 3)), *integers(shape=[-1, 2])],
    ),
    "samples among the features": (
        [node("MatMul", "x w", "p"), node("Reshape", "p shape", "q"), node("MatMul", "u q", "y")],
        [*stored(w=weights(4, 4), u=weights(3, 4)), *integers(shape=[4, -1])],
    ),
}


@pytest.mark.parametrize("what", MIXED)
def test_a_chain_that_mixes_samples_is_refused(what: str, tmp_path: Path) -> None:
    nodes, tensors = MIXED[what]
    model = saved(tmp_path, (nodes, tensors, ["N", 4], [None, None]))
    with pytest.raises(UncheckedError, match="mixes features with others"):
        read_chain(model, "x", "y")


def test_where_features_lie_is_found_at_large_primes(tmp_path: Path) -> None:
    nodes = [node("Gemm", "x w", "y")]
    model = saved(tmp_path, (nodes, stored(w=weights(4, 3)), ["N", 4], ["N", 3]))
    assert model.shapes("x") == ((10007, 4), (10009, 4), (1, 4))
    assert read_chain(model, "x", "y").after == Layout((10007, 10009, 1), 3, (1, 1, 1))


def test_sizes_that_the_first_matrix_tells_are_taken_from_it(tmp_path: Path) -> None:
    nodes = [node("Gemm", "x w", "p", transB=1), node("MatMul", "p u", "y")]
    tensors = stored(w=weights(3, 4), u=weights(3, 2))
    model = saved(tmp_path, (nodes, tensors, [None, None], [None, 2]))
    assert model.inputs[0].shape == (None, 4)
    assert model.shapes("x") == ((10007, 4), (10009, 4), (1, 4))
    assert read_chain(model, "x", "y").form[0] == [2]


def test_sizes_of_which_no_shape_follows_are_refused(tmp_path: Path) -> None:
    """x + c fits for 1 sample, or 3, and for no other number."""
    nodes = [node("Add", "x c", "p"), node("Gemm", "p w", "y")]
    spec: Spec = (nodes, stored(w=weights(4, 3), c=weights(3, 4)), ["N", 4], ["N", 3])
    with pytest.raises(UncheckedError, match="do not follow from its inputs"):
        read_chain(saved(tmp_path, spec), "x", "y")


def test_old_operator_sets_are_refused(tmp_path: Path) -> None:
    spec: Spec = ([node("Relu", "x", "y")], [], ["N", 4], ["N", 4])
    with pytest.raises(UncheckedError, match="cannot check: operator Relu"):
        read_chain(saved(tmp_path, spec, opset=6), "x", "y")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    spec: Spec = ([node("Gemm", "x w", "y")], stored(w=[[np.inf]]), ["N", 1], ["N", 1])
    with pytest.raises(NotVerifiedError, match="not finite"):
        read_chain(saved(tmp_path, spec), "x", "y")


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x08\x08"])
def test_files_that_are_no_models_are_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    for file in (path, tmp_path / "nothing.onnx", tmp_path):
        with pytest.raises(ModelError, match="cannot be read as a model"):
            Model(file, "a model")


def test_the_box_of_a_chain_is_the_exact_image_rounded_outward(tmp_path: Path) -> None:
    nodes = [
        node("Sub", "x a", "p"),
        node("Div", "p c", "q"),
        node("Mul", "q d", "t"),
        node("Flatten", "t", "f"),
        node("Gemm", "f w", "y"),
    ]
    a, c, d = (np.float32(v) for v in (0.1, 0.3, -0.7))
    model = saved(
        tmp_path, (nodes, stored(a=[a], c=[c], d=[d], w=weights(2, 1)), ["N", 2], ["N", 1])
    )
    ends = np.array([[0.2, -3.0]]), np.array([[0.9, -1.0]])
    layout = read_chain(model, "f", "y").before
    lower, upper = Front(model, {"x": ends}).features("f", layout)
    for i in range(2):
        exact = sorted(
            (Fraction(float(e[0, i])) - Fraction(float(a)))
            / Fraction(float(c))
            * Fraction(float(d))
            for e in ends
        )
        assert Fraction(lower[i]) <= exact[0] <= exact[1] <= Fraction(upper[i])
        # Three operations, each a step outward.
        slack = max(map(abs, exact)) * Fraction(1, 2**50)
        assert exact[0] - Fraction(lower[i]) <= slack
        assert Fraction(upper[i]) - exact[1] <= slack


def outside(folder: Path, change: Any) -> None:
    """Compares a model with two outputs, one of them outside of the chain, with a changed copy."""
    nodes = [
        node("Gemm", "x w", "p"),
        node("Relu", "p", "h"),
        node("Gemm", "h w", "y"),
        node("Mul", "x c", "z"),
    ]
    model = model_of(nodes, stored(w=weights(2, 2), c=weights(2)), ["N", 2], ["N", 2])
    model.graph.output.append(helper.make_tensor_value_info("z", 1, ["N", 2]))
    models = []
    for i, proto in enumerate((model, onnx.ModelProto.FromString(model.SerializeToString()))):
        if i:
            change(proto)
        onnx.save(proto, folder / f"{i}.onnx")
        models.append(Model(folder / f"{i}.onnx", "a model"))
    compare_signatures(*models)
    chains = [read_chain(m, "x", "y") for m in models]
    assert compare_outside(*models, [Pair("x", "y", *chains)]) == 2


def rename(model: onnx.ModelProto) -> None:
    model.graph.output[1].name = model.graph.node[3].output[0] = "other"


def scale(model: onnx.ModelProto) -> None:
    values = numpy_helper.to_array(model.graph.initializer[1]) * np.float32(1.001)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(values, "c"))


def operator(model: onnx.ModelProto) -> None:
    model.graph.node[3].op_type = "Add"


def tap(model: onnx.ModelProto) -> None:
    model.graph.node[3].input[0] = "h"


def opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 18


def size(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


@pytest.mark.parametrize("change", [rename, scale, operator, tap, opset, size])
def test_what_differs_outside_of_the_chains_is_refused(change: Any, tmp_path: Path) -> None:
    outside(tmp_path, lambda model: None)
    with pytest.raises(NotVerifiedError):
        outside(tmp_path, change)


def test_words_outside_of_the_chains_do_not_matter(tmp_path: Path) -> None:
    def words(model: onnx.ModelProto) -> None:
        model.graph.node[3].doc_string = model.doc_string = "changed"
        helper.set_model_props(model, {"a": "b"})

    outside(tmp_path, words)


@pytest.mark.parametrize(
    ("name", "layers"),
    [("ACASXU_run2a_1_1_batch_2000", 7), ("mnist_relu_9_200", 9), ("lindex", 4), ("cartpole", 3)],
)
def test_networks_of_others_are_read(name: str, layers: int) -> None:
    path = SHARED / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    model = Model(path, "a model")
    dense = next(n for n in model.nodes if n.op_type in ("Gemm", "MatMul"))
    chain = read_chain(model, dense.input[0], model.graph.output[0].name)
    assert len(chain.layers) == layers
    assert all(layer.weight_error is None for layer in chain.layers)


def test_a_hand_made_model_is_read_exactly(tmp_path: Path) -> None:
    onnx.save(gemm_model([([[1, 2]], [3], True), ([[4]], [5], False)]), tmp_path / "m.onnx")
    chain = read_chain(Model(tmp_path / "m.onnx", "a model"), "x", "y")
    assert [layer.weight.tolist() for layer in chain.layers] == [[[1, 2]], [[4]]]
    assert [layer.bias.tolist() for layer in chain.layers] == [[3], [5]]
    assert chain.form == ([1, 1], [True, False])
