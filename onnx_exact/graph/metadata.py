"""The metadata of a model: the domain it carries and what was done to it."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto

DOMAIN_KEY = "onnx_exact.domain"


def metadata_of(model: ModelProto) -> dict[str, str]:
    """The model's own metadata, in its order."""
    return {entry.key: entry.value for entry in model.metadata_props}


def stamp(model: ModelProto, entries: Mapping[str, str]) -> None:
    """Sets `entries` in the metadata of `model`; all others stay as they are."""
    known = {entry.key: entry for entry in model.metadata_props}
    for key, value in entries.items():
        if key in known:
            known[key].value = value
        else:
            model.metadata_props.add(key=key, value=value)
