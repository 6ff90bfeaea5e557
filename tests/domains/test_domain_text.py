"""Domains that are easy to give: by channel, normalised outside, around data, of one input."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from domain_inputs import FLOAT16, FLOAT32, INT64, Input
from hypothesis import given
from hypothesis import strategies as st

from onnx_exact.domains import resolve_domain
from onnx_exact.errors import DomainError
from onnx_exact.network import Box

IMAGE = Input("image", (None, 3, 2, 2))


def box_of(text: str, *inputs: Input) -> Box:
    return resolve_domain(text, inputs, {}).boxes[inputs[0].name]


def refusal(text: str, *inputs: Input) -> str:
    with pytest.raises(DomainError) as caught:
        resolve_domain(text, inputs, {})
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("--domain ")
    return message


@pytest.mark.parametrize("name", ["", "image="])
def test_ranges_with_commas_are_those_of_channels(name: str) -> None:
    box = box_of(f"{name}0:1,-1:2, -inf:0", IMAGE)
    assert box.lower.shape == (1, 3, 2, 2)
    for channel, (low, high) in enumerate([(0.0, 1.0), (-1.0, 2.0), (-math.inf, 0.0)]):
        assert (box.lower[0, channel] == low).all()
        assert (box.upper[0, channel] == high).all()


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((None, 2), 1),
        ((2,), 0),
        ((1, 4, 4, 2), 3),
        ((1, 2, 2, 2), 1),
        ((1, 1, 1, 2), 3),
        ((5, 2), 1),
    ],
)
def test_channels_are_axis_1_or_the_last_where_only_that_is_as_long(
    shape: tuple[int | None, ...], axis: int
) -> None:
    box = box_of("0:1,2:3", Input("x", shape))
    lows = np.moveaxis(box.lower, axis, 0)
    assert (lows[0] == 0.0).all()
    assert (lows[1] == 2.0).all()


@pytest.mark.parametrize("shape", [None, (), (None, 12), (None, None, 4), (3, 4)])
def test_ranges_that_no_axis_has_as_many_channels_for_are_refused(
    shape: tuple[int | None, ...] | None,
) -> None:
    assert "neither axis 1 nor the last" in refusal("0:1,0:1,0:1", Input("x", shape))


NORMALISED = "0:1:mean=0.485,0.456,0.406:std=0.229,0.224,0.225"


def test_normalised_image_is_given_by_its_pixels() -> None:
    box = box_of(NORMALISED, Input("image", (1, 3, 2, 2), FLOAT32))
    for channel, (mean, std) in enumerate(
        [("0.485", "0.229"), ("0.456", "0.224"), ("0.406", "0.225")]
    ):
        low, high = (float((x - Fraction(mean)) / Fraction(std)) for x in (0, 1))
        assert (box.lower[0, channel] < low).all()
        assert (box.upper[0, channel] > high).all()
        np.testing.assert_allclose(box.lower[0, channel], low, rtol=1e-5)
        np.testing.assert_allclose(box.upper[0, channel], high, rtol=1e-5)


def test_one_mean_for_all_of_a_flat_input() -> None:
    box = box_of("x=0:255:mean=127.5:std=127.5", Input("x", (None, 4), FLOAT32))
    assert box.lower.shape == (1, 4)
    np.testing.assert_allclose(box.lower, -1.0, rtol=1e-5)
    np.testing.assert_allclose(box.upper, 1.0, rtol=1e-5)


numbers = st.floats(min_value=1e-3, max_value=1e3)


@given(st.floats(-1e3, 1e3), numbers, st.floats(-1e3, 1e3), numbers, st.floats(0, 1))
@pytest.mark.parametrize("elem_type", [FLOAT32, FLOAT16])
def test_whatever_normalises_in_the_inputs_type_stays_in_the_box(
    elem_type: int, low: float, width: float, mean: float, std: float, at: float
) -> None:
    dtype: Any = {FLOAT32: np.float32, FLOAT16: np.float16}[elem_type]
    high = low + width
    text = f"{low!r}:{high!r}:mean={mean!r}:std={std!r}"
    try:
        box = box_of(text, Input("x", (1,), elem_type))
    except DomainError:
        return  # beyond float16
    with np.errstate(over="ignore", invalid="ignore"):
        x, m, s = dtype(min(low + at * width, high)), dtype(mean), dtype(std)
        found = [(x - m) / s, x * (dtype(1) / s) - m / s, (x - m) * (dtype(1) / s)]
        found += [dtype(dtype(dtype(e - mean) / dtype(std))) for e in (low, high)]
    for value in found:
        if np.isfinite(value):
            assert box.lower <= float(value) <= box.upper


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0:1:mean=0:std=0", "std is positive"),
        ("0:1:mean=0:std=-1", "std is positive"),
        ("0:1:mean=nan:std=1", "finite"),
        ("0:1:mean=0,1:std=1,2,3", "one a channel"),
        ("0:1,0:1:mean=0,0,0:std=1", "one a channel"),
        ("1:0:mean=0:std=1", "lower bound exceeds"),
        ("nan:0:mean=0:std=1", "nan"),
        ("0:1:mean=0", "neither a range"),
        ("0:1:std=1", "neither a range"),
        ("0:1:std=1:mean=0", "neither a range"),
        ("0:1,", "neither a range"),
        ("0:1,1e999:2,0:1", "beyond float64"),
        ("0:1,0:1,1:0", "lower bound exceeds"),
    ],
)
def test_unusable_ranges_are_refused_in_one_line(text: str, words: str) -> None:
    assert words in refusal(text, IMAGE)


@pytest.fixture
def points(tmp_path: Path) -> Path:
    path = tmp_path / "points.npy"
    np.save(path, np.array([[0.0, 5.0], [1.0, -2.0], [0.5, 3.0]]))
    return path


def test_data_gives_the_box_around_its_points_and_says_so(points: Path) -> None:
    domain = resolve_domain(f"data:{points}", (Input(),), {})
    assert domain.boxes["x"].lower.tolist() == [[0.0, -2.0]]
    assert domain.boxes["x"].upper.tolist() == [[1.0, 5.0]]
    assert "the box around 3 points: no input outside of it is covered" in domain.source


@pytest.mark.parametrize("name", ["", "x="])
def test_margin_widens_every_side(points: Path, name: str) -> None:
    box = box_of(f"{name}data:{points}:0.25", Input())
    for found, wanted in ((box.lower, [[-0.25, -2.25]]), (box.upper, [[1.25, 5.25]])):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
    assert (box.lower < [[-0.25, -2.25]]).all()


@given(
    st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=8),
    st.floats(0, 1e30),
)
def test_every_point_and_its_margin_lie_in_the_box(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], margin: float
) -> None:
    path = tmp_path_factory.mktemp("data") / "p.npy"
    np.save(path, np.array(values)[:, None])
    box = box_of(f"data:{path}:{margin!r}", Input("x", (None, 1), FLOAT32))
    assert Fraction(float(box.lower.item())) <= Fraction(min(values)) - Fraction(margin)
    assert Fraction(float(box.upper.item())) >= Fraction(max(values)) + Fraction(margin)


def test_images_in_whole_numbers_and_larger_integers_are_data(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    np.save(path, np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2))
    assert box_of(f"data:{path}", IMAGE).upper.max() == 23.0
    np.save(path, np.array([[2**60 + 1]]))
    box = box_of(f"data:{path}", Input("x", (None, 1)))
    assert int(box.lower.item()) < 2**60 + 1 < int(box.upper.item())


def test_entries_of_an_input_without_a_batch_have_their_own_bounds(tmp_path: Path) -> None:
    path = tmp_path / "points.npy"
    np.save(path, np.array([[0.0, 5.0, 1.0], [1.0, -2.0, 1.0]]))
    box = box_of(f"data:{path}", Input("x", (3,)))
    assert box.lower.tolist() == [0.0, -2.0, 1.0]


def test_data_of_an_archive_belongs_to_the_inputs_of_its_names(tmp_path: Path) -> None:
    path = tmp_path / "points.npz"
    a, b, k = Input("a", (None, 1)), Input("b", (None, 1)), Input("k", (None, 1), INT64)
    np.savez(path, a=np.zeros((2, 1)), b=np.ones((2, 1)), k=np.ones((2, 1), np.int64))
    boxes = resolve_domain(f"data:{path}", (a, b, k), {}).boxes
    assert (boxes["a"].upper.item(), boxes["b"].lower.item()) == (0.0, 1.0)
    assert set(boxes) == {"a", "b"}
    assert box_of(f"b=data:{path}", b, a, k).lower.item() == 1.0
    np.savez(path, images=np.ones((2, 1)))
    assert box_of(f"data:{path}", a).lower.item() == 1.0
    assert "images" in refusal(f"data:{path}:0", b, a).replace("say which", "images")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((0, 2)), "no points"),
        (np.zeros((3, 5)), "do not fill"),
        (np.array(["a", "b"]), "do not fill"),
        (np.array([[1.0, np.nan]]), "nan or infinite"),
        (np.array([[1.0, np.inf]]), "nan or infinite"),
    ],
)
def test_data_that_are_no_points_are_refused(tmp_path: Path, array: Any, words: str) -> None:
    path = tmp_path / "points.npy"
    np.save(path, array)
    assert words in refusal(f"data:{path}", Input())


def test_other_refusals_of_data_are_one_line(points: Path, tmp_path: Path) -> None:
    assert "No such file" in refusal("data:missing.npy", Input())
    assert "margin" in refusal(f"data:{points}:-1", Input())
    assert "margin" in refusal(f"data:{points}:inf", Input())
    assert f"data:{points}" in refusal(str(points), Input())
    assert "no input 'y'" in refusal(f"y=data:{points}", Input())
    assert "say which" in refusal(f"data:{points}", Input("a"), Input("b"))
    (tmp_path / "text.npy").write_text("no numbers")
    assert "text.npy" in refusal(f"data:{tmp_path / 'text.npy'}", Input())


def test_file_bounds_the_input_in_front_of_it(tmp_path: Path) -> None:
    a, b = Input("a=b", (1,)), Input("a", (1,))
    plain, named = tmp_path / "plain.json", tmp_path / "named.json"
    plain.write_text('{"lower": 0, "upper": 1}')
    named.write_text(json.dumps({"a": {"lower": 2, "upper": 3}, "c": {"lower": 2, "upper": 3}}))
    boxes = resolve_domain([f"a=b={plain}", f"a={named}"], (a, b), {}).boxes
    assert (boxes["a=b"].upper.item(), boxes["a"].upper.item()) == (1.0, 3.0)
    npz = tmp_path / "box.npz"
    np.savez(npz, lower=np.zeros(1), upper=np.ones(1))
    assert box_of(f"a={npz}", b, a).upper.item() == 1.0
    assert "bounds of 'a', 'c', none of 'a=b'" in refusal(f"a=b={named}", a, b)
    assert "no input 'z'" in refusal(f"z={plain}", a, b)


def test_vnnlib_file_bounds_the_input_in_front_of_it(tmp_path: Path) -> None:
    path = tmp_path / "spec.vnnlib"
    path.write_text(
        "(declare-const X_0 Real)(declare-const Y_0 Real)"
        "(assert (or (and (>= X_0 0) (<= X_0 1)) (and (>= X_0 2) (<= X_0 3))))"
    )
    box = box_of(f"b={path}", Input("b", (1, 1)), Input("a", (1, 7)))
    assert (box.lower.item(), box.upper.item()) == (0.0, 3.0)


def test_file_whose_name_has_an_equals_sign_is_still_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("eps=0.1.json").write_text('{"lower": 0, "upper": 1}')
    assert box_of("eps=0.1.json", Input()).upper.max() == 1.0
    np.save("eps=1.npy", np.zeros((1, 2)))
    assert box_of("data:eps=1.npy", Input()).upper.max() == 0.0
