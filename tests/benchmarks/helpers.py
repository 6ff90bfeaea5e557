"""Random layers, their forward pass in numpy and that of a file in onnxruntime."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.training.export import Layer

FLOAT32_RTOL = 1e-5
FLOAT32_ATOL = 1e-5


def random_layers(widths: list[int], seed: int = 0) -> list[Layer]:
    rng = np.random.default_rng(seed)
    return [
        (
            rng.standard_normal((fan_out, fan_in)).astype(np.float32),
            rng.standard_normal(fan_out).astype(np.float32),
        )
        for fan_in, fan_out in itertools.pairwise(widths)
    ]


def forward(layers: list[Layer], x: NDArray[np.float32]) -> NDArray[np.float64]:
    values = x.astype(np.float64)
    for i, (weight, bias) in enumerate(layers):
        values = values @ weight.astype(np.float64).T + bias.astype(np.float64)
        if i < len(layers) - 1:
            values = np.maximum(values, 0.0)
    return values


def run_onnx(path: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    output = session.run(None, {"input": x})[0]
    assert isinstance(output, np.ndarray)
    return output
