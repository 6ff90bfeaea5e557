"""A small network as a file, for tests of commands and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from tests.verifier.build import gemm_model


def network(path: Path, removable: bool = True) -> Path:
    """y = W2 relu(W1 x + b1), 4 inputs, 8 units, 2 outputs.

    Over [0, 1] four units are never positive if `removable`, and all are unstable otherwise.
    """
    rng = np.random.default_rng(0)
    first = rng.standard_normal((8, 4))
    bias = np.full(8, -0.01)
    if removable:
        first[:3] = -np.abs(first[:3])
    else:
        first[:, 0] = np.abs(first[:, 0]) + 1.0
        bias[:] = -0.5
    last = rng.standard_normal((2, 8)).tolist(), [0.0, 0.0], False
    onnx.save(gemm_model([(first.tolist(), bias.tolist(), True), last]), path)
    return path
