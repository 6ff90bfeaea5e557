"""The box of a VNN-LIB file: version 1.0 by a reader of our own, 2.0 by the package `vnnlib`.

Version 1.0 is the SMT-LIB subset of the VNN-COMP competitions: reals X_0, X_1, ... are the entries
of the graph's inputs, one after another, and Y_0, Y_1, ... those of its outputs.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from onnx_exact.domains.constraints import Expression, Region, implied_region, intersection
from onnx_exact.domains.domain import InputLike
from onnx_exact.domains.files import Bounds
from onnx_exact.domains.fit import known_shape
from onnx_exact.errors import DomainError
from onnx_exact.network.affine import Array

_TOKEN = re.compile(r';[^\n]*|\|[^|]*\||"(?:[^"]|"")*"|[()]|[^\s()|";]+|\S')
_INPUT = re.compile(r"X_(0|[1-9][0-9]*)")

# Commands that state nothing about the points of the domain.
_SILENT = frozenset(
    (
        *("set-logic", "set-info", "set-option", "vnnlib-version", "echo"),
        *("check-sat", "get-model", "get-value", "get-info", "get-unsat-core"),
        *("define-const", "define-fun", "declare-sort"),
    )
)


def read_vnnlib(path: Path, inputs: Sequence[InputLike]) -> Bounds:
    """The bounds of each of `inputs` in a .vnnlib or .vnnlib.gz file of version 1.0 or 2.0.

    Constraints on outputs, and whatever is no bound on one input's entry, are left out; the box of
    a disjunction is the hull of its branches. An entry without a bound is unbounded.

    Raises:
        DomainError: no VNN-LIB, no point in the box, or a number of entries that does not fit.
    """
    text = _text(path)
    try:
        if _version(text) == "2":
            from onnx_exact.domains.vnnlib2 import bounds_of_version_2

            return bounds_of_version_2(text, inputs)
        return _bounds_of_version_1(text, inputs)
    except DomainError as error:
        raise DomainError(f"{path}: {error}") from error


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DomainError(f"{path}: not a readable gzip file") from error
    except UnicodeDecodeError as error:
        raise DomainError(f"{path}: not a text file in UTF-8") from error
    except OSError as error:
        raise DomainError(f"{path}: {error.strerror}") from error


def _version(text: str) -> str:
    first = [token for _, token in zip(range(3), _tokens(text), strict=False)]
    if first[:2] == ["(", "vnnlib-version"]:
        major = re.fullmatch(r"<(\d+)\.\d+>", first[2]) if len(first) == 3 else None
        if major is None or major.group(1) not in ("1", "2"):
            raise DomainError("a VNN-LIB version other than 1.0 and 2.0")
        return major.group(1)
    return "2" if first[:2] == ["(", "declare-network"] else "1"


def _tokens(text: str) -> Iterator[str]:
    return (token for token in _TOKEN.findall(text) if not token.startswith(";"))


def read_expressions(text: str) -> list[Expression]:
    """The parenthesised expressions of `text`, as nested lists of tokens.

    Raises:
        DomainError: parentheses that do not match, or a token outside of any.
    """
    top: list[Expression] = []
    open_lists = [top]
    for token in _tokens(text):
        if token == "(":
            open_lists.append([])
        elif token == ")":
            if len(open_lists) == 1:
                raise DomainError("no VNN-LIB file: a closing parenthesis too many")
            closed = open_lists.pop()
            open_lists[-1].append(closed)
        elif len(open_lists) == 1 or token in ('"', "|"):
            raise DomainError(f"no VNN-LIB file: {token[:20]!r} is out of place")
        else:
            open_lists[-1].append(token)
    if len(open_lists) > 1:
        raise DomainError("no VNN-LIB file: a parenthesis is never closed")
    return top


def _bounds_of_version_1(text: str, inputs: Sequence[InputLike]) -> Bounds:
    declared: set[str] = set()
    regions: list[Region | None] = []
    for command in read_expressions(text):
        match command:
            case ["declare-const" | "declare-fun", str(name), *_]:
                declared.add(name)
            case ["assert", expression]:
                regions.append(implied_region(expression, declared.__contains__))
            case ["exit"]:
                break
            case [str(head), *_] if head in _SILENT:
                pass
            case _:
                raise DomainError(f"unsupported VNN-LIB command {_head(command)}")
    names = sorted((n for n in declared if _INPUT.fullmatch(n)), key=lambda n: int(n[2:]))
    if names != [f"X_{i}" for i in range(len(names))] or not names:
        raise DomainError("expected declarations of X_0, X_1, ... without a gap")
    region = intersection(regions)
    if region is None:
        raise DomainError("no input satisfies the constraints: the box is empty")
    sides = np.array([region.get(name, (-math.inf, math.inf)) for name in names])
    return _split(sides, inputs)


def _head(command: Expression) -> str:
    head = command[0] if command else ""
    return repr(head[:20]) if isinstance(head, str) else "()"


def _split(sides: Array, inputs: Sequence[InputLike]) -> Bounds:
    """Hands `sides`, shape (entries, 2), out to the inputs in their order."""
    if len(inputs) == 1:
        return {inputs[0].name: (sides[:, 0], sides[:, 1])}
    shapes = [known_shape(spec) for spec in inputs]
    for sizes in (
        [math.prod(shape) for shape in shapes],
        [math.prod(shape[1:]) for shape in shapes],
    ):
        if sum(sizes) == len(sides):
            parts = np.split(sides, np.cumsum(sizes)[:-1])
            return {
                spec.name: (part[:, 0], part[:, 1])
                for spec, part in zip(inputs, parts, strict=True)
                if spec.is_float
            }
    total = sum(math.prod(shape) for shape in shapes)
    raise DomainError(f"declares {len(sides)} inputs where the model's take {total} numbers")
