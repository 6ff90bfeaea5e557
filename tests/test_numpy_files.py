"""Files of arrays, whole and tampered with."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest

from onnx_exact.runtime.numpy_files import read_arrays

ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


def files() -> dict[str, bytes]:
    single, archive, packed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(single, ARRAY)
    np.savez(archive, x=ARRAY, y=np.zeros(3))
    np.savez_compressed(packed, x=np.arange(60))
    return {"npy": single.getvalue(), "npz": archive.getvalue(), "packed": packed.getvalue()}


def test_arrays_are_read_by_name_or_alone(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(files()["npy"])
    assert read_arrays(path)[None].tolist() == ARRAY.tolist()
    path.write_bytes(files()["npz"])
    assert set(read_arrays(path)) == {"x", "y"}


@pytest.mark.parametrize("kind", files())
def test_file_that_was_tampered_with_is_read_or_refused(tmp_path: Path, kind: str) -> None:
    path, data, refused = tmp_path / "f", files()[kind], 0
    for number in range(400):
        rng = np.random.default_rng(number)
        changed = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            # Most of what can go wrong stands at the front.
            changed[int(rng.integers(min(len(changed), 128)))] = int(rng.integers(256))
        if number % 10 == 0:
            changed = changed[: int(rng.integers(len(changed)))]
        path.write_bytes(bytes(changed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            refused += _is_refused(path)
    assert refused > 100


def _is_refused(path: Path) -> bool:
    """Whether a file is refused, in one line that names it."""
    try:
        read_arrays(path)
    except ValueError as error:
        message = str(error)
    else:
        return False
    assert str(path) in message
    assert "\n" not in message
    return True


def test_header_whose_brackets_do_not_close_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.npy"
    path.write_bytes(files()["npy"].replace(b"(2, 3)", b"(2, 3("))
    with pytest.raises(ValueError, match=r"not a readable \.npy or \.npz file"):
        read_arrays(path)
