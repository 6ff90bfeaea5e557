"""Files that were tampered with: bytes, ends, and fields of the messages."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

from benchmarks.fuzzing.graphs import random_graph
from benchmarks.fuzzing.operators import OPERATORS
from onnx_exact.errors import OnnxExactError
from onnx_exact.pipeline import optimize_file

# Different graphs that files are made of.
GRAPHS = 500
ODD_NUMBERS = (0, 1, -1, 2, 7, 255, 2**31 - 1, -(2**31), 2**31, 2**63 - 1, -(2**63))
ODD_TEXTS = ("", "x", "x_1", "nowhere", "Relu", "Gemm", "ai.onnx.ml", "\x00", "ü", "a" * 300)
SECONDS = 5.0
_TEXT = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
_REAL = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)


def attack_file(number: int, folder: Path) -> tuple[str, str]:
    """Runs the tool on one file.

    Returns:
        "done" or "refused", both right, "traceback" or "left behind"; and what was seen.
    """
    rng = np.random.default_rng([number, 2])
    source, target = folder / "in.onnx", folder / "out.onnx"
    source.write_bytes(tampered(rng))
    try:
        domain = None if rng.random() < 0.5 else "0:1"
        optimize_file(source, target, domain=domain, time_limit=SECONDS)
        outcome, what = "done", ""
    except OnnxExactError as error:
        outcome, what = "refused", str(error)
        if "\n" in what or target.exists():
            outcome = "left behind"
    except Exception:
        outcome, what = "traceback", traceback.format_exc(limit=-3)
    expected = {source, *([target] if outcome == "done" else [])}
    strangers = [f.name for f in folder.iterdir() if f not in expected]
    if outcome in ("done", "refused") and any("counterexample" not in n for n in strangers):
        outcome, what = "left behind", ", ".join(strangers)
    for file in folder.iterdir():
        file.unlink()
    return outcome, what


def tampered(rng: np.random.Generator) -> bytes:
    """The bytes of a small model with something wrong in it."""
    model, _ = random_graph(int(rng.integers(GRAPHS)), OPERATORS)
    data = bytearray(model.SerializeToString())
    kind = rng.random()
    if kind < 0.15:
        return bytes(data[: int(rng.integers(len(data)))])
    if kind < 0.4:
        for _ in range(int(rng.integers(1, 6))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        return bytes(data)
    for _ in range(int(rng.integers(1, 4))):
        _change_field(model, rng)
    try:
        changed: bytes = model.SerializeToString()
    except (EncodeError, ValueError):
        return bytes(data)
    return changed


def _change_field(message: Any, rng: np.random.Generator) -> None:
    """Changes one field, somewhere below the message."""
    fields = [f for f, _ in message.ListFields()]
    if not fields:
        return
    # The graph holds nearly all that can be wrong.
    field = fields[int(rng.integers(len(fields)))]
    if hasattr(message, "graph") and message.HasField("graph") and rng.random() < 0.8:
        field = next(f for f in fields if f.name == "graph")
    if field.is_repeated:
        _change_repeated(message, field, rng)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        if rng.random() < 0.05:
            message.ClearField(field.name)
        else:
            _change_field(getattr(message, field.name), rng)
    elif rng.random() < 0.2:
        message.ClearField(field.name)
    else:
        _set(message, field, rng)


def _change_repeated(message: Any, field: Any, rng: np.random.Generator) -> None:
    items = getattr(message, field.name)
    index = int(rng.integers(len(items)))
    kind = rng.random()
    if kind < 0.15:
        del items[index]
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        if kind < 0.25:
            items.add().CopyFrom(items[index])
        elif kind < 0.35:
            items[index].CopyFrom(items[int(rng.integers(len(items)))])
        else:
            _change_field(items[index], rng)
    elif kind < 0.3:
        items.append(items[index])
    else:
        items[index] = _value(field, items[index], rng)


def _set(message: Any, field: Any, rng: np.random.Generator) -> None:
    setattr(message, field.name, _value(field, getattr(message, field.name), rng))


def _value(field: Any, old: Any, rng: np.random.Generator) -> Any:
    if field.type in _TEXT:
        text = ODD_TEXTS[int(rng.integers(len(ODD_TEXTS)))]
        if field.type == FieldDescriptor.TYPE_STRING:
            return text
        changed = bytearray(old)
        if changed and rng.random() < 0.7:
            changed[int(rng.integers(len(changed)))] = int(rng.integers(256))
            return bytes(changed)
        return bytes(old) + text.encode()
    if field.type in _REAL:
        return float(rng.choice([0.0, -1.0, 1e30, np.inf, np.nan]))
    if field.enum_type is not None:
        return int(rng.choice([v.number for v in field.enum_type.values]))
    number = ODD_NUMBERS[int(rng.integers(len(ODD_NUMBERS)))]
    return number if field.type == FieldDescriptor.TYPE_INT64 else number % 2**31
