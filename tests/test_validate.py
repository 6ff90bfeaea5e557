"""Two models run side by side in onnxruntime: when they differ, and when one of them fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from onnx_exact.errors import ModelError, TimeLimitError, ValidationError
from onnx_exact.inputs.feeds import BATCH_SIZES, POINTS
from tests.side_by_side import F16, F32, F64, I64, Input, Shape, affine, model, run


def test_same_model_agrees_at_every_kind_of_point() -> None:
    deviation = run(affine(), affine())
    assert deviation.observed_max_abs == 0.0
    assert deviation.worst_output == "y"
    assert deviation.points >= 3 * POINTS


def test_whoever_asks_may_end_it_before_any_run() -> None:
    asked = []

    def go_on() -> None:
        asked.append(len(asked))
        if len(asked) == 3:
            raise TimeLimitError("late")

    with pytest.raises(TimeLimitError, match="late"):
        run(affine(), affine(), go_on=go_on)
    assert asked == [0, 1, 2]


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


def test_integer_outputs_have_to_be_equal_unless_a_tolerance_is_given() -> None:
    def top(scale: Sequence[float]) -> bytes:
        nodes = [
            helper.make_node("Mul", ["x", "scale"], ["s"]),
            helper.make_node("ArgMax", ["s"], ["y"], axis=1),
        ]
        return model(nodes, outputs=[("y", I64)], scale=np.asarray(scale, np.float32))

    assert run(top([1, 1, 1]), top([2, 2, 2])).observed_max_abs == 0.0
    with pytest.raises(ValidationError, match="'y'"):
        run(top([1, 1, 1]), top([1, 5, 1]))
    with pytest.raises(ValidationError, match="'y'"):
        run(top([1, 1, 1]), top([1, 5, 1]), atol=0.5)
    assert run(top([1, 1, 1]), top([1, 5, 1]), atol=2.0).observed_max_abs > 0.0


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
