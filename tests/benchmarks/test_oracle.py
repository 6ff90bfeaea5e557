"""The record of `benchmarks.oracle`: it goes on where it was, and says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import oracle
from tests.oracle.judge import Judgement

FEW = 3


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Runs cost nothing and nothing is wrong; the networks that were judged, run by run."""
    judged: list[int] = []

    def judge(known: object, way: object) -> Judgement:
        judged.append(len(judged))
        return Judgement(units=2, undecided=1)

    monkeypatch.setattr(oracle, "judge", judge)
    return judged


def test_a_record_holds_real_runs(tmp_path: Path) -> None:
    record = tmp_path / "oracle.jsonl"
    assert oracle.main(["--count", str(FEW), "--record", str(record)]) == 0
    (block,) = lines(record)
    assert block["first"] == 0
    assert block["count"] == FEW
    assert sum(block["networks"].values()) == FEW
    assert sum(block["runs"].values()) == 6 * FEW
    assert block["wrong"] == []
    assert f"**{FEW} networks, {6 * FEW} runs: 0 wrong.**" in (tmp_path / "oracle.md").read_text()


def test_what_is_recorded_is_not_done_again(tmp_path: Path, quick: list[int]) -> None:
    record = tmp_path / "oracle.jsonl"
    oracle.run(record, oracle.BLOCK, 1)
    first, done = record.read_text(), len(quick)
    oracle.run(record, oracle.BLOCK + FEW, 1)
    assert len(quick) == done + 6 * FEW
    assert record.read_text().startswith(first)


def test_a_block_that_was_cut_short_and_one_of_other_sources_are_done_again(
    tmp_path: Path, quick: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "oracle.jsonl"
    oracle.run(record, FEW, 1)
    oracle.run(record, FEW + 1, 1)
    assert [block["count"] for block in lines(record)] == [FEW + 1]
    monkeypatch.setattr(oracle, "sources", lambda: "others")
    done = len(quick)
    oracle.run(record, FEW, 1)
    assert len(quick) == done + 6 * FEW
    assert [block["sources"] for block in lines(record)] == ["others"]


def test_what_is_wrong_is_in_the_record_and_in_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Judgement(wrong=("one thing", "another"), refused="")
    monkeypatch.setattr(oracle, "judge", lambda known, way: found)
    record = tmp_path / "oracle.jsonl"
    assert oracle.main(["--count", "1", "--record", str(record)]) == 1
    (block,) = lines(record)
    assert len(block["wrong"]) == 6
    assert "normal 0, auto deploy all exact: one thing (and 1 more)" in block["wrong"]
    assert "- normal 0, auto deploy all exact: one thing" in (tmp_path / "oracle.md").read_text()


def test_two_processes_find_what_one_does() -> None:
    """In blocks that come in any order; how far a run gets in its time is another matter."""
    todo = [(0, 1), (1, 1)]
    one, two = (sorted(oracle._done(todo, jobs), key=lambda b: b["first"]) for jobs in (1, 2))
    for block in (*one, *two):
        for name in ("processor_seconds", "refused", *set(oracle.COUNTED) - {"units"}):
            del block[name]
    assert one == two
