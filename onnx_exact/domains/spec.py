"""Reads a domain in any of the forms a user may give it, and fits it to a graph's inputs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnx_exact.domains.domain import DOMAIN_KEY, Domain, InputLike
from onnx_exact.domains.files import Bounds, parse_json, read_json, read_npz
from onnx_exact.domains.fit import fit_box, unbounded
from onnx_exact.domains.vnnlib import read_vnnlib
from onnx_exact.errors import DomainError
from onnx_exact.network import Box

# A range "LO:HI", "NAME=LO:HI" or a file's name; a box; a pair (lower, upper); a mapping from
# input names to pairs or boxes; or a list of any of these, one for each of several inputs.
DomainLike = str | Path | Box | tuple[Any, Any] | Mapping[str, Any] | list[Any]

_SIDE = r"[+-]?(?:inf(?:inity)?|nan|(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)"
_RANGE = re.compile(rf"\s*({_SIDE})\s*:\s*({_SIDE})\s*", re.IGNORECASE)
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
    by_name = {spec.name: spec for spec in inputs}
    for name, (lower, upper) in bounds.items():
        spec = _only_input(source, inputs) if name is None else by_name.get(name)
        if spec is None:
            known = ", ".join(repr(n) for n in by_name)
            raise DomainError(f"{source}: the model has no input {name!r}; its inputs are {known}")
        if spec.name in boxes:
            raise DomainError(f"{source}: input {spec.name!r} is given a domain twice")
        boxes[spec.name] = fit_box(lower, upper, spec, source)


def _only_input(source: str, inputs: Sequence[InputLike]) -> InputLike:
    floats = [spec for spec in inputs if spec.is_float]
    if len(floats) == 1:
        return floats[0]
    if not floats:
        raise DomainError(f"{source}: the model has no floating-point input to bound")
    names = " ".join(f"--domain '{spec.name}=LO:HI'" for spec in floats)
    raise DomainError(
        f"{source}: the model has {len(floats)} floating-point inputs; say which: {names}"
    )


def _read(spec: Any, inputs: Sequence[InputLike]) -> tuple[str, Bounds]:
    """What `spec` declares, and words for it."""
    if isinstance(spec, Path):
        return _read_file(spec, str(spec), inputs)
    if isinstance(spec, str):
        return _read_text(spec, inputs)
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


def _read_text(text: str, inputs: Sequence[InputLike]) -> tuple[str, Bounds]:
    source = f"--domain {text}"
    if found := _RANGE.fullmatch(text):
        return source, {None: _range(found, source)}
    name, equals, sides = text.rpartition("=")
    if equals and (found := _RANGE.fullmatch(sides)):
        return source, {name: _range(found, source)}
    return _read_file(Path(text), source, inputs)


def _range(found: re.Match[str], source: str) -> tuple[float, float]:
    low, high = float(found[1]), float(found[2])
    if math.isinf(low) != ("inf" in found[1].lower()) or math.isinf(high) != (
        "inf" in found[2].lower()
    ):
        raise DomainError(f"{source}: a bound is beyond float64; write inf for an unbounded side")
    return low, high


def _read_file(path: Path, source: str, inputs: Sequence[InputLike]) -> tuple[str, Bounds]:
    name = path.name.lower()
    if name.endswith(".npz"):
        return source, read_npz(path)
    if name.endswith(".json"):
        return source, read_json(path)
    if name.endswith((".vnnlib", ".vnnlib.gz")):
        return source, read_vnnlib(path, inputs)
    raise DomainError(
        f"{source}: neither a range LO:HI or NAME=LO:HI nor a file .npz, .json or .vnnlib"
    )
