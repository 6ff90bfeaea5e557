"""What a model that carries a domain may be given, by exact comparison of the boxes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from domain_inputs import FLOAT32, INT64, Input
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnx_exact.domains import (
    DOMAIN_KEY,
    Domain,
    DomainLike,
    domain_of_run,
    resolve_domain,
    same_boxes,
)
from onnx_exact.errors import DomainError

X = Input()
A, B, COUNT = Input("a", (None, 2)), Input("b", (3,), FLOAT32), Input("n", (1,), INT64)


def carrying(spec: DomainLike, *inputs: Input) -> dict[str, str]:
    """Metadata with the domain that `spec` declares."""
    domain = resolve_domain(spec, inputs or (X,), {})
    return {DOMAIN_KEY: json.dumps(domain.to_json())}


def taken(
    spec: DomainLike | None, metadata: dict[str, str], *inputs: Input, rebase: bool = False
) -> Domain:
    return domain_of_run(spec, inputs or (X,), metadata, rebase=rebase)


def refusal(
    spec: DomainLike | None, metadata: dict[str, str], *inputs: Input, rebase: bool = False
) -> str:
    with pytest.raises(DomainError) as caught:
        taken(spec, metadata, *inputs, rebase=rebase)
    message = str(caught.value)
    assert "\n" not in message
    assert DOMAIN_KEY in message
    assert "--rebase" in message
    return message


def test_without_a_domain_given_the_carried_one_stands() -> None:
    found = taken(None, carrying("0:0.2"))
    assert found.boxes["x"].upper.max() == 0.2
    assert found.source == "metadata of the model"
    assert same_boxes(found, taken([], carrying("0:0.2")))


def test_without_any_domain_every_finite_input_stands() -> None:
    assert not taken(None, {}).declared
    assert taken("0:1", {}).boxes["x"].upper.max() == 1.0


@pytest.mark.parametrize(
    "spec", ["0:0.2", "0.05:0.1", "0.2:0.2", "x=0:0.1", {"x": (0, [[0.1, 0.2]])}, (0.0, [0.1, 0.1])]
)
def test_a_domain_within_the_carried_one_is_taken(spec: DomainLike) -> None:
    assert same_boxes(taken(spec, carrying("0:0.2")), resolve_domain(spec, (X,), {}))


@pytest.mark.parametrize(
    "spec",
    [
        "0.8:1",
        "0:0.20000000000000004",
        "-5e-324:0.1",
        "0:inf",
        "-inf:inf",
        "x=-1:1",
        {"x": (0, [[0.2, 0.3]])},
        ([-1.0, 0.0], 0.1),
    ],
)
def test_a_domain_that_reaches_beyond_the_carried_one_is_refused(spec: DomainLike) -> None:
    assert "input 'x' reaches beyond it" in refusal(spec, carrying("0:0.2"))


def test_the_refusal_shows_the_first_entry_that_reaches_beyond_in_all_its_digits() -> None:
    message = refusal({"x": (0, [[0.2, 0.20000000000000004]])}, carrying("0:0.2"))
    assert "[0.0, 0.20000000000000004] is not within [0.0, 0.2]" in message


def test_rebase_takes_whatever_is_given() -> None:
    for metadata in (carrying("0:0.2"), {DOMAIN_KEY: "garbage"}):
        assert taken("0.8:1", metadata, rebase=True).boxes["x"].lower.min() == 0.8


def test_rebase_without_a_domain_keeps_to_the_carried_one() -> None:
    assert taken(None, carrying("0:0.2"), rebase=True).boxes["x"].upper.max() == 0.2
    refusal(None, {DOMAIN_KEY: "garbage"}, rebase=True)


@pytest.mark.parametrize("text", ["garbage", "", "[]", '{"y": {"lower": 0, "upper": 1}}', "{}"])
@pytest.mark.parametrize("spec", [None, "0:1"])
def test_carried_domain_that_cannot_be_read_is_refused_whatever_is_given(
    text: str, spec: str | None
) -> None:
    refusal(spec, {DOMAIN_KEY: text})


def test_every_finite_input_holds_every_domain_and_nothing_less_does() -> None:
    everything = carrying({"x": (-math.inf, math.inf)})
    for spec in ("0:1", "-inf:inf", "-inf:0"):
        assert taken(spec, everything).declared
    assert not taken(None, everything).declared


@pytest.mark.parametrize(("spec", "fits"), [("0:inf", True), ("3:4", True), ("-1:inf", False)])
def test_an_infinite_side_holds_all_on_that_side(spec: str, fits: bool) -> None:
    metadata = carrying("0:inf")
    if fits:
        assert taken(spec, metadata).declared
    else:
        refusal(spec, metadata)


def test_inputs_are_compared_one_by_one() -> None:
    metadata = carrying(["a=0:1", "b=0:0.1"], A, B, COUNT)
    given = taken(["b=0:0.1", "a=0.5:1"], metadata, A, B, COUNT)
    assert set(given.boxes) == {"a", "b"}
    assert "input 'b'" in refusal(["a=0:1", "b=0:0.2"], metadata, A, B, COUNT)


def test_an_input_that_is_not_given_counts_as_unbounded() -> None:
    metadata = carrying(["a=0:1", "b=0:1"], A, B)
    assert "input 'b'" in refusal("a=0:1", metadata, A, B)


def test_an_input_that_the_carried_domain_leaves_out_takes_any() -> None:
    metadata = {DOMAIN_KEY: '{"a": {"lower": 0, "upper": 1}}'}
    assert taken(["a=0:1", "b=-9:9"], metadata, A, B).boxes["b"].upper.max() == 9.0
    assert taken("a=0:1", metadata, A, B).declared
    assert "input 'a'" in refusal(["b=0:1"], metadata, A, B)


def test_bounds_of_one_sample_are_compared_with_those_of_a_batch() -> None:
    batch = Input("x", (2, 3))
    metadata = {DOMAIN_KEY: '{"x": {"lower": 0, "upper": [1, 2, 3]}}'}
    assert taken({"x": (0, [[1, 2, 3], [1, 1, 1]])}, metadata, batch).declared
    refusal({"x": (0, [[1, 2, 3], [1, 3, 1]])}, metadata, batch)


def test_files_are_compared_like_ranges(tmp_path: Path) -> None:
    metadata = carrying("0:0.2")
    texts = {
        "box.json": '{{"lower": 0, "upper": {}}}',
        "box.vnnlib": "(declare-const X_0 Real)(declare-const X_1 Real)(assert (and (>= X_0 0)"
        " (<= X_0 0.1) (>= X_1 0) (<= X_1 {})))",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text.format(0.2))
        assert taken(str(tmp_path / name), metadata).boxes["x"].upper.max() == 0.2
        (tmp_path / name).write_text(text.format(0.3))
        refusal(tmp_path / name, metadata)
    np.savez(tmp_path / "box.npz", lower=0.0, upper=[0.1, 0.2])
    assert taken(tmp_path / "box.npz", metadata).declared
    np.savez(tmp_path / "box.npz", lower=-1.0, upper=0.1)
    refusal(tmp_path / "box.npz", metadata)


def test_an_entry_without_a_bound_in_vnnlib_is_unbounded(tmp_path: Path) -> None:
    path = tmp_path / "box.vnnlib"
    path.write_text("(declare-const X_0 Real)(declare-const X_1 Real)(assert (<= X_0 0.1))")
    assert "-inf" in refusal(path, carrying("0:0.2"))


@pytest.mark.parametrize("text", ["0:0.1", "0.1:0.7", "-0.3:0.1"])
@pytest.mark.parametrize("elem_type", [FLOAT32, 10, 11])
def test_the_same_words_mean_the_same_domain_again(text: str, elem_type: int) -> None:
    """A box is widened to what its type stores, once and not again each time."""
    one = Input("x", (2,), elem_type)
    metadata = carrying(text, one)
    assert same_boxes(taken(text, metadata, one), taken(None, metadata, one))


ends = st.one_of(st.floats(allow_nan=False), st.sampled_from([-math.inf, -1.0, 0.0, 1.0, math.inf]))
sides = arrays(np.float64, (2,), elements=ends)
Sides = np.ndarray[Any, Any]


def box_of(a: Sides, b: Sides) -> tuple[Sides, Sides]:
    low, high = np.minimum(a, b), np.maximum(a, b)
    return np.where(low == np.inf, 0.0, low), np.where(high == -np.inf, 0.0, high)


@given(sides, sides, sides, sides)
def test_a_domain_is_taken_exactly_if_each_of_its_sides_lies_within(
    a: Sides, b: Sides, c: Sides, d: Sides
) -> None:
    """In float64, where nothing is widened, with the sides compared one by one in Python."""
    outer, inner = box_of(a, b), box_of(c, d)
    fits = all(
        float(outer[0][i]) <= float(inner[0][i]) and float(inner[1][i]) <= float(outer[1][i])
        for i in range(2)
    )
    metadata = carrying({"x": outer})
    if fits:
        assert same_boxes(taken({"x": inner}, metadata), resolve_domain({"x": inner}, (X,), {}))
    else:
        refusal({"x": inner}, metadata)


@given(sides, sides, sides, sides, st.sampled_from([FLOAT32, 10]))
def test_what_lies_within_is_taken_also_where_sides_are_widened(
    a: Sides, b: Sides, c: Sides, d: Sides, elem_type: int
) -> None:
    one = Input("x", (2,), elem_type)
    low, high = box_of(a, b)
    inner = box_of(np.clip(c, low, high), np.clip(d, low, high))
    try:
        metadata = carrying({"x": (low, high)}, one)
        expected = resolve_domain({"x": inner}, (one,), {})
    except DomainError:  # beyond every number of the type
        return
    assert same_boxes(taken({"x": inner}, metadata, one), expected)
