"""Writes a model: into a temporary folder, checked there; it appears with the other results."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from onnx import ModelProto
from onnx.external_data_helper import convert_model_to_external_data, write_external_data_tensors

from onnx_exact.errors import ModelError, OutputError
from onnx_exact.graph.read import CHECKER_ERRORS, Source, is_spelled, one_line
from onnx_exact.graph.read import check as check_model
from onnx_exact.graph.stored import tensors_of
from onnx_exact.runtime.outputs import Outputs, real, reported

# What one protobuf message can hold.
LARGEST_MESSAGE = 2**31 - 1
# What everything but the raw data of the tensors may need in a message with no external data.
STRUCTURE_ALLOWANCE = 2**24
# Tensors below this many bytes stay in the model's file (the default of onnx.save).
EXTERNAL_FROM_BYTES = 1024


def write_model(
    model: ModelProto,
    path: Path,
    *,
    source: Source,
    outputs: Outputs,
    check: Callable[[Path], None],
) -> int:
    """Writes `model` so that it will replace what is at `path`, once it has passed every check.

    External data goes to one file `<name>.data` beside it: where the source had external data and
    the model still has large tensors, and where it is too large for one file. Where it replaces its
    source, the source's external data goes, unless another model of that folder names it.

    Args:
        model: complete, its external data loaded.
        path: where it goes; links are followed.
        source: what it was made from.
        outputs: what it appears with.
        check: called with the file to check; what it raises is passed on.

    Returns:
        Bytes of the file and its external data.

    Raises:
        OutputError: the file cannot be written there.
        ModelError: the new model fails the ONNX checker, which the source passed.
    """
    target = real(path)
    _refuse_folder(path, target)
    _refuse_to_overwrite_data(source, path, target)
    _protect_data(source, outputs)
    with reported(path):
        folder = outputs.folder(target)
        file = folder / (target.name if is_spelled(Path(target.name)) else "model.onnx")
        external = bool(source.locations) or _too_large(model)
        if external and not is_spelled(target):
            raise OutputError(
                f"{path} cannot be written: external data needs a path in UTF-8; choose another"
            )
        _save(model, file, f"{target.name}.data", external)
        made = [f for f in folder.iterdir() if f != file]
        if made and target.parent != real(path.parent) and not _is_source(source, target):
            raise OutputError(
                f"{path} is a link to another folder, and this model keeps its weights in a file"
                f" beside it; write to {target} itself"
            )
        if not source.warnings:
            _check(model, file if made else None)
        size = sum(f.stat().st_size for f in (file, *made))
        check(file)
        # The data first: until the model is there, nobody reads it.
        for data in made:
            outputs.move(data, target.parent / data.name)
        outputs.move(file, target)
        _discard_data(source, target, outputs)
    return size


def copy_unchanged(
    source: Source, path: Path, outputs: Outputs, stamped: bytes | None = None
) -> None:
    """Writes the source so that it will be at `path` as it was, with its external data.

    Args:
        source: the model as it was given.
        path: where it goes.
        outputs: what it appears with.
        stamped: the bytes of the model's file with other metadata, None for its own.

    Raises:
        OutputError: the files cannot be written there, or would overwrite external data of another
            model.
    """
    target = real(path)
    _refuse_folder(path, target)
    _protect_data(source, outputs)
    if source.path is None:
        with reported(path):
            data = stamped or source.model.SerializeToString(deterministic=True)
            outputs.place(target).write_bytes(data)
        return
    if stamped is None and _is_source(source, target):
        return
    with reported(path):
        for location in source.locations:
            _copy_data(source.path.parent / location, target.parent / location, outputs)
        if stamped is None:
            shutil.copyfile(source.path, outputs.place(target))
        else:
            outputs.place(target).write_bytes(stamped)


def _copy_data(origin: Path, target: Path, outputs: Outputs) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin, outputs.place(target))
    elif not (target.samefile(origin) or _same_bytes(target, origin)):
        raise OutputError(
            f"{target} exists and is not this model's external data; write to another folder"
        )


def _is_source(source: Source, target: Path) -> bool:
    """Whether the file that is written is the one that was read."""
    return source.path is not None and target.exists() and target.samefile(source.path)


def _protect_data(source: Source, outputs: Outputs) -> None:
    """Keeps reports and certificates off the files that the source is read from."""
    if source.path is not None:
        for location in source.locations:
            outputs.protect(source.path.parent / location)


def _refuse_folder(path: Path, target: Path) -> None:
    if target.is_dir():
        raise OutputError(f"{path} is a folder; give a file name for the output")


def _save(model: ModelProto, file: Path, data: str, external: bool) -> None:
    if not external:
        file.write_bytes(model.SerializeToString())
        return
    copy = ModelProto()
    copy.CopyFrom(model)
    convert_model_to_external_data(
        copy,
        all_tensors_to_one_file=True,
        location=data,
        size_threshold=EXTERNAL_FROM_BYTES,
    )
    copy = write_external_data_tensors(copy, str(file.parent))
    file.write_bytes(copy.SerializeToString())


def _check(model: ModelProto, file: Path | None) -> None:
    """The ONNX checker, on the model's file where it has external data."""
    try:
        check_model(model, model.SerializeToString() if file is None else file)
    except CHECKER_ERRORS as error:
        raise ModelError(f"the new model fails the ONNX checker: {one_line(error)}") from error


def _too_large(model: ModelProto) -> bool:
    raw = sum(len(tensor.raw_data) for tensor in tensors_of(model))
    if raw + STRUCTURE_ALLOWANCE <= LARGEST_MESSAGE:
        return False
    try:
        return int(model.ByteSize()) > LARGEST_MESSAGE
    except (EncodeError, ValueError):
        return True


def _refuse_to_overwrite_data(source: Source, path: Path, target: Path) -> None:
    """The source's external data is part of the input: it may go only where the source goes too."""
    if source.path is None or _is_source(source, target):
        return
    made = [target, target.with_name(f"{target.name}.data")]
    for location in source.locations:
        data = source.path.parent / location
        if any(file.exists() and file.samefile(data) for file in made):
            raise OutputError(f"{path} would overwrite {data}, the input's data; name another")


def _discard_data(source: Source, target: Path, outputs: Outputs) -> None:
    """Lets the external data of a source go that is replaced."""
    if source.path is None or not _is_source(source, target):
        return
    others = [
        file.read_bytes()
        for file in source.path.parent.glob("*.onnx")
        if file.is_file() and not file.samefile(target)
    ]
    for location in source.locations:
        if not any(location.encode() in data for data in others):
            outputs.discard(source.path.parent / location)


def _same_bytes(first: Path, second: Path) -> bool:
    if first.stat().st_size != second.stat().st_size:
        return False
    return first.read_bytes() == second.read_bytes()
