"""The metadata of a model: the domain it carries, the model it began as, what was done to it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from onnx import ModelProto

from onnx_exact.errors import ModelError

DOMAIN_KEY = "onnx_exact.domain"
# The SHA-256 of the first model in a chain of passes, in hexadecimal digits.
SOURCE_KEY = "onnx_exact.source_sha256"


def metadata_of(model: ModelProto) -> dict[str, str]:
    """The model's own metadata, in its order."""
    return {entry.key: entry.value for entry in model.metadata_props}


def first_source(metadata: Mapping[str, str], own: str, *, rebase: bool) -> str:
    """The SHA-256 of the model that all passes began with.

    Args:
        metadata: of the model at hand.
        own: the SHA-256 of its file, which is the first where no pass was made before.
        rebase: it is the first whatever was done to it.

    Raises:
        ModelError: the metadata tell of a pass, and not of which model or over which domain.
    """
    if rebase or SOURCE_KEY not in metadata:
        return own
    found = metadata[SOURCE_KEY]
    way_out = "give --rebase to take this file as the original"
    if not re.fullmatch(r"[0-9a-f]{64}", found):
        raise ModelError(f"the model's metadata {SOURCE_KEY!r} is no SHA-256; {way_out}")
    if DOMAIN_KEY not in metadata:
        raise ModelError(
            f"the model was made from another ({SOURCE_KEY!r} in its metadata) and does not say"
            f" over which domain ({DOMAIN_KEY!r} is missing); {way_out}"
        )
    return found


def with_metadata(data: bytes, entries: Mapping[str, str]) -> bytes:
    """A serialized model with `entries` set in its metadata, all else as it is."""
    model = ModelProto.FromString(data)
    if entries.keys() & metadata_of(model).keys():
        stamp(model, entries)
        return bytes(model.SerializeToString(deterministic=True))
    # Joined messages of protobuf are one that has the fields of both: no byte has to change.
    added = ModelProto()
    stamp(added, entries)
    return data + bytes(added.SerializeToString())


def stamp(model: ModelProto, entries: Mapping[str, str]) -> None:
    """Sets `entries` in the metadata of `model`; all others stay as they are."""
    known = {entry.key: entry for entry in model.metadata_props}
    for key, value in entries.items():
        if key in known:
            known[key].value = value
        else:
            model.metadata_props.add(key=key, value=value)
