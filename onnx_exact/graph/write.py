"""Writes a model: into a temporary folder, checked there, then moved to its place."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from onnx import ModelProto
from onnx.external_data_helper import convert_model_to_external_data, write_external_data_tensors

from onnx_exact.errors import ModelError, OutputError
from onnx_exact.graph.read import Source, external_files, one_line, tensors_of

# What one protobuf message can hold.
LARGEST_MESSAGE = 2**31 - 1
# What everything but the raw data of the tensors may need in a message with no external data.
STRUCTURE_ALLOWANCE = 2**24
# Tensors below this many bytes stay in the model's file (the default of onnx.save).
EXTERNAL_FROM_BYTES = 1024


def write_model(
    model: ModelProto, path: Path, *, source: Source, check: Callable[[Path], None]
) -> None:
    """Writes `model` to `path`, replacing what is there, once it has passed every check.

    External data goes to one file `<name>.data` beside it: where the source had external data, and
    where the model is too large for one file. Nothing is left behind on any failure.

    Args:
        model: complete, its external data loaded.
        path: where it goes.
        source: what it was made from.
        check: called with the file to check before it is moved; what it raises is passed on.

    Raises:
        OutputError: the file cannot be written there.
        ModelError: the new model fails the ONNX checker.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give a file name for the output")
    _refuse_to_overwrite_data(source, path)
    with _reported(path), _folder_beside(path) as folder:
        file = folder / path.name
        _save(model, file, external=source.external or _too_large(model))
        try:
            onnx.checker.check_model(str(file), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ModelError(f"the new model fails the ONNX checker: {one_line(error)}") from error
        check(file)
        # The data first: until the model is there, nobody reads it.
        for made in sorted(folder.iterdir(), key=lambda f: f == file):
            os.replace(made, path.parent / made.name)


def copy_unchanged(source: Source, path: Path, stamped: bytes | None = None) -> None:
    """Writes the source to `path` as it was, byte for byte, with its external data.

    Args:
        source: the model as it was given.
        path: where it goes.
        stamped: the bytes of the model's file with other metadata, None for its own.

    Raises:
        OutputError: the files cannot be written there, or would overwrite external data of another
            model.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give a file name for the output")
    if source.path is None:
        with _reported(path), _folder_beside(path) as folder:
            file = folder / path.name
            file.write_bytes(stamped or source.model.SerializeToString(deterministic=True))
            os.replace(file, path)
        return
    if stamped is None and path.exists() and path.samefile(source.path):
        return
    with _reported(path), _folder_beside(path) as folder:
        file = folder / path.name
        if stamped is None:
            shutil.copyfile(source.path, file)
        else:
            file.write_bytes(stamped)
        copied = [(file, path)]
        for number, location in enumerate(_external_locations(source)):
            target = path.parent / location
            origin = source.path.parent / location
            if target.exists():
                if not (target.samefile(origin) or _same_bytes(target, origin)):
                    raise OutputError(
                        f"{target} exists and is not this model's external data;"
                        " write to another folder"
                    )
                continue
            copy = shutil.copyfile(origin, folder / f"{path.name}.{number}")
            copied.insert(0, (Path(copy), target))
        for copy, target in copied:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(copy, target)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turns failures of the file system into one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot write {path}: {reason}; choose another output") from error


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """A temporary folder on the same file system as `path`, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _save(model: ModelProto, file: Path, external: bool) -> None:
    if not external:
        file.write_bytes(model.SerializeToString())
        return
    copy = ModelProto()
    copy.CopyFrom(model)
    convert_model_to_external_data(
        copy,
        all_tensors_to_one_file=True,
        location=f"{file.name}.data",
        size_threshold=EXTERNAL_FROM_BYTES,
    )
    copy = write_external_data_tensors(copy, str(file.parent))
    file.write_bytes(copy.SerializeToString())


def _too_large(model: ModelProto) -> bool:
    raw = sum(len(tensor.raw_data) for tensor in tensors_of(model))
    if raw + STRUCTURE_ALLOWANCE <= LARGEST_MESSAGE:
        return False
    try:
        return int(model.ByteSize()) > LARGEST_MESSAGE
    except (EncodeError, ValueError):
        return True


def _refuse_to_overwrite_data(source: Source, path: Path) -> None:
    """The source's external data is part of the input: it may go only where the source goes too."""
    if source.path is None or (path.exists() and path.samefile(source.path)):
        return
    made = [path, path.with_name(f"{path.name}.data")]
    for location in _external_locations(source):
        data = source.path.parent / location
        if any(file.exists() and file.samefile(data) for file in made):
            raise OutputError(f"{path} would overwrite {data}, the input's data; name another")


def _external_locations(source: Source) -> tuple[str, ...]:
    if not source.external or source.path is None:
        return ()
    return external_files(onnx.load_model(source.path, format="protobuf", load_external_data=False))


def _same_bytes(first: Path, second: Path) -> bool:
    if first.stat().st_size != second.stat().st_size:
        return False
    return first.read_bytes() == second.read_bytes()
