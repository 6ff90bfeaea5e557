"""Models in onnxruntime: loaded, run, and with tensors inside of them as further outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, ValueInfoProto

from onnx_exact.errors import ModelError, ValidationError
from onnx_exact.inputs.feeds import Feed

LONGEST_REASON = 500
# Where a model that is given as bytes has its external data (onnxruntime's session options).
EXTERNAL_DATA_FOLDER = "session.model_external_initializers_file_folder_path"


class Session:
    """One model loaded in onnxruntime, on one thread, silent.

    Attributes:
        inputs: the names of what has to be fed.
        outputs: those of what it puts out.
    """

    def __init__(
        self,
        model: bytes | Path,
        kind: type[ModelError | ValidationError],
        name: str,
        *,
        folder: Path | None = None,
        optimized: bool = True,
    ) -> None:
        """Loads a model.

        Args:
            model: serialized, or a path.
            kind: of the error where onnxruntime cannot load it.
            name: of the model in that error.
            folder: where a serialized model has its external data.
            optimized: whether onnxruntime may rewrite the graph, as it does for users.

        Raises:
            ModelError, ValidationError: onnxruntime cannot load it.
        """
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        if folder is not None:
            options.add_session_config_entry(EXTERNAL_DATA_FOLDER, str(folder))
        if not optimized:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        source = str(model) if isinstance(model, Path) else model
        try:
            # Without the fallback, which prints what went wrong to the standard output.
            self._session = ort.InferenceSession(
                source, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except errors() as error:
            raise kind(f"onnxruntime cannot load {name}: {one_line(error)}") from error
        self.outputs = [output.name for output in self._session.get_outputs()]
        self.inputs = [value.name for value in self._session.get_inputs()]
        self._run_options = ort.RunOptions()
        self._run_options.log_severity_level = 4

    def run(self, feed: Feed) -> dict[str, Any]:
        """The outputs by name; what onnxruntime raises is one of `errors()`."""
        values = self._session.run(None, feed, self._run_options)
        return dict(zip(self.outputs, values, strict=True))


def leaves(outputs: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Outputs by name, members of sequences and maps as outputs of their own."""
    return dict(leaf for name, value in outputs.items() for leaf in _leaves(name, value))


def _leaves(name: str, value: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(f"{name}[{index}]", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(f"{name}[{key!r}]", item)
    else:
        yield name, np.asarray(value)


def tapped(
    model: bytes | Path,
    tensors: Sequence[str],
    kind: type[ModelError | ValidationError],
    name: str,
) -> Session:
    """A model with more tensors among its outputs.

    Two messages of protobuf one after the other are the two merged, so that outputs are added
    without a second copy of the weights in memory.

    Args:
        model, kind, name: as `Session` takes them.
        tensors: of the main graph.
    """
    more = GraphProto(output=[ValueInfoProto(name=tensor) for tensor in tensors])
    data = model.read_bytes() if isinstance(model, Path) else model
    folder = model.parent if isinstance(model, Path) else None
    return Session(data + ModelProto(graph=more).SerializeToString(), kind, name, folder=folder)


def errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises for a model or an input that it cannot take."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [value for value in vars(state).values() if isinstance(value, type)]
    raised = tuple(kind for kind in own if issubclass(kind, Exception))
    return (*raised, RuntimeError, ValueError, TypeError)


def one_line(error: BaseException) -> str:
    """The message of an error on one line."""
    return " ".join(str(error).split())[:LONGEST_REASON]
