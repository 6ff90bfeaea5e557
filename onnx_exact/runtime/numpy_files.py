"""Reads .npy and .npz files, with one line for whatever is wrong with them."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_arrays(path: Path) -> dict[str | None, NDArray[Any]]:
    """The arrays of an .npz archive by their names, or that of an .npy file under None.

    Raises:
        ValueError: a file that cannot be read as either; one line that names it.
    """
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {None: loaded}
            with loaded:
                return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    except (
        *(ValueError, EOFError, KeyError, MemoryError, NotImplementedError, SyntaxError),
        *(OverflowError, RecursionError, TypeError, zipfile.BadZipFile, zlib.error),
        # The header is read as Python; one with brackets that do not close is no SyntaxError.
        tokenize.TokenError,
    ) as error:
        raise ValueError(f"{path}: not a readable .npy or .npz file of numbers") from error
