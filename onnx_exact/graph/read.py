"""Loads and checks a model, and names what is wrong with one that cannot be used."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from onnx import ModelProto
from onnx.external_data_helper import (
    ExternalDataInfo,
    load_external_data_for_model,
    uses_external_data,
)

from onnx_exact.errors import ModelError
from onnx_exact.graph.index import FLOATS
from onnx_exact.graph.order import sort_nodes
from onnx_exact.graph.sizes import contradiction, declared_inputs, without_odd_sizes
from onnx_exact.graph.stored import misfit, repeated, tensors_of
from onnx_exact.graph.texts import unreadable_text
from onnx_exact.runtime.outputs import real

# Messages of other libraries are cut to one line of at most this many characters.
LONGEST_REASON = 300


@dataclass(frozen=True)
class InputSpec:
    """An input a user has to feed.

    Attributes:
        name: its name.
        shape: its sizes, None for each that is not fixed; None where not even the rank is known.
        elem_type: ONNX element type, 0 for what is no tensor.
    """

    name: str
    shape: tuple[int | None, ...] | None
    elem_type: int

    @property
    def is_float(self) -> bool:
        """Whether a domain can say something about this input."""
        return self.elem_type in FLOATS


@dataclass(frozen=True, eq=False)
class Source:
    """A model as it was given.

    Attributes:
        model: with external data loaded and the nodes sorted; nobody else holds this object.
        path: its file, None for a model in memory.
        sha256: of the file, or of the deterministic serialization of a model in memory.
        nbytes: size of the file and of its external data.
        locations: of its external data, from the file's folder on.
        warnings: what is wrong with it that keeps no runtime from running it, a line each.
        changed: whether the model is no longer that of the file.
    """

    model: ModelProto
    path: Path | None
    sha256: str
    nbytes: int
    locations: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    changed: bool = False

    @property
    def file(self) -> Path | None:
        """The file that holds the model; None where none does."""
        return None if self.changed else self.path


def read_model(model_or_path: ModelProto | str | os.PathLike[str]) -> Source:
    """Loads and checks a model.

    Raises:
        ModelError: it is missing, no ONNX file, lacks its external data, holds a tensor that is not
            all there, or fails the ONNX checker and onnxruntime cannot load it either.
    """
    if isinstance(model_or_path, ModelProto):
        return _from_memory(model_or_path)
    return _from_file(Path(model_or_path))


def inputs_of(model: ModelProto) -> tuple[InputSpec, ...]:
    """The inputs to feed: those of the graph that no initializer gives a value."""
    given = {tensor.name for tensor in model.graph.initializer}
    given |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    specs = []
    for value in declared_inputs(model):
        if value.name in given:
            continue
        if not value.type.HasField("tensor_type"):
            specs.append(InputSpec(value.name, None, 0))
            continue
        tensor = value.type.tensor_type
        shape = None
        if tensor.HasField("shape"):
            dims = tensor.shape.dim
            shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)
        specs.append(InputSpec(value.name, shape, tensor.elem_type))
    return tuple(specs)


def external_files(model: ModelProto) -> tuple[str, ...]:
    """Locations of the external data of a model whose external data is not loaded."""
    return tuple(
        dict.fromkeys(
            ExternalDataInfo(tensor).location
            for tensor in tensors_of(model)
            if uses_external_data(tensor)
        )
    )


def one_line(error: BaseException) -> str:
    """What another library's exception says, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 3] + "..."


def is_spelled(path: Path) -> bool:
    """Whether other libraries can be given the path: only one in UTF-8."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def readable(model: ModelProto, path: Path | None) -> bytes | Path:
    """A model as other libraries can read it: its file, or its bytes where its path is not UTF-8.

    Raises:
        ModelError: it is too large for bytes.
    """
    if path is not None and is_spelled(path):
        return path
    try:
        data: bytes = model.SerializeToString()
    except (EncodeError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be given to onnxruntime: it is above 2 GB and its path is not UTF-8;"
            " move it"
        ) from error
    return data


def _from_memory(given: ModelProto) -> Source:
    model = ModelProto()
    model.CopyFrom(given)
    if external_files(model):
        raise ModelError(
            "the model's external data is not loaded; load it with onnx.load or pass the file name"
        )
    try:
        data = model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise ModelError(
            f"the model cannot be serialized ({one_line(error)}); above 2 GB save it with"
            " external data and pass the file name"
        ) from error
    warnings = _checked(model, data, "the model")
    return Source(model, None, hashlib.sha256(data).hexdigest(), len(data), warnings=warnings)


def _from_file(path: Path) -> Source:
    data = _bytes_of(path)
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(
            f"{path} is no ONNX file, or a truncated one: it does not parse"
        ) from error
    if not model.ir_version or not model.HasField("graph"):
        raise ModelError(f"{path} is no ONNX file: it holds no graph")
    place = unreadable_text(model)
    if place is not None:
        raise ModelError(f"{path}: its {place} is no text in UTF-8; export the model again")
    locations = external_files(model)
    path = _beside_its_data(path, locations)
    if locations and not is_spelled(path):
        raise ModelError(
            f"{path}: external data can be read from a path in UTF-8 alone; move the model"
        )
    size = len(data) + sum(_external_size(path, location) for location in locations)
    try:
        load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path}: its external data cannot be read: {one_line(error)}") from error
    if locations:
        for tensor in tensors_of(model):
            tensor.ClearField("data_location")
    whole: bytes | Path = data
    if locations:
        # Only what lies in other files has to be looked for from the path, which takes longer.
        whole = path
    warnings = _checked(model, whole, str(path))
    digest = hashlib.sha256(data).hexdigest()
    return Source(model, path, digest, size, locations, warnings)


def _checked(model: ModelProto, whole: bytes | Path, name: str) -> tuple[str, ...]:
    """Checks a model, and sorts its nodes where they are not; warnings.

    Args:
        model: its external data loaded.
        whole: the same as bytes, or its file.
        name: for errors.
    """
    wrong = misfit(model) or repeated(model) or contradiction(model)
    if wrong is not None:
        raise ModelError(f"{name}: {wrong}; export the model again")
    try:
        check(model, whole)
    except CHECKER_ERRORS as error:
        if not (_is_loaded_by_runtime(whole) and sort_nodes(model.graph)):
            raise ModelError(f"{name} fails the ONNX checker: {one_line(error)}") from error
        return (f"the model fails the ONNX checker, though onnxruntime runs it: {one_line(error)}",)
    return ()


def check(model: ModelProto, whole: bytes | Path) -> None:
    """The ONNX checker.

    Args:
        model: its external data loaded.
        whole: the same as bytes, or its file.

    Raises:
        Exception: one of `CHECKER_ERRORS`.
    """
    harmless = without_odd_sizes(model)
    if harmless is not None:
        onnx.checker.check_model(harmless, full_check=True)
    else:
        given = str(whole) if isinstance(whole, Path) else whole
        onnx.checker.check_model(given, full_check=True)


def _beside_its_data(path: Path, locations: tuple[str, ...]) -> Path:
    """The path, or the file that it links to where the external data lies beside that alone."""
    followed = real(path)
    there = all((followed.parent / location).is_file() for location in locations)
    here = all((path.parent / location).is_file() for location in locations)
    return followed if there and not here else path


CHECKER_ERRORS = (
    EncodeError,
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
    RuntimeError,
    ValueError,
    TypeError,
)


def _is_loaded_by_runtime(model: bytes | Path) -> bool:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        # Without the fallback, which prints what went wrong to the standard output.
        onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception:
        # Whatever it raises, it says no.
        return False
    return True


def _bytes_of(path: Path) -> bytes:
    if path.is_dir():
        raise ModelError(f"{path} is a folder; give an ONNX file")
    if path.exists() and not path.is_file():
        # It would be read more than once, or without an end.
        raise ModelError(f"{path} is no regular file; give an ONNX file")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    if not data:
        raise ModelError(f"{path} is empty; give an ONNX file")
    return data


def _external_size(path: Path, location: str) -> int:
    file = path.parent / location
    if not file.is_file():
        raise ModelError(
            f"{path}: its external data {location!r} is missing; put it beside the model"
        )
    return file.stat().st_size
