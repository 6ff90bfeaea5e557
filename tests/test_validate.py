"""Two models run side by side in onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnx_exact.domains import DomainLike, resolve_domain
from onnx_exact.errors import ModelError, UsageError, ValidationError
from onnx_exact.feeds import BATCH_SIZES, POINTS, SPARSE_SHARE, feeds
from onnx_exact.validate import Deviation, validate

F32, F16, F64, I64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT64
Shape = tuple[int | None, ...] | None


@dataclass(frozen=True)
class Input:
    name: str = "x"
    shape: Shape = (None, 3)
    elem_type: int = F32

    @property
    def is_float(self) -> bool:
        return self.elem_type in (F32, F16, F64)


X = Input()
DOMAIN = resolve_domain("0:1", (X,), {})


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Input] = (X,),
    outputs: Sequence[tuple[str, int]] = (("y", F32),),
    **constants: Any,
) -> bytes:
    def value(name: str, elem_type: int, shape: Shape) -> onnx.ValueInfoProto:
        symbols = (
            None
            if shape is None
            else [f"{name}{i}" if s is None else s for i, s in enumerate(shape)]
        )
        return helper.make_tensor_value_info(name, elem_type, symbols)

    graph = helper.make_graph(
        nodes,
        "g",
        [value(i.name, i.elem_type, i.shape) for i in inputs],
        [value(name, elem_type, None) for name, elem_type in outputs],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def affine(scale: float = 1.0, shift: float = 0.0, spec: Input = X) -> bytes:
    """y = relu(scale x + shift), entry by entry."""
    dtype = {F32: np.float32, F16: np.float16, F64: np.float64}[spec.elem_type]
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["s"]),
        helper.make_node("Add", ["s", "shift"], ["t"]),
        helper.make_node("Relu", ["t"], ["y"]),
    ]
    return model(nodes, [spec], [("y", spec.elem_type)], scale=dtype(scale), shift=dtype(shift))


def run(
    before: bytes | Path,
    after: bytes | Path,
    *inputs: Input,
    domain: DomainLike | None = "0:1",
    **options: Any,
) -> Deviation:
    inputs = inputs or (X,)
    return validate(before, after, inputs, resolve_domain(domain, inputs, {}), **options)


def test_same_model_agrees_at_every_kind_of_point() -> None:
    deviation = run(affine(), affine())
    assert deviation.observed_max_abs == 0.0
    assert deviation.worst_output == "y"
    assert deviation.points >= 3 * POINTS


@pytest.mark.parametrize("elem_type", [F32, F16, F64])
@pytest.mark.parametrize("shape", [(None, 3), (1, 3), (4, 3), (3,), (), (None, 1, 3)])
def test_models_of_every_shape_and_element_type_run(elem_type: int, shape: Shape) -> None:
    spec = Input("x", shape, elem_type)
    assert run(affine(spec=spec), affine(spec=spec), spec).points > 0


def test_models_are_read_from_paths(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(affine())
    assert run(path, path).observed_max_abs == 0.0


def test_difference_is_refused_with_the_worst_output_and_the_input_that_shows_it() -> None:
    both = [("small", F32), ("large", F32)]

    def two(a: float, b: float) -> bytes:
        nodes = [
            helper.make_node("Mul", ["x", "a"], ["small"]),
            helper.make_node("Mul", ["x", "b"], ["large"]),
        ]
        return model(nodes, outputs=both, a=np.float32(a), b=np.float32(b))

    with pytest.raises(ValidationError, match="'large' differs by") as caught:
        run(two(1, 1), two(1.01, 1.5))
    assert caught.value.exit_code == 1
    found = caught.value.counterexample
    assert found is not None
    assert found["x"].max() == 1.0
    assert "\n" not in str(caught.value)


def test_difference_at_one_corner_of_many_is_found_by_a_given_point() -> None:
    """y = relu(sum x - 19.5) is zero but near the corner where all 20 entries are 1."""
    spec = Input("x", (None, 20))

    def net(scale: float) -> bytes:
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["s"]),
            helper.make_node("Add", ["s", "b"], ["t"]),
            helper.make_node("Relu", ["t"], ["u"]),
            helper.make_node("Mul", ["u", "scale"], ["y"]),
        ]
        ones = np.ones((20, 1), np.float32)
        return model(nodes, [spec], w=ones, b=np.float32(-19.5), scale=np.float32(scale))

    assert run(net(1), net(0), spec).observed_max_abs == 0.0
    with pytest.raises(ValidationError):
        run(net(1), net(0), spec, extra=[{"x": np.ones((1, 20))}])


@pytest.mark.parametrize(
    ("shape", "given"),
    [
        ((None, 3), (5, 3)),
        ((None, 3), (5, 1, 3)),
        ((1, 3), (5, 3)),
        ((1, 3), (5, 1, 3)),
        ((4, 3), (5, 3)),
        ((4, 3), (5, 4, 3)),
        ((3,), (5, 3)),
        ((None, 1, 3), (5, 3)),
        ((None, 3), (200, 3)),
        ((), (5,)),
    ],
)
def test_given_points_of_every_shape_are_run_every_one(
    shape: Shape, given: tuple[int, ...]
) -> None:
    """Only the last entry of the last given point is beyond the domain, where the models differ."""
    points = np.zeros(given)
    points.flat[-1] = 9.0
    spec = Input("x", shape)
    nodes = [
        helper.make_node("Sub", ["x", "eight"], ["s"]),
        helper.make_node("Relu", ["s"], ["u"]),
        helper.make_node("Mul", ["u", "scale"], ["y"]),
    ]
    pair = [model(nodes, [spec], eight=np.float32(8), scale=np.float32(s)) for s in (1, 2)]
    assert run(*pair, spec).observed_max_abs == 0.0
    with pytest.raises(ValidationError, match="differs by 1 "):
        run(*pair, spec, extra=[{"x": points}])


def test_given_points_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="do not fit"):
        run(affine(), affine(), extra=[{"x": np.zeros((2, 7))}])
    with pytest.raises(UsageError, match="'z'"):
        run(affine(), affine(), extra=[{"z": np.zeros((2, 3))}])


def test_default_tolerance_is_relative_to_the_largest_value_of_the_output() -> None:
    eps = float(np.finfo(np.float32).eps)
    assert run(affine(1000), affine(1000 * (1 + 100 * eps))).observed_max_abs > 1e-3
    with pytest.raises(ValidationError):
        run(affine(1000), affine(1000 * (1 + 3000 * eps)))
    with pytest.raises(ValidationError):
        run(affine(1), affine(1, 3000 * eps))


def test_given_tolerances_are_used_instead() -> None:
    off = affine(1.0, 0.25)
    assert run(affine(), off, atol=0.251).observed_max_abs == pytest.approx(0.25, abs=1e-6)
    with pytest.raises(ValidationError):
        run(affine(), off, atol=0.24)
    with pytest.raises(ValidationError):
        run(affine(), off, rtol=0.5)
    almost = run(affine(1, 1), affine(1, 1.25), rtol=0.251)
    assert almost.observed_max_abs == pytest.approx(0.25, abs=1e-6)
    with pytest.raises(ValidationError):
        run(affine(), affine(1 + 1e-6), rtol=0.0)


def constant_output(value: Any) -> bytes:
    nodes = [
        helper.make_node("Mul", ["x", "zero"], ["z"]),
        helper.make_node("Add", ["z", "c"], ["y"]),
    ]
    return model(nodes, zero=np.float32(0), c=np.float32(value))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_agree_only_with_themselves(value: float) -> None:
    assert run(constant_output(value), constant_output(value)).observed_max_abs == 0.0
    for other in (0.0, -value if value == value else 1.0):
        with pytest.raises(ValidationError):
            run(constant_output(value), constant_output(other))
        with pytest.raises(ValidationError):
            run(constant_output(other), constant_output(value), rtol=1.0, atol=1e30)


def test_integer_outputs_have_to_be_equal_whatever_the_tolerance() -> None:
    def top(scale: Sequence[float]) -> bytes:
        nodes = [
            helper.make_node("Mul", ["x", "scale"], ["s"]),
            helper.make_node("ArgMax", ["s"], ["y"], axis=1),
        ]
        return model(nodes, outputs=[("y", I64)], scale=np.asarray(scale, np.float32))

    assert run(top([1, 1, 1]), top([2, 2, 2])).observed_max_abs == 0.0
    with pytest.raises(ValidationError, match="'y'"):
        run(top([1, 1, 1]), top([1, 5, 1]), atol=100.0)


def test_output_of_another_type_or_shape_or_name_is_refused() -> None:
    flat = model([helper.make_node("Flatten", ["x"], ["y"], axis=0)])
    with pytest.raises(ValidationError, match="of shape"):
        run(affine(), flat)
    double = model([helper.make_node("Cast", ["x"], ["y"], to=F64)], outputs=[("y", F64)])
    with pytest.raises(ValidationError, match="float64"):
        run(affine(), double)
    renamed = model([helper.make_node("Relu", ["x"], ["z"])], outputs=[("z", F32)])
    with pytest.raises(ValidationError, match="other outputs"):
        run(affine(), renamed)


def batch_fixed_inside(rows: int, columns: int) -> bytes:
    """Runs at no batch but `rows`."""
    return model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        shape=np.array([rows, columns], np.int64),
    )


def test_points_at_which_the_original_fails_are_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    only_two = batch_fixed_inside(2, 3)
    deviation = run(only_two, only_two)
    assert 0 < deviation.points < 3 * POINTS
    assert capfd.readouterr().err == ""


def test_new_model_that_fails_where_the_original_runs_is_refused() -> None:
    with pytest.raises(ValidationError, match="fails where the original runs") as caught:
        run(affine(), batch_fixed_inside(2, 3))
    assert caught.value.counterexample is not None
    assert caught.value.counterexample["x"].shape[0] == BATCH_SIZES[0]


def test_model_that_runs_nowhere_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    never = batch_fixed_inside(5, 5)
    with pytest.raises(ModelError, match="--samples") as caught:
        run(never, never)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_model_of_unknown_rank_runs_at_the_given_points_alone() -> None:
    spec = Input("x", None)
    with pytest.raises(ModelError, match="--samples"):
        run(affine(spec=spec), affine(spec=spec), spec)


def test_other_symbolic_axes_get_a_size_that_the_model_takes() -> None:
    spec = Input("x", (None, None))
    only_one = model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [spec],
        shape=np.array([1, 1], np.int64),
    )
    assert run(only_one, only_one, spec).points > 0
    assert run(affine(spec=spec), affine(spec=spec), spec).points > 0


def test_integer_and_boolean_inputs_get_small_values() -> None:
    k, flag = Input("k", (None,), I64), Input("flag", (1,), TensorProto.BOOL)
    nodes = [
        helper.make_node("Gather", ["table", "k"], ["rows"]),
        helper.make_node("Add", ["x", "rows"], ["s"]),
        helper.make_node("Where", ["flag", "s", "x"], ["y"]),
    ]
    table = np.arange(6, dtype=np.float32).reshape(2, 3)
    both = model(nodes, [X, k, flag], table=table)
    assert run(both, both, X, k, flag).points > 0
    wrong = model(nodes, [X, k, flag], table=table + 1)
    with pytest.raises(ValidationError):
        run(both, wrong, X, k, flag)


@pytest.mark.parametrize("data", [b"", b"garbage", affine()[:50]])
def test_original_that_onnxruntime_cannot_load_is_one_line(
    data: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError, match="onnxruntime cannot load the model") as caught:
        run(data, affine())
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_custom_operator_is_refused_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    custom = model([helper.make_node("Mine", ["x"], ["y"], domain="my.ops")])
    with pytest.raises(ModelError, match="cannot load") as caught:
        run(custom, custom)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_rewritten_model_that_cannot_be_loaded_is_a_failed_validation() -> None:
    with pytest.raises(ValidationError, match="the rewritten model"):
        run(affine(), b"garbage")


def bounds_checker(low: Sequence[float], high: Sequence[float]) -> bytes:
    """y = relu(low - x) + relu(x - high): zero in the box alone."""
    nodes = [
        helper.make_node("Sub", ["low", "x"], ["a"]),
        helper.make_node("Sub", ["x", "high"], ["b"]),
        helper.make_node("Relu", ["a"], ["c"]),
        helper.make_node("Relu", ["b"], ["d"]),
        helper.make_node("Add", ["c", "d"], ["y"]),
    ]
    return model(nodes, low=np.asarray(low, np.float32), high=np.asarray(high, np.float32))


def test_points_are_of_the_domain_even_in_float32() -> None:
    low, high = [0.1, -7.0, 0.3], [0.7, -6.9, 0.3]
    zero = model([helper.make_node("Mul", ["x", "z"], ["y"])], z=np.float32(0))
    with np.errstate(all="ignore"):
        stored = resolve_domain((low, high), (X,), {}).boxes["x"]
    inside = bounds_checker(
        np.nextafter(stored.lower[0].astype(np.float32), -np.inf, dtype=np.float32).tolist(),
        np.nextafter(stored.upper[0].astype(np.float32), np.inf, dtype=np.float32).tolist(),
    )
    assert run(inside, zero, domain=(low, high), atol=0.0).observed_max_abs == 0.0
    with pytest.raises(ValidationError):
        run(bounds_checker([0.2, -7, 0.3], [0.7, -6.9, 0.3]), zero, domain=(low, high))


@pytest.mark.parametrize("domain", [None, "-inf:0", "5:inf"])
def test_infinite_domain_is_tried_at_finite_points(domain: str | None) -> None:
    assert run(affine(), affine(), domain=domain).observed_max_abs == 0.0
    sign = -1.0 if domain == "-inf:0" else 1.0
    with pytest.raises(ValidationError):
        run(affine(sign), affine(sign * 2), domain=domain)


def test_sparse_corners_are_among_the_points() -> None:
    """Differs only where some but few of 40 entries are at their upper side."""
    spec = Input("x", (None, 40))

    def net(scale: float) -> bytes:
        nodes = [
            helper.make_node("ReduceSum", ["x", "axis"], ["s"], keepdims=1),
            helper.make_node("Sub", ["eight", "s"], ["t"]),
            helper.make_node("Relu", ["t"], ["u"]),
            helper.make_node("Mul", ["u", "scale"], ["y"]),
        ]
        constants: dict[str, NDArray[Any]] = {
            "axis": np.array([1]),
            "eight": np.float32(8),  # type: ignore[dict-item]
            "scale": np.float32(scale),  # type: ignore[dict-item]
        }
        return model(nodes, [spec], **constants)

    assert 40 * SPARSE_SHARE < 8
    with pytest.raises(ValidationError):
        run(net(1), net(2), spec)


def test_same_seed_gives_the_same_deviation_and_another_seed_other_points() -> None:
    almost = affine(1 + 1e-6)
    results = [
        run(affine(), almost, atol=1.0, seed=seed, domain="-inf:inf").observed_max_abs
        for seed in (1, 1, 2)
    ]
    assert results[0] == results[1] > 0
    sums = [
        [feed["x"].sum() for feed, _ in feeds((X,), DOMAIN, (), 1, np.random.default_rng(seed))]
        for seed in (1, 1, 2)
    ]
    assert sums[0] == sums[1] != sums[2]
