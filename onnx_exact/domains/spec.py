"""Reads a domain in any of the forms a user may give it, and fits it to a graph's inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnx_exact.domains.domain import DOMAIN_KEY, Domain, InputLike
from onnx_exact.domains.files import Bounds, parse_json
from onnx_exact.domains.fit import find_input, fit_box, unbounded
from onnx_exact.domains.text import read_file, read_text
from onnx_exact.errors import DomainError
from onnx_exact.network import Box

# Text as in `onnx_exact.domains.text`, or a file's path; a box; a pair (lower, upper); a mapping
# from input names to pairs or boxes; or a list of any of these, one for each of several inputs.
DomainLike = str | Path | Box | tuple[Any, Any] | Mapping[str, Any] | list[Any]

_NO_DOMAIN = "every finite input (no domain given)"
_METADATA = "metadata of the model"


def is_given(spec: DomainLike | None) -> bool:
    """Whether the caller declares a domain at all."""
    return spec is not None and not (isinstance(spec, list) and not spec)


def resolve_domain(
    spec: DomainLike | None, inputs: Sequence[InputLike], metadata: Mapping[str, str]
) -> Domain:
    """The domain that `spec` declares, or else the model's metadata, or else every finite input.

    Args:
        spec: see `DomainLike`; None or an empty list where the caller gives none.
        inputs: the graph's inputs, in its order.
        metadata: the model's; its entry `DOMAIN_KEY` is used only where `spec` is none.

    Raises:
        DomainError: a form, a file, an input's name, sizes or bounds that cannot be used.
    """
    if is_given(spec):
        specs = spec if isinstance(spec, list) else [spec]
        read = [_read(one, inputs) for one in specs]
        boxes: dict[str, Box] = {}
        for source, bounds in read:
            _add(boxes, source, bounds, inputs)
        return _domain(boxes, ", ".join(source for source, _ in read), inputs)
    try:
        carried = carried_domain(inputs, metadata)
    except DomainError as error:
        raise DomainError(f"{error}; give --domain to override it") from error
    return carried or _every_finite_input(inputs)


def carried_domain(inputs: Sequence[InputLike], metadata: Mapping[str, str]) -> Domain | None:
    """The domain that a model carries in its metadata, under `DOMAIN_KEY`; None if it has none.

    Raises:
        DomainError: what stands there is no domain of these inputs.
    """
    if DOMAIN_KEY not in metadata:
        return None
    if not any(spec.is_float for spec in inputs) and metadata[DOMAIN_KEY].strip() == "{}":
        # Of no other inputs anything is said.
        return _every_finite_input(inputs)
    boxes: dict[str, Box] = {}
    try:
        _add(boxes, _METADATA, parse_json(metadata[DOMAIN_KEY], "domain"), inputs)
    except DomainError as error:
        raise DomainError(
            f"the model's metadata {DOMAIN_KEY!r} cannot be used ({error})"
        ) from error
    # A model changed over every finite input says just that in its metadata.
    if any(np.isfinite(b.lower).any() or np.isfinite(b.upper).any() for b in boxes.values()):
        return _domain(boxes, _METADATA, inputs)
    return _every_finite_input(inputs)


def _every_finite_input(inputs: Sequence[InputLike]) -> Domain:
    return Domain({i.name: unbounded(i) for i in inputs if i.is_float}, _NO_DOMAIN, declared=False)


def _domain(boxes: Mapping[str, Box], source: str, inputs: Sequence[InputLike]) -> Domain:
    floats = [spec for spec in inputs if spec.is_float]
    left = [repr(spec.name) for spec in floats if spec.name not in boxes]
    if left:
        source += f", every finite value of {', '.join(left)}"
    return Domain({s.name: boxes.get(s.name, unbounded(s)) for s in floats}, source, declared=True)


def _add(boxes: dict[str, Box], source: str, bounds: Bounds, inputs: Sequence[InputLike]) -> None:
    for name, (lower, upper) in bounds.items():
        spec = find_input(name, inputs, source)
        if spec.name in boxes:
            raise DomainError(f"{source}: input {spec.name!r} is given a domain twice")
        boxes[spec.name] = fit_box(lower, upper, spec, source)


def _read(spec: Any, inputs: Sequence[InputLike]) -> tuple[str, Bounds]:
    """What `spec` declares, and words for it."""
    if isinstance(spec, Path):
        return str(spec), read_file(spec, str(spec), inputs)
    if isinstance(spec, str):
        return read_text(spec, inputs)
    if isinstance(spec, Mapping):
        return "the given domain", {_name(name): _pair(value) for name, value in spec.items()}
    bounds = _pair(spec)
    return (spec.source if isinstance(spec, Box) and spec.source else _words(bounds)), {
        None: bounds
    }


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise DomainError(f"the given domain: {name!r} is not the name of an input")
    return name


def _pair(value: Any) -> tuple[Any, Any]:
    if isinstance(value, Box):
        return value.lower, value.upper
    if isinstance(value, tuple | list) and len(value) == 2:
        return value[0], value[1]
    raise DomainError(
        "a domain is LO:HI, a file, a Box, a pair (lower, upper), or a mapping from input names to"
        f" pairs, not {type(value).__name__}"
    )


def _words(bounds: tuple[Any, Any]) -> str:
    if all(isinstance(side, int | float) for side in bounds):
        return f"the given domain {bounds[0]}:{bounds[1]}"
    return "the given domain"
