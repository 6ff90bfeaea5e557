"""The boxes of VNN-LIB files: what they state, and that nothing left out narrows them."""

from __future__ import annotations

import gzip
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from domain_inputs import FLOAT32, INT64, TWO, Input
from hypothesis import assume, given
from hypothesis import strategies as st

from onnx_exact.domains import resolve_domain
from onnx_exact.domains.constraints import Expression, implied_region
from onnx_exact.domains.vnnlib import read_expressions
from onnx_exact.errors import DomainError

DOMAINS = Path(__file__).parents[3] / "shared" / "domains"
HEADER = "".join(f"(declare-const {v} Real)" for v in ("X_0", "X_1", "Y_0", "Y_1"))
INF = math.inf


def box_of(path: Path, *inputs: Input) -> tuple[list[float], list[float]]:
    box = resolve_domain(path, inputs or TWO, {}).boxes["x"]
    return box.lower.ravel().tolist(), box.upper.ravel().tolist()


@pytest.fixture
def asserting(tmp_path: Path) -> Any:
    def write(*assertions: str) -> Path:
        path = tmp_path / "spec.vnnlib"
        path.write_text(HEADER + "\n".join(f"(assert {a})" for a in assertions))
        return path

    return write


@pytest.mark.parametrize(
    ("assertion", "low", "high"),
    [
        ("(<= X_0 0.5)", -INF, 0.5),
        ("(>= X_0 -0.5)", -0.5, INF),
        ("(<= -0.5 X_0)", -0.5, INF),
        ("(>= 1e-3 X_0)", -INF, 1e-3),
        ("(< X_0 1.5E2)", -INF, 150.0),
        ("(> X_0 (- 0.1))", -0.1, INF),
        ("(= X_0 0.1)", 0.1, 0.1),
        ("(<= 0 X_0 1)", 0.0, 1.0),
        ("(<= (* -1.0 X_0) 0.25)", -0.25, INF),
        ("(<= (* 2 X_0) 0.5)", -INF, 0.25),
        ("(<= (/ X_0 2) 0.5)", -INF, 1.0),
        ("(<= (+ X_0 1) 3)", -INF, 2.0),
        ("(<= (- X_0 1) (+ 1 1))", -INF, 3.0),
        ("(<= (+ X_0 X_0) X_0)", -INF, 0.0),
        ("(>= (- X_0) -1)", -INF, 1.0),
        ("(and (>= X_0 0) (<= X_0 1))", 0.0, 1.0),
        ("(and)", -INF, INF),
        ("true", -INF, INF),
        ("(or (and (>= X_0 0) (<= X_0 1)) (and (>= X_0 3) (<= X_0 4)))", 0.0, 4.0),
        ("(or (and (>= X_0 0) (<= X_0 1)) (>= X_0 3))", 0.0, INF),
        ("(or (and (>= X_0 0) (<= X_0 1)) (<= X_1 3))", -INF, INF),
        ("(or (and (<= X_0 1) (>= X_0 2)) (and (>= X_0 3) (<= X_0 4)))", 3.0, 4.0),
        ("(or false (<= X_0 4))", -INF, 4.0),
        ("(and (or (<= X_0 1) (<= X_0 2)) (or (>= X_0 0) (>= X_0 -1)))", -1.0, 2.0),
        # On outputs alone, or on several entries at once: nothing is known of X_0.
        ("(<= Y_0 0)", -INF, INF),
        ("(<= X_0 Y_0)", -INF, INF),
        ("(<= (+ X_0 X_1) 1)", -INF, INF),
        ("(<= (* X_0 X_0) 1)", -INF, INF),
        ("(<= (/ X_0 0) 1)", -INF, INF),
        ("(or (and (<= X_0 1) (<= Y_0 0)) (and (<= X_0 2) (>= Y_0 0)))", -INF, 2.0),
        ("(or (<= X_0 1) (<= Y_0 0))", -INF, INF),
        # Not understood: left out as a whole, never taken for its inside.
        ("(not (<= X_0 1))", -INF, INF),
        ("(=> (<= Y_0 1) (<= X_0 1))", -INF, INF),
        ("(let ((X_0 3.0)) (<= X_0 1))", -INF, INF),
        ("(or (<= X_0 1) (not (<= X_0 2)))", -INF, INF),
        ("(and (<= X_0 1) (not (<= X_0 0)))", -INF, 1.0),
        ("(distinct X_0 1)", -INF, INF),
        ("(<= Z_0 1)", -INF, INF),
        ("((_ foo 1) X_0)", -INF, INF),
        ("()", -INF, INF),
    ],
)
def test_assertion_bounds_only_what_it_implies(
    asserting: Any, assertion: str, low: float, high: float
) -> None:
    lower, upper = box_of(asserting(assertion))
    assert (lower[0], upper[0]) == (low, high)
    assert (lower[1], upper[1]) == (-INF, INF)


@pytest.mark.parametrize("text", ["(/ 1 3)", "(/ -2.0 3)", "(* 0.1 0.1)", "(/ 1e-300 3)"])
def test_compound_number_is_rounded_outward(asserting: Any, text: str) -> None:
    exact = {
        "(/ 1 3)": Fraction(1, 3),
        "(/ -2.0 3)": Fraction(-2, 3),
        "(* 0.1 0.1)": Fraction(1, 100),
        "(/ 1e-300 3)": Fraction("1e-300") / 3,
    }[text]
    lower, upper = box_of(asserting(f"(= X_0 {text})"))
    assert Fraction(lower[0]) < exact < Fraction(upper[0])
    assert upper[0] == math.nextafter(lower[0], INF)


def test_number_beyond_float64_widens(asserting: Any) -> None:
    huge = "(* 1e300 1e300)"
    assert box_of(asserting(f"(<= X_0 {huge})"))[1][0] == INF
    assert box_of(asserting(f"(>= X_0 {huge})"))[0][0] == np.finfo(np.float64).max
    assert box_of(asserting(f"(<= X_0 (- {huge}))"))[1][0] == -np.finfo(np.float64).max


@pytest.mark.parametrize(
    "assertions",
    [
        ["(<= X_0 0)", "(>= X_0 1)"],
        ["(and (<= X_0 0) (>= X_0 1))"],
        ["(or (and (<= X_0 0) (>= X_0 1)) false)"],
        ["false"],
        ["(<= 1 0)"],
        ["(or)"],
    ],
)
def test_empty_box_is_refused(asserting: Any, assertions: list[str]) -> None:
    with pytest.raises(DomainError, match="empty"):
        resolve_domain(asserting(*assertions), TWO, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(declare-const X_0 Real) (push 1)", "'push'"),
        ("(declare-const X_0 Real) ()", "unsupported"),
        ("(declare-const X_0 Real) (assert)", "'assert'"),
        ("(declare-const X_1 Real)", "without a gap"),
        ("", "without a gap"),
        ("(declare-const Y_0 Real)", "without a gap"),
        ("(declare-const X_0 Real", "never closed"),
        ("(declare-const X_0 Real))", "too many"),
        ("X_0 <= 1", "out of place"),
        ('(set-info "unclosed)', "out of place"),
        (HEADER + "(assert (<= X_0 1e99999))", "out of range"),
        (HEADER + "(assert (<= X_0 " + "1" * 5000 + "))", "out of range"),
        ("".join(f"(declare-const X_{i} Real)" for i in range(3)), "3"),
        ("(vnnlib-version <3.0>)", "version"),
        ("(vnnlib-version 2)", "version"),
    ],
)
def test_file_that_states_no_box_is_refused_in_one_line(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "spec.vnnlib"
    path.write_text(text)
    with pytest.raises(DomainError) as caught:
        resolve_domain(path, TWO, {})
    message = str(caught.value)
    assert words in message
    assert "spec.vnnlib" in message
    assert "\n" not in message


def test_comments_strings_and_commands_without_points_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "spec.vnnlib"
    path.write_text(
        "; (assert (<= X_0 9))\n(vnnlib-version <1.0>)(set-logic QF_LRA)\n"
        '(set-info :source |a ) b|)(set-info :note "say ""(assert""")'
        "(declare-fun X_0 () Real)(declare-const X_1 Real)(assert (<= X_0 1)); (assert\n"
        "(check-sat)(exit)(assert (<= X_0 0))"
    )
    assert box_of(path) == ([-INF, -INF], [1.0, INF])


def test_file_may_be_compressed(tmp_path: Path) -> None:
    path = tmp_path / "spec.vnnlib.gz"
    path.write_bytes(gzip.compress((HEADER + "(assert (<= X_0 1))").encode()))
    assert box_of(path)[1][0] == 1.0


def test_very_deep_nesting_is_read(asserting: Any) -> None:
    depth = 100_000
    path = asserting(
        "(and " * depth + "(<= X_0 " + "(+ 0 " * depth + "1" + ")" * depth + ")" * (depth + 1)
    )
    assert box_of(path)[1][0] == 1.0


def test_entries_of_several_inputs_follow_one_another(tmp_path: Path) -> None:
    path = tmp_path / "spec.vnnlib"
    path.write_text("".join(f"(declare-const X_{i} Real)(assert (= X_{i} {i}))" for i in range(6)))
    inputs = (Input("a", (None, 2)), Input("k", (1,), INT64), Input("b", (1, 3)))
    boxes = resolve_domain(path, inputs, {}).boxes
    assert boxes["a"].lower.tolist() == [[0.0, 1.0]]
    assert boxes["b"].upper.tolist() == [[3.0, 4.0, 5.0]]


def test_one_sample_bounds_every_row_of_a_fixed_batch(asserting: Any) -> None:
    path = asserting("(= X_0 1)", "(= X_1 2)")
    box = resolve_domain(path, (Input("x", (2, 2)),), {}).boxes["x"]
    assert box.lower.tolist() == [[1.0, 2.0]]


def decimal(value: float) -> st.SearchStrategy[str]:
    """The same number, written in several ways."""
    forms = [repr(value), f"{value:.17e}"]
    if value < 0:
        forms.append(f"(- {-value!r})")
    if value == int(value) and abs(value) < 1e6:
        forms += [
            f"{int(value)}",
            f"(/ {int(value) * 3} 3)",
            f"(+ {int(value) - 1} 1)",
            f"(- 0 {-value!r})",
        ]
    return st.sampled_from(forms)


@st.composite
def bound(draw: st.DrawFn, name: str, value: float, upper: bool) -> str:
    """A random constraint equivalent to name <= value, or name >= value."""
    number = draw(decimal(value))
    weak, strong = ("<=", ">=") if upper else (">=", "<=")
    plain = st.sampled_from([f"({weak} {name} {number})", f"({strong} {number} {name})"])
    text = draw(plain)
    if value == int(value) and abs(value) < 1e6:
        text = draw(
            st.sampled_from(
                [
                    text,
                    f"({strong} (* -2 {name}) {-2 * int(value)})",
                    f"({weak} (- {name} {number}) 0)",
                ]
            )
        )
    wrapped = [text, f"(and {text})", f"(and {text} (<= Y_0 Y_1))", f"(or {text} {text})"]
    return draw(st.sampled_from([*wrapped, f"(or (and {text} (<= Y_0 0)) (and {text} (> Y_0 0)))"]))


values = st.one_of(
    st.integers(-1000, 1000).map(float), st.floats(-1e30, 1e30), st.floats(-1.0, 1.0)
)


@given(st.data())
def test_box_written_in_any_equivalent_form_reads_back(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 4))
    ends = [sorted(data.draw(st.tuples(values, values))) for _ in range(size)]
    parts = [
        data.draw(bound(f"X_{i}", end, upper))
        for i, pair in enumerate(ends)
        for upper, end in enumerate(pair)
    ]
    asserted = data.draw(st.permutations(parts))
    region = implied_region(
        ["and", *(e for text in asserted for e in read_expressions(text))],
        lambda name: name.startswith("X_"),
    )
    assert region == {f"X_{i}": tuple(pair) for i, pair in enumerate(ends)}


formulas: st.SearchStrategy[Expression] = st.recursive(
    st.tuples(
        st.sampled_from(["<=", ">=", "=", "<", ">", "distinct"]),
        st.sampled_from(["a", "b", "y", "2", "(+ a b)", "(* -2 a)", "(- b 1)", "(* a b)"]),
        st.sampled_from(["a", "b", "y", "-1", "0", "(/ 1 3)", "(- a)"]),
    ).map(lambda t: read_expressions(f"({' '.join(t)})")[0]),
    lambda inner: st.tuples(
        st.sampled_from(["and", "or", "not", "=>"]), st.lists(inner, min_size=1, max_size=3)
    ).map(lambda t: [t[0], *(t[1] if t[0] != "not" else t[1][:1])]),
    max_leaves=8,
)


def holds(e: Expression, at: dict[str, Fraction]) -> Any:
    """The value of an expression at a point, by the textbook."""
    if isinstance(e, str):
        return at[e] if e in at else Fraction(e)
    head, *rest = e
    v = [holds(r, at) for r in rest]
    match head:
        case "and":
            return all(v)
        case "or":
            return any(v)
        case "not":
            return not v[0]
        case "=>":
            return v[-1] or not all(v[:-1])
        case "+":
            return sum(v)
        case "-":
            return v[0] - v[1] if len(v) == 2 else -v[0]
        case "*":
            return math.prod(v)
        case "/":
            return v[0] / v[1]
        case "distinct":
            return v[0] != v[1]
        case _:
            a, b = v
            return {"<=": a <= b, ">=": a >= b, "=": a == b, "<": a < b, ">": a > b}[str(head)]


coordinates = st.fractions(-3, 3, max_denominator=6)


@given(formulas, coordinates, coordinates, coordinates)
def test_no_point_that_satisfies_a_formula_is_outside_its_box(
    formula: Expression, a: Fraction, b: Fraction, y: Fraction
) -> None:
    assume(holds(formula, {"a": a, "b": b, "y": y}))
    region = implied_region(formula, {"a", "b"}.__contains__)
    assert region is not None
    for name, value in (("a", a), ("b", b)):
        low, high = region.get(name, (-INF, INF))
        assert low <= value <= high


needs_shared = pytest.mark.skipif(not DOMAINS.is_dir(), reason="../shared/domains is absent")


@needs_shared
@pytest.mark.parametrize("path", sorted(DOMAINS.glob("*.vnnlib")), ids=lambda p: p.name)
def test_real_file_gives_the_bounds_that_its_lines_state(path: Path) -> None:
    text = path.read_text()
    size = len(re.findall(r"declare-const X_", text))
    box = resolve_domain(path, (Input("x", (1, size)),), {}).boxes["x"]
    found = re.findall(r"\(assert \(([<>])= X_(\d+) ([-0-9.e]+)\)\)", text)
    assert len(found) == 2 * size
    for side, index, number in found:
        values = box.upper if side == "<" else box.lower
        assert values[0, int(index)] == float(number)
    stored = resolve_domain(path, (Input("x", (1, size), FLOAT32),), {}).boxes["x"]
    assert (stored.lower <= box.lower).all()
    assert (stored.upper >= box.upper).all()
