"""Certificates written by hand are accepted, and refused in one line wherever they are wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_exact.cli import main
from onnx_exact.errors import NotVerifiedError, UsageError
from onnx_exact.verified import Verification, verify
from tests.verifier.build import Written, branched, npy, tiny

Change = Callable[[Written], Any]


def check(written: Written, **options: Any) -> Verification:
    return verify(written.old, written.new, written.certificate, **options)


def refusal(written: Written, **options: Any) -> str:
    with pytest.raises((NotVerifiedError, UsageError)) as caught:
        check(written, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message
    return message


def test_removal_is_certified_to_change_nothing(tmp_path: Path) -> None:
    found = check(tiny(tmp_path))

    assert found.deviation == 0.0
    assert found.chains[0].counts == {(3, 5): 2, (1, 1): 2, (2, 1): 1}
    assert found.claims == 0
    assert found.verified


@pytest.mark.parametrize("kind", ["box", "relu"])
def test_a_verdict_by_branching_is_accepted(tmp_path: Path, kind: str) -> None:
    found = check(branched(tmp_path, kind))

    assert (found.chains[0].trees, found.chains[0].leaves) == (1, 3 if kind == "box" else 2)
    assert found.deviation == 0.0


def test_the_verdict_by_branching_does_not_follow_from_bounds(tmp_path: Path) -> None:
    proof = np.array([1, 1], np.int8)
    assert "unit 0 of layer 2" in refusal(
        branched(tmp_path, "box")
        .chain(trees=[])
        .changed(c0_l1_proof=proof, c0_t0_units=None, c0_t0_positive=None, c0_t0_nodes=None)
    )


def test_a_slope_record_settles_what_default_slopes_do_not(tmp_path: Path) -> None:
    """h1 = relu(x + 0.5) has slope 1 by default; with 0 the bound is 0.5 x + 0.5 - 2 < 0."""
    written = (
        branched(tmp_path, "box")
        .chain(trees=[])
        .changed(
            c0_t0_units=None,
            c0_t0_positive=None,
            c0_t0_nodes=None,
            c0_l1_proof=np.array([2, 1], np.int8),
            c0_l1_slopes_unit=np.array([0], np.int32),
            c0_l1_slopes_positive=np.array([True]),
            c0_l1_slopes=np.array([[0, 128, 0, 0]], np.uint8),
        )
    )
    # 0.25 - 0.05 is left with the best slope, so that this is still refused ...
    assert "-1.55 and 0.2" in refusal(written)
    # ... and less than the 0.45 of the default slope.
    assert "-1.55 and 0.45" in refusal(
        written.changed(c0_l1_slopes=np.array([[0, 255, 0, 0]], np.uint8))
    )


def test_a_certificate_that_rests_on_a_claim_is_not_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tiny(tmp_path).changed(c0_l1_proof=np.array([5, 4], np.int8))
    found = check(written)
    assert (found.claims, found.verified, found.exit_code) == (1, False, 3)
    command = ["verify", str(written.old), str(written.new), "--certificate"]
    assert main([*command, str(written.certificate)]) == 3
    assert "rests on 1 verdicts that are only claimed" in capsys.readouterr().out


def test_a_wrong_claim_is_refuted_by_a_witness(tmp_path: Path) -> None:
    written = tiny(tmp_path).changed(
        c0_l1_status=np.array([1, 1], np.int8), c0_l1_proof=np.array([4, 1], np.int8)
    )
    assert "unit 0 of layer 2" in refusal(written)


ONE = np.array([1, 1], np.int8)
TAMPERED: dict[str, Change] = {
    "a verdict flipped": lambda w: w.changed(c0_l0_status=np.array([3, 2, 2], np.int8)),
    "an unstable unit called active": lambda w: w.changed(
        c0_l0_status=np.array([2, 1, 2], np.int8), c0_l0_proof=np.array([1, 1, 1], np.int8)
    ),
    "a witness gone": lambda w: w.changed(c0_witnesses=np.array([[1, 0]], np.float32)),
    "a status without a proof": lambda w: w.changed(c0_l0_proof=np.array([5, 0, 1], np.int8)),
    "an unknown status": lambda w: w.changed(c0_l0_status=np.array([3, 9, 2], np.int8)),
    "a proof by a tree that is not there": lambda w: w.changed(
        c0_l1_status=ONE, c0_l1_proof=np.array([3, 1], np.int8)
    ),
    "the map to another unit": lambda w: w.changed(c0_m0_unit=np.array([1, -1, 0], np.int32)),
    "the map to a unit that is not there": lambda w: w.changed(
        c0_m0_unit=np.array([0, -1, 2], np.int32)
    ),
    "an unstable unit gone together with nothing": lambda w: w.changed(
        c0_m0_unit=np.array([-2, -1, 1], np.int32)
    ),
    "units gone together that do not cancel": lambda w: w.changed(
        c0_m0_unit=np.array([-2, -2, -2], np.int32)
    ),
    "a factor of 0": lambda w: w.changed(c0_m0_factor=np.array([0.0, 1, 1])),
    "units gone together in a layer that stays": lambda w: w.changed(
        c0_g0_unit=np.array([-2, -2, -1], np.int32)
    ),
    "an unstable unit gone": lambda w: w.changed(c0_m0_unit=np.array([-1, -1, 1], np.int32)),
    "another factor": lambda w: w.changed(c0_m0_factor=np.array([2.0, 1, 1])),
    "a negative factor": lambda w: w.changed(c0_m0_factor=np.array([-1.0, 1, 1])),
    "a factor that is nan": lambda w: w.changed(c0_m0_factor=np.array([np.nan, 1, 1])),
    "a factor that is infinite": lambda w: w.changed(c0_m0_factor=np.array([np.inf, 1, 1])),
    "a huge factor": lambda w: w.changed(c0_m0_factor=np.array([1e308, 1, 1])),
    "the outputs swapped with nothing": lambda w: w.changed(c0_m2_unit=np.array([-1], np.int32)),
    "a witness that is nan": lambda w: w.changed(
        c0_witnesses=np.array([[1, np.nan], [0, 1]], np.float32)
    ),
    "witnesses of another width": lambda w: w.changed(c0_witnesses=np.zeros((2, 3), np.float32)),
    "another type": lambda w: w.changed(c0_l0_status=np.array([3, 1, 2], np.int16)),
    "objects": lambda w: w.changed(c0_l0_status=np.array([3, None, 2], object)),
    "another shape": lambda w: w.changed(c0_l0_status=np.array([[3, 1, 2]], np.int8)),
    "too short": lambda w: w.changed(c0_l0_status=np.array([3, 1], np.int8)),
    "an array missing": lambda w: w.changed(c0_l1_proof=None),
    "an array too many": lambda w: w.changed(c0_l7_status=np.array([3], np.int8)),
    "other widths": lambda w: w.chain(widths=[3, 3, 1]),
    "other widths of the result": lambda w: w.chain(result_widths=[2, 2, 1]),
    "no chains": lambda w: w.changed({"chains": []}),
    "chains of another kind": lambda w: w.changed({"chains": {"a": 1}}),
    "a chain of another kind": lambda w: w.changed({"chains": [3]}),
    "a chain twice": lambda w: w.changed({"chains": w.header["chains"] * 2}),
    "sources in another order": lambda w: w.chain(sources=[1, 0, 2]),
    "sources beyond the end": lambda w: w.chain(sources=[0, 1, 3]),
    "sources of another kind": lambda w: w.chain(sources=[0, True, 2.0]),
    "huge sources": lambda w: w.chain(sources=[0, 1, 10**400]),
    "another output": lambda w: w.chain(output="h0"),
    "a tensor that is not there": lambda w: w.chain(input="nothing"),
    "trees of another kind": lambda w: w.chain(trees=[{"kind": "bush", "layer": 1}]),
    "a tree of a layer that is not there": lambda w: w.chain(trees=[{"kind": "box", "layer": -1}]),
    "another format": lambda w: w.changed({"format": "something else"}),
    "another version": lambda w: w.changed({"version": 3}),
    "no deviation": lambda w: w.changed({"deviation": {}}),
    "a deviation that is nan": lambda w: w.changed({"deviation": {"certified_max_abs": np.nan}}),
    "a huge deviation": lambda w: w.changed({"deviation": {"certified_max_abs": 10**400}}),
    "the hash of another model": lambda w: w.changed({"original": {"sha256": "0" * 64}}),
    "the hash of another result": lambda w: w.changed({"result": w.header["original"]}),
    "a wider domain": lambda w: w.changed({"domain": {"x": {"lower": 0.0, "upper": 1.5}}}),
    "a narrower domain": lambda w: w.changed({"domain": {"x": {"lower": 0.0, "upper": 0.5}}}),
    "no domain": lambda w: w.changed({"domain": {}}),
    "an unbounded domain": lambda w: w.changed({"domain": {"x": {"lower": 0.0, "upper": None}}}),
    "an empty domain": lambda w: w.changed({"domain": {"x": {"lower": 1.0, "upper": 0.0}}}),
    "a domain of words": lambda w: w.changed({"domain": {"x": {"lower": "a", "upper": "b"}}}),
    "the domain of another input": lambda w: w.changed({"domain": {"z": {"lower": 0, "upper": 1}}}),
    "a domain of huge numbers": lambda w: w.changed(
        {"domain": {"x": {"lower": 0, "upper": 10**400}}}
    ),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_tampering_is_refused(tmp_path: Path, what: str) -> None:
    refusal(TAMPERED[what](tiny(tmp_path)))


TREES: dict[str, tuple[str, Change]] = {
    "a split dropped": ("box", lambda w: w.changed(c0_t0_nodes=np.array([-1], np.int16))),
    "another side": (
        "box",
        lambda w: w.changed(c0_t0_nodes=np.array([1, -1, 0, -1, -1], np.int16)),
    ),
    "a side that is not there": (
        "box",
        lambda w: w.changed(c0_t0_nodes=np.array([2, -1, -1], np.int16)),
    ),
    "a negative side": ("box", lambda w: w.changed(c0_t0_nodes=np.array([-2, -1, -1], np.int16))),
    "leaves missing": ("box", lambda w: w.changed(c0_t0_nodes=np.array([0, -1], np.int16))),
    "nodes too many": ("box", lambda w: w.changed(c0_t0_nodes=np.array([-1, -1], np.int16))),
    "no nodes": ("box", lambda w: w.changed(c0_t0_nodes=np.array([], np.int16))),
    "the other sign": ("box", lambda w: w.changed(c0_t0_positive=np.array([False]))),
    "no leaf fixed": (
        "relu",
        lambda w: w.changed(
            c0_t0_nodes=np.array([[-1, -1]], np.int32),
            c0_t0_slopes=np.array([[0, 255, 0, 0]], np.uint8),
            c0_t0_multipliers=np.array([], np.float32),
        ),
    ),
    "worse slopes": (
        "relu",
        lambda w: w.changed(c0_t0_slopes=np.array([[0, 0, 0, 0], [0, 0, 0, 0]], np.uint8)),
    ),
    "slopes of another width": (
        "relu",
        lambda w: w.changed(c0_t0_slopes=np.zeros((2, 5), np.uint8)),
    ),
    "slopes beyond [0, 1]": (
        "relu",
        lambda w: w.changed(c0_t0_slopes=np.array([[0, 2, 0, 0], [0, 0, 0, 0]], np.float32)),
    ),
    "a negative multiplier": (
        "relu",
        lambda w: w.changed(c0_t0_multipliers=np.array([-1, 0], np.float32)),
    ),
    "a multiplier that is nan": (
        "relu",
        lambda w: w.changed(c0_t0_multipliers=np.array([np.nan, 0], np.float32)),
    ),
    "an infinite multiplier": (
        "relu",
        lambda w: w.changed(c0_t0_multipliers=np.array([np.inf, 0], np.float32)),
    ),
    "a huge multiplier": (
        "relu",
        lambda w: w.changed(c0_t0_multipliers=np.array([3e38, 3e38], np.float32)),
    ),
    "a multiplier missing": (
        "relu",
        lambda w: w.changed(c0_t0_multipliers=np.array([0], np.float32)),
    ),
    "a split on a later layer": (
        "relu",
        lambda w: w.changed(c0_t0_nodes=np.array([[1, 0], [-1, -1], [-1, -1]], np.int32)),
    ),
    "a split on a negative unit": (
        "relu",
        lambda w: w.changed(c0_t0_nodes=np.array([[0, -1], [-1, -1], [-1, -1]], np.int32)),
    ),
    "a split that helps nothing": (
        "relu",
        lambda w: w.changed(c0_t0_nodes=np.array([[0, 2], [-1, -1], [-1, -1]], np.int32)),
    ),
}


@pytest.mark.parametrize("what", TREES)
def test_a_tree_that_proves_nothing_is_refused(tmp_path: Path, what: str) -> None:
    kind, change = TREES[what]
    refusal(change(branched(tmp_path, kind)))


@pytest.mark.parametrize(
    ("what", "code", "why"),
    [
        # No bound and no point says that unit 0 of layer 2 is positive anywhere.
        ("not shown", 3, "is not shown to be stably inactive"),
        ("by fewer parts", 3, "does not exclude the signs"),
        # Its bounds are negative, and those of its own weights.
        ("false", 1, "is not stably active"),
    ],
)
def test_what_is_not_shown_is_told_from_what_is_false(
    tmp_path: Path, what: str, code: int, why: str
) -> None:
    bounds = np.array([1, 1], np.int8)
    untreed = dict.fromkeys(("c0_t0_units", "c0_t0_positive", "c0_t0_nodes"))
    written = branched(tmp_path, "box")
    if what == "not shown":
        written = written.chain(trees=[]).changed(c0_l1_proof=bounds, **untreed)
    elif what == "by fewer parts":
        written = written.changed(c0_t0_nodes=np.array([-1], np.int16))
    else:
        written = tiny(tmp_path)
        status = written.arrays["c0_l0_status"].copy()
        status[np.flatnonzero(status == 1)[0]] = 2
        written = written.changed(c0_l0_status=status)
    with pytest.raises(NotVerifiedError, match=why) as caught:
        check(written)
    assert caught.value.exit_code == code


def test_any_multiplier_that_is_not_negative_gives_a_true_bound(tmp_path: Path) -> None:
    """x >= 0 on the first leaf: 0.1 x more than needed leaves the bound below 0."""
    written = branched(tmp_path, "relu")
    assert check(written.changed(c0_t0_multipliers=np.array([0.1, 0.01], np.float32)))


@pytest.mark.parametrize("part", range(3))
def test_a_weight_changed_by_a_thousandth_is_refused(tmp_path: Path, part: int) -> None:
    """Also where the certificate is that of the changed model."""
    written = tiny(tmp_path)
    model = onnx.load(written.new)
    tensor = next(t for t in model.graph.initializer if t.name == f"w{part}")
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] *= 1.001
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, written.new)
    assert "another result" in refusal(written)

    from onnx_exact.verifier.model import Model

    sha256 = Model(written.new, "a model").sha256
    assert "deviation" in refusal(written.changed({"result": {"sha256": sha256}}))


def test_the_domain_asked_for_has_to_be_inside(tmp_path: Path) -> None:
    written = tiny(tmp_path)
    assert check(written, domain="0.25:0.5")
    assert "smaller than the one asked for" in refusal(written, domain="0:1.25")


def test_a_member_that_is_no_array_is_refused(tmp_path: Path) -> None:
    for data in (b"", b"garbage", npy(np.zeros(3, np.int8))[:-1], npy(np.zeros(3, np.int8)) + b"0"):
        written = tiny(tmp_path)
        written.member("c0_l0_status.npy", data)
        refusal(written)


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    written = tiny(tmp_path)
    header = npy(np.zeros((0, 2), np.float64))
    # Says that 2^40 points follow; a gigabyte of zeros would.
    data = header.replace(b"(0, 2)", b"(1099511627776, 2)")[: len(header)] + b"\0" * 10_000_000
    written.member("c0_witnesses.npy", data)
    refusal(written)


def test_deep_nesting_and_numbers_that_json_does_not_have_are_refused(tmp_path: Path) -> None:
    texts = [b"[" * 100_000, b'{"format": NaN}', b'{"format": Infinity}', b"\xff\xfe", b"{}", b""]
    nested = json.dumps({"lower": 0, "upper": "DEEP"}).replace('"DEEP"', "[" * 900 + "]" * 900)
    written = tiny(tmp_path)
    texts.append(
        json.dumps(written.header | {"domain": {"x": "D"}}).replace('"D"', nested).encode()
    )
    for text in texts:
        written.member("header.npy", npy(np.frombuffer(text, np.uint8)))
        refusal(written)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    written = tiny(tmp_path)
    whole = written.certificate.read_bytes()
    for length in range(0, len(whole), 97):
        written.certificate.write_bytes(whole[:length])
        refusal(written)


def test_the_command_prints_what_it_checked_or_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = branched(tmp_path, "box")
    command = ["verify", str(written.old), str(written.new), "--certificate"]
    assert main([*command, str(written.certificate)]) == 0
    text = capsys.readouterr().out
    for line in ("1 tree with 3 leaves", "differs by more than 0 (worst-case bound)."):
        assert line in text

    for other in (written.old, tmp_path / "nothing.npz", tmp_path):
        assert main([*command, str(other)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"error: {other} is no certificate")
        assert captured.err.count("\n") == 1
