"""Domains in .npz and .json files, and in a model's metadata, which holds the same JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx_exact.errors import DomainError
from onnx_exact.runtime.numpy_files import read_arrays

# Bounds as read, by the input's name; None stands for the model's only input.
Bounds = Mapping[str | None, tuple[Any, Any]]

SIDES = ("lower", "upper")


def read_json(path: Path) -> Bounds:
    """The bounds of a JSON file; see `parse_json`."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DomainError(f"{path}: not a text file in UTF-8") from error
    except OSError as error:
        raise DomainError(f"{path}: {error.strerror}") from error
    return parse_json(text, str(path))


def parse_json(text: str, where: str) -> Bounds:
    """The bounds of `{"lower": L, "upper": U}` or of `{"input's name": {"lower": ...}, ...}`.

    Args:
        text: JSON; a bound is a number, nested lists of numbers, or null for an infinite side.
        where: what to name in an error.

    Raises:
        DomainError: no JSON, or JSON of another form.
    """
    try:
        data = json.loads(text, object_pairs_hook=_without_repetition)
    except RecursionError as error:
        raise DomainError(f"{where}: lists nested too deeply") from error
    except ValueError as error:
        raise DomainError(f"{where}: {_one_line(error)}") from error
    if not isinstance(data, dict) or not data:
        raise DomainError(f"{where}: expected an object with lower and upper, per input if several")
    if not any(isinstance(value, dict) for value in data.values()):
        return {None: _sides(data, where)}
    return {name: _sides(value, f"{where}: {name!r}") for name, value in data.items()}


def read_npz(path: Path) -> Bounds:
    """The bounds of arrays `lower`, `upper`, or `NAME.lower`, `NAME/upper` and so on.

    Raises:
        DomainError: no such archive, or arrays of other names.
    """
    try:
        arrays = read_arrays(path)
    except ValueError as error:
        raise DomainError(str(error)) from error
    found: dict[str | None, dict[str, Any]] = {}
    for key, array in arrays.items():
        if key is None:
            raise DomainError(f"{path}: a single array, not an .npz archive of lower and upper")
        name, side = _split(key)
        if side not in SIDES:
            raise DomainError(f"{path}: array {key!r} is neither lower, upper nor NAME.lower/upper")
        if side in found.setdefault(name, {}):
            raise DomainError(f"{path}: {side} of {name!r} is given twice")
        found[name][side] = array
    if not found:
        raise DomainError(f"{path}: holds no array; expected lower and upper")
    return {name: _sides(sides, f"{path}: {name or 'bounds'}") for name, sides in found.items()}


def _split(key: str) -> tuple[str | None, str]:
    for separator in (".", "/"):
        name, found, side = key.rpartition(separator)
        if found and side in SIDES:
            return name, side
    return None, key


def _sides(data: Any, where: str) -> tuple[Any, Any]:
    if not isinstance(data, dict) or set(data) != set(SIDES):
        raise DomainError(f"{where}: expected lower and upper, both of them and nothing else")
    return data["lower"], data["upper"]


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a name is given twice")
    return data


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
