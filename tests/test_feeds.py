"""The points at which models are run: those of the domain, and those that are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnx_exact.domains import resolve_domain
from onnx_exact.errors import ModelError, UsageError, ValidationError
from onnx_exact.inputs.feeds import SPARSE_SHARE, feeds
from tests.side_by_side import I64, Input, Shape, X, affine, model, run

DOMAIN = resolve_domain("0:1", (X,), {})


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


def test_given_points_beyond_the_type_are_taken_at_its_largest_number() -> None:
    """As the way back from a chain may give them, off by a rounding."""
    spec = Input("x", (None, 2), TensorProto.FLOAT16)
    domain = resolve_domain(None, (spec,), {})
    extra = [{"x": np.array([[7e4, -np.inf]])}]
    feed, _ = next(feeds((spec,), domain, extra, 1, np.random.default_rng(0)))
    assert feed["x"].tolist() == [[65504.0, -65504.0]]
    assert feed["x"].dtype == np.float16
