"""The box of a VNN-LIB 2.0 query, read by the optional package `vnnlib`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_exact.domains.constraints import Expression, implied_region, intersection
from onnx_exact.domains.domain import InputLike
from onnx_exact.domains.files import Bounds
from onnx_exact.errors import DomainError

if TYPE_CHECKING:
    import vnnlib

# The package parses by recursion in C++; text nested deeper than this could overflow its stack.
MAX_DEPTH = 10_000

_SYMBOLS = {
    "Negate": "-",
    "Plus": "+",
    "Minus": "-",
    "Multiply": "*",
    "LessEqual": "<=",
    "LessThan": "<",
    "GreaterEqual": ">=",
    "GreaterThan": ">",
    "Equal": "=",
    "NotEqual": "distinct",
    "And": "and",
    "Or": "or",
}


def bounds_of_version_2(text: str, inputs: Sequence[InputLike]) -> Bounds:
    """The bounds of each floating-point input that the query's one network declares.

    The query's inputs are the graph's of the same ONNX name where they state one, and else the
    graph's in its order.

    Raises:
        DomainError: the package is missing, the text is no query, or it does not fit the graph.
    """
    query = _parse(text)
    if len(query.networks) != 1:
        raise DomainError(f"speaks of {len(query.networks)} networks; a domain needs just one")
    declared = query.networks[0].inputs
    if len(declared) != len(inputs):
        raise DomainError(f"declares {len(declared)} inputs where the model has {len(inputs)}")
    by_name = {spec.name: spec for spec in inputs}
    variables = {
        _variable(definition.name, index)
        for definition in declared
        for index in np.ndindex(*definition.shape)
    }
    region = intersection(
        implied_region(_expression(assertion.expr), variables.__contains__)
        for assertion in query.assertions
    )
    if region is None:
        raise DomainError("no input satisfies the constraints: the box is empty")
    bounds: dict[str | None, tuple[Any, Any]] = {}
    for definition, in_order in zip(declared, inputs, strict=True):
        name = definition.onnx_name or in_order.name
        if name not in by_name:
            raise DomainError(f"input {name!r} is none of the model's: {', '.join(by_name)}")
        sides = np.array(
            [
                region.get(_variable(definition.name, index), (-math.inf, math.inf))
                for index in np.ndindex(*definition.shape)
            ]
        ).reshape(*definition.shape, 2)
        if by_name[name].is_float:
            bounds[name] = sides[..., 0], sides[..., 1]
    return bounds


def _parse(text: str) -> vnnlib.Query:
    try:
        import vnnlib
    except ImportError as error:
        raise DomainError(
            "VNN-LIB 2.0 needs the package vnnlib: pip install 'onnx-exact[vnnlib]'"
        ) from error
    if not hasattr(vnnlib, "parse_query_string"):
        raise DomainError(
            "VNN-LIB 2.0 needs the package vnnlib from 1.0 on: pip install 'onnx-exact[vnnlib]'"
        )
    if _depth(text) > MAX_DEPTH:
        raise DomainError(f"expressions nested more than {MAX_DEPTH} deep")
    try:
        return vnnlib.parse_query_string(text)
    except vnnlib.VNNLibException as error:
        raise DomainError(_first_complaint(str(error))) from error


def _depth(text: str) -> int:
    steps = np.array([(c == "(") - (c == ")") for c in text], dtype=np.int64)
    return int(np.cumsum(steps).max(initial=0))


def _first_complaint(message: str) -> str:
    """One line of the package's message, which is a sentence or a JSON list of errors."""
    try:
        first = json.loads(message)["errors"][0]
        message = f"line {first['line']}: {first['message']} ({first['hint']})"
    except (ValueError, LookupError, TypeError):
        pass
    return " ".join(message.split())


def _variable(name: str, index: Sequence[int]) -> str:
    return f"{name}[{','.join(str(i) for i in index)}]"


def _expression(root: Any) -> Expression:
    """The package's tree as nested lists in prefix form."""
    top: list[Expression] = []
    todo: list[tuple[Any, list[Expression]]] = [(root, top)]
    while todo:
        node, parent = todo.pop()
        kind = type(node).__name__
        if kind == "Var":
            parent.append(_variable(node.name, node.indices))
        elif kind in ("Literal", "Float", "Int"):
            parent.append(node.lexeme)
        else:
            children: list[Expression] = [_SYMBOLS.get(kind, kind)]
            parent.append(children)
            todo.extend((child, children) for child in reversed(node.children()))
    return top[0]
