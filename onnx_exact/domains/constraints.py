"""The box that a constraint over inputs and outputs implies for the inputs.

What is not understood counts as true, which can only widen the box; an `or` gives the hull of its
branches, for the same reason. Expressions are trees of nested lists in prefix form, walked with
an explicit stack: ["<=", ["*", "2", "X_0"], "1"].
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce
from itertools import pairwise

from onnx_exact.errors import DomainError

Expression = str | list["Expression"]
Region = Mapping[str, tuple[float, float]]  # bounds by variable; absent: unbounded

EVERYTHING: Region = {}

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE]([+-]?\d+))?")
# Literals beyond these would make exact fractions of millions of digits.
_MAX_EXPONENT = 400
_MAX_LITERAL = 1000


@dataclass(frozen=True)
class _Linear:
    """sum of coefficients times variables, plus a constant; `literal` for a plain number."""

    terms: Mapping[str, Fraction] = field(default_factory=dict)
    constant: Fraction = Fraction(0)
    literal: float | None = None


@dataclass(frozen=True)
class _Implied:
    """A formula, as the box it implies; None where no point satisfies it."""

    region: Region | None


_Value = _Linear | _Implied | None  # None: not understood
_TRUE = _Implied(EVERYTHING)


def implied_region(expression: Expression, is_input: Callable[[str], bool]) -> Region | None:
    """A box that holds every point satisfying the expression; None where there is no point.

    Args:
        expression: a formula over named variables.
        is_input: whether a symbol is an input's variable; other symbols are never bounded.

    Raises:
        DomainError: a number that float64 cannot hold.
    """
    return _formula(_evaluate(expression, is_input)).region


def intersection(regions: Iterable[Region | None]) -> Region | None:
    """The box of the points in all of them; None where there is none."""
    both: dict[str, tuple[float, float]] = {}
    for region in regions:
        if region is None:
            return None
        for name, (low, high) in region.items():
            known_low, known_high = both.get(name, (-math.inf, math.inf))
            both[name] = low, high = max(low, known_low), min(high, known_high)
            if low > high:
                return None
    return both


def hull(first: Region | None, second: Region | None) -> Region | None:
    """The smallest box that holds both."""
    if first is None:
        return second
    if second is None:
        return first
    return {
        name: (min(low, second[name][0]), max(high, second[name][1]))
        for name, (low, high) in first.items()
        if name in second
    }


def _evaluate(root: Expression, is_input: Callable[[str], bool]) -> _Value:
    values: list[_Value] = []
    todo: list[tuple[Expression, bool]] = [(root, False)]
    while todo:
        node, ready = todo.pop()
        if isinstance(node, str):
            values.append(_atom(node))
        elif not node or not isinstance(node[0], str):
            values.append(None)
        elif not ready:
            todo.append((node, True))
            todo.extend((child, False) for child in reversed(node[1:]))
        else:
            first = len(values) - (len(node) - 1)
            arguments = values[first:]
            del values[first:]
            values.append(_apply(node[0], arguments, is_input))
    return values[0]


def _atom(symbol: str) -> _Value:
    if symbol in ("true", "false"):
        return _Implied(EVERYTHING if symbol == "true" else None)
    number = _NUMBER.fullmatch(symbol)
    if number is None:
        return _Linear({symbol: Fraction(1)})
    if len(symbol) > _MAX_LITERAL or abs(int(number.group(3) or 0)) > _MAX_EXPONENT:
        raise DomainError(f"the number {symbol[:20]} is out of range")
    return _Linear(constant=Fraction(symbol), literal=float(symbol))


def _apply(head: str, arguments: list[_Value], is_input: Callable[[str], bool]) -> _Value:
    if head in ("and", "or"):
        regions = [_formula(value).region for value in arguments]
        if head == "and":
            return _Implied(intersection(regions))
        return _Implied(reduce(hull, regions, None))
    linear = [value for value in arguments if isinstance(value, _Linear)]
    if not linear or len(linear) != len(arguments):
        return None
    if head in _ARITHMETIC:
        return _ARITHMETIC[head](linear)
    if head in ("<=", "<", ">=", ">", "=", "=="):
        pairs = [_compare(head, a, b, is_input) for a, b in pairwise(linear)]
        return _Implied(intersection(pairs))
    return None


def _formula(value: _Value) -> _Implied:
    return value if isinstance(value, _Implied) else _TRUE


def _add(arguments: list[_Linear]) -> _Value:
    return reduce(lambda a, b: _combine(a, b, Fraction(1)), arguments)


def _subtract(arguments: list[_Linear]) -> _Value:
    if len(arguments) > 1:
        return reduce(lambda a, b: _combine(a, b, Fraction(-1)), arguments)
    only = arguments[0]
    negated = None if only.literal is None else -only.literal
    return _Linear({n: -c for n, c in only.terms.items()}, -only.constant, negated)


def _multiply(arguments: list[_Linear]) -> _Value:
    product = _Linear(constant=Fraction(1))
    for factor in arguments:
        if product.terms and factor.terms:
            return None
        scaled, by = (product, factor.constant) if product.terms else (factor, product.constant)
        product = _combine(_Linear(), scaled, by)
    return product


def _divide(arguments: list[_Linear]) -> _Value:
    quotient = arguments[0]
    for divisor in arguments[1:]:
        if divisor.terms or divisor.constant == 0:
            return None
        quotient = _combine(_Linear(), quotient, 1 / divisor.constant)
    return quotient if len(arguments) > 1 else None


_ARITHMETIC: Mapping[str, Callable[[list[_Linear]], _Value]] = {
    "+": _add,
    "-": _subtract,
    "*": _multiply,
    "/": _divide,
}


def _combine(a: _Linear, b: _Linear, factor: Fraction) -> _Linear:
    terms = dict(a.terms)
    for name, coefficient in b.terms.items():
        terms[name] = terms.get(name, Fraction(0)) + factor * coefficient
    kept = {name: coefficient for name, coefficient in terms.items() if coefficient}
    return _Linear(kept, a.constant + factor * b.constant)


def _compare(head: str, a: _Linear, b: _Linear, is_input: Callable[[str], bool]) -> Region | None:
    """The box of a <= b (or >=, =); a strict comparison counts as its closure."""
    difference = _combine(a, b, Fraction(-1))
    signs = {"<": (1,), ">": (-1,), "=": (1, -1)}[head[0]]
    if not difference.terms:
        return EVERYTHING if all(s * difference.constant <= 0 for s in signs) else None
    (name, coefficient), *others = difference.terms.items()
    if others or not is_input(name):
        return EVERYTHING
    bound = -difference.constant / coefficient
    above = any(sign * coefficient > 0 for sign in signs)
    below = any(sign * coefficient < 0 for sign in signs)
    # A bare decimal means the float64 it is read as everywhere; no float64 lies between the two.
    literal = b.literal if a.literal is None else a.literal
    plain = literal == _nearest(bound)
    low = (_nearest(bound) if plain else _rounded(bound, -math.inf)) if below else -math.inf
    high = (_nearest(bound) if plain else _rounded(bound, math.inf)) if above else math.inf
    return {name: (low, high)}


def _nearest(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _rounded(value: Fraction, towards: float) -> float:
    """The nearest float64 of `value` that is not on the wrong side of it."""
    nearest = _nearest(value)
    wrong = nearest < value if towards > 0 else nearest > value
    return math.nextafter(nearest, towards) if wrong else nearest
