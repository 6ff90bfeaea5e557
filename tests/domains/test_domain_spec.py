"""Domains as text, values, files and metadata, fitted to a graph's inputs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from domain_inputs import FLOAT16, FLOAT32, INT64, Input
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnx_exact.domains import DOMAIN_KEY, Domain, DomainLike, resolve_domain
from onnx_exact.errors import DomainError
from onnx_exact.network import Box

X = Input()


def boxes_of(spec: DomainLike, *inputs: Input) -> dict[str, tuple[Any, Any]]:
    domain = resolve_domain(spec, inputs or (X,), {})
    return {name: (box.lower.tolist(), box.upper.tolist()) for name, box in domain.boxes.items()}


def refusal(spec: Any, *inputs: Input, metadata: dict[str, str] | None = None) -> str:
    with pytest.raises(DomainError) as caught:
        resolve_domain(spec, inputs or (X,), metadata or {})
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("0:1", 0.0, 1.0),
        ("-1:-0.5", -1.0, -0.5),
        ("-1e-3:+2.5E2", -1e-3, 250.0),
        (" .5 : 1. ", 0.5, 1.0),
        ("-inf:0", -math.inf, 0.0),
        ("0:Infinity", 0.0, math.inf),
        ("3:3", 3.0, 3.0),
    ],
)
def test_range_bounds_every_entry(text: str, low: float, high: float) -> None:
    assert boxes_of(text) == {"x": ([[low, low]], [[high, high]])}


@pytest.mark.parametrize("name", ["x", "a:b", "net/in:0", "k=v", "0:1=0:1", "box.npz", "ü"])
def test_named_range_splits_at_the_last_equals_sign(name: str) -> None:
    found = boxes_of(f"{name}=-1:2", Input(name, (1,)))
    assert found == {name: ([-1.0], [2.0])}


def test_several_named_ranges_bound_several_inputs() -> None:
    a, b, c = Input("a", (1,)), Input("b", (None, 1)), Input("c", (1,), INT64)
    assert boxes_of(["a=0:1", "b=2:3"], a, b, c) == {"a": ([0.0], [1.0]), "b": ([[2.0]], [[3.0]])}


def test_input_that_is_not_named_is_unbounded_and_the_source_says_so() -> None:
    domain = resolve_domain("a=0:1", (Input("a", (1,)), Input("b", (1,))), {})
    assert domain.boxes["b"].lower == -np.inf
    assert domain.source == "--domain a=0:1, every finite value of 'b'"
    assert domain.declared


def test_without_any_domain_every_finite_input_is_meant() -> None:
    for spec in (None, []):
        domain = resolve_domain(spec, (X, Input("k", (3,), INT64)), {})
        assert not domain.declared
        assert list(domain.boxes) == ["x"]
        assert not domain.boxes["x"].finite
        assert "no domain given" in domain.source


@pytest.mark.parametrize(
    "spec",
    [
        (0, 1),
        (np.zeros(2), [1.0, 1.0]),
        (0, np.ones((1, 2))),
        Box(np.zeros(2), np.ones(2)),
        {"x": (0, 1)},
        {"x": Box(np.zeros((1, 2)), np.ones((1, 2)))},
        [{"x": [0, 1]}],
    ],
)
def test_values_of_every_form_give_the_same_box(spec: DomainLike) -> None:
    assert boxes_of(spec) == {"x": ([[0.0, 0.0]], [[1.0, 1.0]])}


def test_a_list_of_paths_and_texts_is_read_one_after_another(tmp_path: Path) -> None:
    path = tmp_path / "box.json"
    path.write_text('{"b": {"lower": 2, "upper": 3}}')
    found = boxes_of(["a=0:1", path], Input("a", (1,)), Input("b", (1,)))
    assert found["b"] == ([2.0], [3.0])


@pytest.mark.parametrize(
    ("shape", "given", "expected"),
    [
        ((None, 2), [1, 2], [[1, 2]]),
        ((1, 2), [[1, 2]], [[1, 2]]),
        ((2, 2), [1, 2], [[1, 2]]),
        ((2**40, 2), [1, 2], [[1, 2]]),
        ((2, 2), [1, 2, 3, 4], [[1, 2], [3, 4]]),
        ((None, 2, None, 2), [1, 2, 3, 4], [[[[1, 2]], [[3, 4]]]]),
        ((1, 4), [[1, 2], [3, 4]], [[1, 2, 3, 4]]),
        ((3,), [1, 2, 3], [1, 2, 3]),
        ((), 7, 7),
        (None, 7, 7),
        ((None, 2), [5], [[5, 5]]),
    ],
)
def test_bounds_fit_the_tensor_or_one_sample_or_are_one_number(
    shape: tuple[int | None, ...] | None, given: Any, expected: Any
) -> None:
    assert boxes_of((given, 9), Input("x", shape))["x"][0] == expected


def test_bounds_whose_axes_are_in_another_order_are_refused() -> None:
    image = Input("x", (1, 3, 4, 4))
    channels_last = np.arange(48.0).reshape(4, 4, 3)
    assert "order" in refusal((channels_last, 99), image)
    assert boxes_of((np.zeros((4, 4, 3)), 1), image)["x"][0] == np.zeros((1, 3, 4, 4)).tolist()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("1:0", "lower bound exceeds"),
        ("nan:1", "nan"),
        ("0:nan", "nan"),
        ("inf:inf", "lower bound is inf"),
        ("0:1e999", "beyond float64"),
        ("zero:one", "neither a range"),
        ("0:1:2", "neither a range"),
        ("", "neither a range"),
        ("y=0:1", "no input 'y'"),
        (["0:1", "x=0:1"], "twice"),
        ("missing.npz", "No such file"),
        ("missing.json", "No such file"),
        ("missing.vnnlib", "No such file"),
        ((0, [1, 2, 3]), "1 or 2 bounds"),
        ((0, [[1, 2], [3]]), "numbers"),
        (("0", "1"), "numbers"),
        ((0, True), "numbers"),
        ((0, 1j), "numbers"),
        ((0, 1, 2), "tuple"),
        (7, "int"),
        ({"x": 3}, "int"),
        ({3: (0, 1)}, "not the name"),
        (b"0:1", "bytes"),
        ([0, 1], "int"),
    ],
)
def test_unusable_domain_is_refused_in_one_line(spec: Any, words: str) -> None:
    assert words in refusal(spec)


def test_unnamed_range_for_several_inputs_is_refused_with_the_way_out() -> None:
    assert "--domain 'b=LO:HI'" in refusal("0:1", Input("a"), Input("b"))


def test_domain_of_an_integer_input_is_refused() -> None:
    assert "no floating-point" in refusal("0:1", Input("k", (1,), INT64))
    assert "no floating-point" in refusal("k=0:1", Input("k", (1,), INT64), X)


def test_array_for_an_unknown_rank_is_refused() -> None:
    assert "rank is unknown" in refusal(([0, 1], 2), Input("x", None))


def test_ends_are_widened_to_what_float32_stores() -> None:
    box = resolve_domain("0.1:0.7", (Input("x", (1,), FLOAT32),), {}).boxes["x"]
    assert float(np.float32(0.1)) > 0.1
    assert box.lower == 0.1
    assert float(np.float32(0.7)) < 0.7
    assert box.upper == 0.7
    narrow = resolve_domain("0.1:0.1", (Input("x", (1,), FLOAT32),), {}).boxes["x"]
    assert box.lower == narrow.lower
    assert narrow.upper == float(np.float32(0.1))


def test_bound_beyond_every_number_of_the_element_type_is_refused() -> None:
    assert "beyond every finite float16" in refusal("1e6:2e6", Input("x", (1,), FLOAT16))
    box = resolve_domain("0:1e6", (Input("x", (1,), FLOAT16),), {}).boxes["x"]
    assert box.upper == np.inf


finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


@given(arrays(np.float64, 4, elements=finite), arrays(np.float64, 4, elements=finite))
@pytest.mark.parametrize("elem_type", [FLOAT32, FLOAT16])
def test_rounding_a_point_to_the_element_type_stays_in_the_box(
    elem_type: int, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]
) -> None:
    dtype = {FLOAT32: np.float32, FLOAT16: np.float16}[elem_type]
    bound = float(np.finfo(dtype).max)
    low, high = np.clip(np.minimum(a, b), -bound, bound), np.clip(np.maximum(a, b), -bound, bound)
    box = resolve_domain((low, high), (Input("x", (4,), elem_type),), {}).boxes["x"]
    points = low + np.linspace(0, 1, 5)[:, None] * (high / 2 - low / 2) * 2
    with np.errstate(over="ignore"):
        assert box.contains(np.clip(points, low, high).astype(dtype).astype(np.float64))


sides = arrays(np.float64, (1, 3), elements=st.floats(allow_nan=False))


@given(sides, sides)
def test_metadata_holds_the_same_boxes_entry_by_entry(
    a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]
) -> None:
    low = np.where(np.minimum(a, b) == np.inf, 0, np.minimum(a, b))
    high = np.where(np.maximum(a, b) == -np.inf, 0, np.maximum(a, b))
    inputs = (Input("x", (None, 3)), Input("y", (3,)))
    before = resolve_domain({"x": (low, high)}, inputs, {})
    text = json.dumps(before.to_json(), allow_nan=False)
    after = resolve_domain(None, inputs, {DOMAIN_KEY: text})
    assert after.declared
    for name in ("x", "y"):
        np.testing.assert_array_equal(after.boxes[name].lower, before.boxes[name].lower)
        np.testing.assert_array_equal(after.boxes[name].upper, before.boxes[name].upper)


def test_json_form_is_one_number_where_all_entries_agree() -> None:
    domain = resolve_domain({"x": (0, [1, np.inf])}, (X,), {})
    assert domain.to_json() == {"x": {"lower": 0.0, "upper": [[1.0, None]]}}


def test_given_domain_overrides_that_of_the_metadata() -> None:
    metadata = {DOMAIN_KEY: '{"x": {"lower": 0, "upper": 1}}'}
    assert resolve_domain(None, (X,), metadata).boxes["x"].upper.max() == 1.0
    assert resolve_domain("0:5", (X,), metadata).boxes["x"].upper.max() == 5.0
    assert resolve_domain("0:5", (X,), {DOMAIN_KEY: "garbage"}).boxes["x"].upper.max() == 5.0


@pytest.mark.parametrize(
    "text",
    [
        "garbage",
        "",
        "[1, 2]",
        "{}",
        "3",
        '{"x": 3}',
        '{"x": {"lower": 0}}',
        '{"x": {"lower": 0, "upper": 1, "uper": 2}}',
        '{"x": {"lower": 0, "upper": NaN}}',
        '{"x": {"lower": "0", "upper": 1}}',
        '{"x": {"lower": [[0], [1, 2]], "upper": 1}}',
        '{"x": {"lower": 0, "upper": 1}, "x": {"lower": 0, "upper": 2}}',
        '{"y": {"lower": 0, "upper": 1}}',
        '{"x": {"lower": ' + "[" * 100_000 + "]" * 100_000 + ', "upper": 1}}',
    ],
)
def test_garbage_in_the_metadata_names_its_key_and_the_flag_that_overrides_it(text: str) -> None:
    message = refusal(None, metadata={DOMAIN_KEY: text})
    assert DOMAIN_KEY in message
    assert "--domain" in message


@pytest.mark.parametrize(
    "text",
    [
        '{"lower": 0, "upper": [1, 2]}',
        '{"x": {"lower": 0, "upper": [[1, 2]]}}',
        '{"lower": [0, 0.0], "upper": [1, 2e0]}',
    ],
)
def test_json_file_bounds_its_inputs(tmp_path: Path, text: str) -> None:
    path = tmp_path / "box.json"
    path.write_text(text)
    assert boxes_of(path) == boxes_of(str(path)) == {"x": ([[0.0, 0.0]], [[1.0, 2.0]])}


def test_json_file_takes_null_and_infinity_for_an_unbounded_side(tmp_path: Path) -> None:
    path = tmp_path / "box.json"
    path.write_text('{"lower": [null, 0], "upper": Infinity}')
    assert boxes_of(path) == {"x": ([[-math.inf, 0.0]], [[math.inf, math.inf]])}


@pytest.mark.parametrize("separator", [".", "/"])
def test_npz_file_bounds_inputs_by_name(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "box.NPZ"
    with path.open("wb") as file:
        np.savez(
            file,
            **{f"in/a.b{separator}lower": np.zeros(2), f"in/a.b{separator}upper": np.float32(1)},
        )
    assert boxes_of(path, Input("in/a.b")) == {"in/a.b": ([[0.0, 0.0]], [[1.0, 1.0]])}


def test_npz_file_bounds_a_single_input_without_a_name(tmp_path: Path) -> None:
    path = tmp_path / "box.npz"
    np.savez(path, lower=np.array([0, 1], np.uint8), upper=np.array([[2, 3]]))
    assert boxes_of(path, X, Input("k", (1,), INT64)) == {"x": ([[0.0, 1.0]], [[2.0, 3.0]])}


def write_npz(path: Path, **arrays: Any) -> None:
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"lower": 0},
        {"low": 0, "high": 1},
        {"lower": np.array(["a"]), "upper": 1},
        {"lower": np.array([1, None], dtype=object), "upper": 1},
        {"lower": 0, "upper": np.array(True)},
        {"lower": np.nan, "upper": 1},
        {"x.lower": 0, "x/lower": 0, "x.upper": 1},
    ],
)
def test_npz_file_of_other_content_is_refused(tmp_path: Path, arrays: dict[str, Any]) -> None:
    path = tmp_path / "box.npz"
    np.savez(path, **arrays)
    assert "box.npz" in refusal(path)


@pytest.mark.parametrize("name", ["box.npz", "box.json", "box.vnnlib", "box.vnnlib.gz"])
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00garbage", b"PK\x03\x04cut off", b"(((", b"))"]
)
def test_file_that_is_not_what_its_name_says_is_refused(
    tmp_path: Path, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert name in refusal(path)


def test_single_array_named_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "box.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(2))
    assert "single array" in refusal(path)


@pytest.mark.parametrize("name", ["d.npz", "d.json", "d.vnnlib"])
def test_folder_in_place_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert name in refusal(tmp_path / name)


def test_domain_does_not_change_with_the_mapping_it_was_made_of() -> None:
    boxes = {"x": Box(np.zeros(1), np.ones(1))}
    domain = Domain(boxes, "test", declared=True)
    boxes.clear()
    assert "x" in domain.boxes
