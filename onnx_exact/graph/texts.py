"""Whether every text in a model is one: files may hold names that are no UTF-8."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import Message  # type: ignore[import-untyped]


def unreadable_text(message: Message) -> str | None:
    """The place of the first text that is no UTF-8, such as graph.node[3].name; None: none."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING:
            place = _odd(value, field.is_repeated)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            place = _below(value, field.is_repeated)
        else:
            continue
        if place is not None:
            return f"{field.name}{place}"
    return None


def _odd(value: Any, repeated: bool) -> str | None:
    # Where a text cannot be decoded its bytes are given.
    if not repeated:
        return None if isinstance(value, str) else ""
    return next((f"[{i}]" for i, v in enumerate(value) if not isinstance(v, str)), None)


def _below(value: Any, repeated: bool) -> str | None:
    if not repeated:
        place = unreadable_text(value)
        return None if place is None else f".{place}"
    for i, item in enumerate(value):
        place = unreadable_text(item)
        if place is not None:
            return f"[{i}].{place}"
    return None
