"""The points that a user gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_exact.domains import resolve_domain
from onnx_exact.errors import UsageError
from onnx_exact.inputs.samples import Samples, load_samples

Shape = tuple[int | None, ...] | None


@dataclass(frozen=True)
class Input:
    name: str = "x"
    shape: Shape = (None, 3)
    elem_type: int = 1

    @property
    def is_float(self) -> bool:
        return self.elem_type in (1, 10, 11)


X = Input()


def load(samples: Any, *inputs: Input, domain: Any = None) -> Samples:
    inputs = inputs or (X,)
    return load_samples(samples, inputs, resolve_domain(domain, inputs, {}))


@pytest.mark.parametrize(
    ("shape", "given", "rows", "points"),
    [
        ((None, 3), (5, 3), (5, 3), 5),
        ((1, 3), (5, 3), (5, 3), 5),
        ((1, 3), (5, 1, 3), (5, 3), 5),
        ((2, 3), (6, 3), (6, 3), 3),
        ((2, 3), (5, 2, 3), (10, 3), 5),
        ((None, 4), (5, 2, 2), (5, 4), 5),
        ((None, 1, 2, 2), (5, 4), (5, 1, 2, 2), 5),
        ((None, None, 3), (5, 9, 3), (5, 9, 3), 5),
        ((3,), (5, 3), (15,), 5),
        ((None,), (5,), (5,), 5),
        ((), (5,), (5,), 5),
    ],
)
def test_points_of_every_shape_become_rows_of_the_input(
    shape: Shape, given: tuple[int, ...], rows: tuple[int, ...], points: int
) -> None:
    values = np.arange(np.prod(given)).reshape(given)
    found = load(values, Input("x", shape))
    assert found.rows["x"].shape == rows
    assert found.rows["x"].dtype == np.float32
    assert found.rows["x"].ravel().tolist() == values.ravel().tolist()
    assert (found.points, found.dropped) == (points, 0)


def test_npy_file_belongs_to_the_only_input(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.zeros((2, 3)))
    for path in (tmp_path / "s.npy", str(tmp_path / "s.npy")):
        assert load(path).points == 2


def test_only_array_of_an_npz_file_belongs_to_the_only_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", images=np.zeros((2, 3), np.uint8))
    assert load(tmp_path / "s.npz", X, Input("k", (1,), 7)).points == 2


def test_npz_file_has_an_array_for_each_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", x=np.zeros((2, 3)), y=np.ones((2, 1)), k=np.zeros((2, 1), int))
    inputs = (X, Input("y", (None, 1), 11), Input("k", (None, 1), 7))
    rows = load(tmp_path / "s.npz", *inputs).rows
    assert {name: array.dtype for name, array in rows.items()} == {
        "x": np.float32,
        "y": np.float64,
        "k": np.int64,
    }


def test_points_outside_the_domain_are_dropped_and_counted() -> None:
    values = np.array([[0, 0, 0], [0, 2, 0], [1, 1, 1], [-1, 0, 0]])
    found = load(values, domain="0:1")
    assert found.rows["x"].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert (found.points, found.dropped) == (2, 2)
    found = load(
        values, Input("x", (2, 3)), domain=([[0, 0, 0], [0, 0, 0]], [[1, 1, 1], [9, 9, 9]])
    )
    assert (found.points, found.dropped) == (1, 1)
    assert found.rows["x"].tolist() == [[0, 0, 0], [0, 2, 0]]


def test_points_at_the_ends_of_the_domain_stay_inside_in_float32() -> None:
    assert load(np.full((2, 3), 0.1), domain="0.1:0.1").points == 2
    assert load(np.full((2, 3), 0.1, np.float32), domain="0:0.1").points == 2


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros((2, 4)), "do not fill"),
        (np.zeros(3), "do not fill"),
        (np.zeros(()), "do not fill"),
        (np.zeros((0, 3)), "no points"),
        (np.full((1, 3), np.nan), "nan"),
        (np.full((1, 3), np.inf), "infinite"),
        (np.full((1, 3), 1e300), "beyond float32"),
        (np.array([["a", "b", "c"]]), "element type"),
        (np.zeros((1, 3), complex), "element type"),
        ({"x": np.zeros((1, 3)), "z": np.zeros(1)}, "'z'"),
        ({}, "expected one array"),
        (np.full((4, 3), 9.0), "all 4 points lie outside"),
        ("missing.npy", "No such file"),
    ],
)
def test_unusable_samples_are_refused_in_one_line(samples: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(samples, domain="0:1")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_inputs_without_an_array_or_with_another_count_are_refused() -> None:
    two = (X, Input("y", (None, 1)))
    with pytest.raises(UsageError, match="none for 'y'"):
        load({"x": np.zeros((2, 3))}, *two)
    with pytest.raises(UsageError, match="equally many"):
        load({"x": np.zeros((2, 3)), "y": np.zeros((3, 1))}, *two)
    with pytest.raises(UsageError, match="expected one array"):
        load(np.zeros((2, 3)), *two)


def test_rows_that_do_not_fill_a_fixed_batch_are_refused() -> None:
    with pytest.raises(UsageError, match="do not fill"):
        load(np.zeros((5, 3)), Input("x", (2, 3)))


def test_points_for_an_input_of_unknown_rank_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown rank"):
        load(np.zeros((5, 3)), Input("x", None))


def test_integers_that_do_not_fit_are_refused() -> None:
    inputs = (X, Input("k", (None, 1), 6))
    with pytest.raises(UsageError, match="beyond int32"):
        load({"x": np.zeros((1, 3)), "k": np.array([[2**40]])}, *inputs)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x93NUMPY\x01\x00", b"PK\x03\x04"])
@pytest.mark.parametrize("name", ["s.npy", "s.npz"])
def test_file_that_is_no_array_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=name):
        load(tmp_path / name)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(UsageError, match="not a readable"):
        load(tmp_path / "s.npy")
