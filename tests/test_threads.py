"""Numpy's products take one thread where they are told to, and as many as before afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from onnx_exact.runtime.threads import one_thread


def threads_of_numpy() -> set[int]:
    """How many threads the BLAS that came with numpy may take."""
    packages = Path(np.__file__).parents[1]
    return {
        library["num_threads"]
        for library in threadpool_info()
        if library["user_api"] == "blas"
        and Path(library["filepath"]).parent.name in ("numpy.libs", "numpy")
        and packages in Path(library["filepath"]).parents
    }


def test_numpy_takes_one_thread_within_and_as_many_as_before_afterwards() -> None:
    if not threads_of_numpy():
        pytest.skip("numpy came without a BLAS of its own")
    with threadpool_limits(2):
        with one_thread():
            assert threads_of_numpy() == {1}
        assert threads_of_numpy() == {2}
