"""How long models take in onnxruntime on one thread, measured in turn: load hits all alike."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

BATCHES = (1, 256)
ROUNDS = 200
# Calls in one go: so many that it takes about this long. The shorter a go, the likelier that no
# other process comes in between.
GO_SECONDS = 0.001


class Runner:
    """A model of one input and one output, loaded."""

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._model = model
        data = model.SerializeToString()
        self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        # Up to IR version 3 initializers are inputs too; the real ones come without a value.
        given = {tensor.name for tensor in model.graph.initializer}
        self._input = next(i for i in self._session.get_inputs() if i.name not in given)

    @property
    def shape(self) -> list[int | str | None]:
        """The declared shape of the input."""
        return list(self._input.shape)

    def sized(self, batch: int) -> Runner | None:
        """This model, or a copy whose first axis is free, where one runs at this size."""
        first = self.shape[0]
        if not isinstance(first, int) or first == batch:
            return self
        copy = onnx.ModelProto()
        copy.CopyFrom(self._model)
        del copy.graph.value_info[:]
        inputs = (value for value in copy.graph.input if value.name == self._input.name)
        for value in (*inputs, *copy.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        try:
            freed = Runner(copy)
            freed.run(np.zeros((batch, *self.sample_shape()), dtype=np.float32))
        except (state.Fail, state.InvalidArgument, state.InvalidGraph, state.RuntimeException):
            # A size is written into the graph.
            return None
        return freed

    def sample_shape(self) -> tuple[int, ...]:
        """The input's shape without its first axis; axes of unknown size count as 1."""
        return tuple(size if isinstance(size, int) else 1 for size in self.shape[1:])

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """The output for one feed."""
        output: NDArray[Any] = self._session.run(None, {self._input.name: batch})[0]
        return output

    def outputs(self, samples: NDArray[Any]) -> NDArray[Any]:
        """The outputs for many samples, in batches as large as the model takes them."""
        first = self.shape[0]
        size = first if isinstance(first, int) else max(BATCHES)
        count = -(-len(samples) // size) * size
        # A fixed batch is filled up with the last sample.
        index = np.minimum(np.arange(count), len(samples) - 1)
        whole = np.ascontiguousarray(samples[index])
        parts = [self.run(whole[at : at + size]) for at in range(0, count, size)]
        flat = np.concatenate([part.reshape(size, -1) for part in parts])
        return np.asarray(flat[: len(samples)])

    def seconds(self, batch: NDArray[Any], calls: int) -> float:
        """The mean time of one call."""
        start = time.perf_counter()
        for _ in range(calls):
            self.run(batch)
        return (time.perf_counter() - start) / calls


def latencies(
    runners: Mapping[str, Runner],
    dtype: np.dtype[Any],
    seed: int,
    batches: Sequence[int] = BATCHES,
) -> dict[str, list[float | None]]:
    """The least mean time of a call, in seconds, for each model and each size of the batch."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[float | None]] = {name: [] for name in runners}
    for size in batches:
        sized = {name: runner.sized(size) for name, runner in runners.items()}
        able = {name: runner for name, runner in sized.items() if runner is not None}
        raced = _race(able, size, dtype, rng) if len(able) == len(sized) else {}
        for name, times in found.items():
            times.append(raced.get(name))
    return found


def _race(
    runners: Mapping[str, Runner], size: int, dtype: np.dtype[Any], rng: np.random.Generator
) -> dict[str, float]:
    shape = (size, *next(iter(runners.values())).sample_shape())
    batch = rng.random(shape).astype(dtype)
    calls = {n: max(1, int(GO_SECONDS / r.seconds(batch, 3))) for n, r in runners.items()}
    least = dict.fromkeys(runners, np.inf)
    for _ in range(ROUNDS):
        for name, runner in runners.items():
            least[name] = min(least[name], runner.seconds(batch, calls[name]))
    return least
