"""The comparison: what runs, what is measured again, what it amounts to, and who disagrees."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import compare, contest
from benchmarks.compare import Job, enter, jobs, known, open_units
from benchmarks.comparing import contestants, others
from benchmarks.comparing.contestants import CONTESTANTS, OURS, SkippedError
from benchmarks.comparing.page import networks_words
from benchmarks.comparing.summary import Median, Ratio, clashes, median, race, typical
from benchmarks.comparing.tables import cell, conditions, disagreement_words, markdown
from benchmarks.deciding.cases import Case
from benchmarks.deciding.verdicts import Verdicts
from benchmarks.measure import measure
from benchmarks.running.processes import machine
from benchmarks.training.data import BenchmarkError
from benchmarks.training.networks import NetworkSpec
from benchmarks.training.trained import TrainedNetwork, trained_networks
from onnx_exact.decide.verdict import Status
from tests.benchmarks.test_decide import UNITS, tiny_case, verdicts

Entry = dict[str, Any]


def run(cpu: float, left_open: int = 0, samples: float = 0.0, program: bool = False) -> Entry:
    """What a run measures; by the clock it took as long as by the processor."""
    stages = {"samples": samples} | ({"milp": cpu - samples} if program else {})
    return {
        **{"repeat": 0, "units": 10, "decided": 10 - left_open, "open": left_open},
        **{"seconds": cpu, "cpu_seconds": cpu, "read_seconds": 0.0, "peak_mb": 50.0},
        "limit": 60.0,
        "stage_seconds": stages,
    }


def network(folder: Path, name: str = "tiny") -> TrainedNetwork:
    file = tiny_case(folder, name).file
    return TrainedNetwork(NetworkSpec("digits", (5, 4), 0.0), file, 0.5, "0")


def test_slow_contestants_run_once_and_the_order_depends_on_the_seed_alone(tmp_path: Path) -> None:
    networks = [network(tmp_path)]
    found = jobs(networks, [OURS, "isa"], 3, seed=1)
    assert sorted(job.key[1:] for job in found) == [(OURS, 0), (OURS, 1), (OURS, 2), ("isa", 0)]
    assert found == jobs(networks, [OURS, "isa"], 3, seed=1)
    orders = {tuple(j.key for j in jobs(networks, [OURS, "isa"], 3, seed)) for seed in range(9)}
    assert len(orders) > 1


def test_a_measurement_replaces_the_older_one_of_the_same_job(tmp_path: Path) -> None:
    results: Entry = {"runs": {}}
    own = network(tmp_path)
    for repeat, cpu in ((1, 1.0), (0, 2.0), (1, 3.0)):
        enter(results, Job(own, OURS, repeat), run(cpu) | {"repeat": repeat})
    entries = results["runs"][own.name][OURS]
    assert [(e["repeat"], e["cpu_seconds"]) for e in entries] == [(0, 2.0), (1, 3.0)]
    assert known(results, Job(own, OURS, 1)) == entries[1]
    assert known(results, Job(own, OURS, 2)) is None
    assert known(results, Job(own, "isa", 0)) is None


def test_typical_is_the_median_with_the_spread_and_the_most_open_units() -> None:
    found = typical([run(3.0), run(1.0, left_open=2), run(2.0), {"error": "failed"}])
    assert found is not None
    assert (found.seconds, found.least, found.most) == (2.0, 1.0, 3.0)
    assert (found.open, found.units) == (2, 10)
    assert typical([{"skipped": "no licence"}, {"error": "failed"}]) is None


def test_the_time_of_a_program_leaves_out_its_sampling() -> None:
    found = typical([run(8.0, samples=6.0, program=True)])
    assert found is not None
    assert found.program == pytest.approx(2.0)


def test_ratios_are_lower_bounds_where_the_other_did_not_finish() -> None:
    runs = {
        "both": {OURS: [run(0.5)], "isa": [run(5.0, samples=3.75, program=True)]},
        "other open": {OURS: [run(0.5)], "isa": [run(50.0, left_open=3, program=True)]},
        "no program": {OURS: [run(1.0)], "isa": [run(2.0, samples=2.0)]},
        "ours open": {OURS: [run(9.0, left_open=1)], "isa": [run(1.0)]},
        "other failed": {OURS: [run(1.0)], "isa": [{"error": "failed"}]},
        "not run": {OURS: [run(1.0)]},
    }
    found = race(runs, "isa")
    assert found.ratios == (
        Ratio("both", 10.0, False),
        Ratio("other open", 100.0, True),
        Ratio("no program", 2.0, False),
    )
    assert [(r.case, r.value) for r in found.programs] == [("both", 2.5), ("other open", 100.0)]
    assert found.ours_open == ("ours open",)
    assert found.finished == 2


def test_a_median_is_a_lower_bound_only_where_a_bound_lies_at_or_below_it() -> None:
    above = [Ratio("a", 1.0, False), Ratio("b", 2.0, False), Ratio("c", 9.0, True)]
    assert median(above) == Median(2.0, False)
    below = [Ratio("a", 1.0, True), Ratio("b", 2.0, False), Ratio("c", 9.0, False)]
    assert median(below) == Median(2.0, True)
    assert str(median(below)) == "≥ 2"
    assert median([]) is None


def test_every_disagreement_is_named_with_both_runs() -> None:
    one = verdicts(Status.ACTIVE, Status.UNSTABLE, Status.INACTIVE)
    other = verdicts(Status.ACTIVE, Status.ACTIVE, Status.UNDECIDED)
    found = clashes("net", {"auto #1": one, "auto #2": one, "isa #1": other})
    assert [wrong["verdicts"] for wrong in found] == [
        {"auto #1": "UNSTABLE", "isa #1": "ACTIVE"},
        {"auto #2": "UNSTABLE", "isa #1": "ACTIVE"},
    ]
    assert {(wrong["case"], wrong["layer"], wrong["unit"]) for wrong in found} == {("net", 0, 1)}
    words = disagreement_words({"disagreements": found, "runs": {}})
    assert "net, layer 1, unit 1" in words
    assert "auto #1 says UNSTABLE, isa #1 says ACTIVE" in words


def test_open_units_are_listed_by_layer_and_unit() -> None:
    assert open_units(verdicts(Status.ACTIVE, Status.UNDECIDED, Status.UNDECIDED)) == [
        *([0, 1], [0, 2])
    ]


def test_a_cell_says_what_was_left_open() -> None:
    assert cell(typical([run(2.0), run(4.0)]), "isa") == "3 (2-4)"
    assert cell(typical([run(60.0, left_open=4)]), "isa") == "> 60, 4 open"
    assert cell(typical([run(0.1, left_open=4)]), "bounds") == "0.1, 4 open"
    assert cell(None, "isa") == ""


def planted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> tuple[list[str], Path, Path]:
    """A command over one network that measures in this process."""
    own = network(tmp_path)
    monkeypatch.setattr(compare, "trained_networks", lambda: [own])
    monkeypatch.setattr(compare, "others_networks", list)

    def in_process(module: str, arguments: list[str], seconds: float, threads: int) -> Entry:
        assert module == "benchmarks.contest"
        printed: list[str] = []
        monkeypatch.setattr(contest, "print", printed.append, raising=False)
        contest.main(arguments)
        entry: Entry = json.loads(printed[0])
        return entry

    monkeypatch.setattr(compare, "run_child", in_process)
    flags = ["--contestants", *names, "--limit", "60", "--repeat", "2"]
    return flags, tmp_path / "results" / "compare.json", tmp_path / "verdicts"


def test_the_command_measures_compares_and_goes_on_where_it_was_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, path, folder = planted_run(tmp_path, monkeypatch, (OURS, "per-unit", "isa"))
    assert compare.main(flags, path, folder) == 0
    results = json.loads(path.read_text())
    (runs,) = results["runs"].values()
    assert [len(runs[name]) for name in (OURS, "per-unit", "isa")] == [2, 1, 1]
    assert all(entry["decided"] == UNITS for entry in (*runs[OURS], *runs["per-unit"]))
    assert [entry["seed"] for entry in runs[OURS]] == [0, 1]
    assert runs["isa"][0]["skipped"] == "its training data is not on record"
    assert results["disagreements"] == []
    assert "no disagreement" in path.with_suffix(".md").read_text()

    before = path.read_text()
    monkeypatch.setattr(compare, "run_job", lambda *_: pytest.fail("measured again"))
    assert compare.main([*flags, "--resume"], path, folder) == 0
    assert path.read_text() == before
    capsys.readouterr()


def test_resuming_measures_what_failed_and_what_another_limit_was_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags, path, folder = planted_run(tmp_path, monkeypatch, (OURS,))
    assert compare.main(flags, path, folder) == 0
    results = json.loads(path.read_text())
    (runs,) = results["runs"].values()
    runs[OURS][1] = {"error": "failed", "repeat": 1, "fingerprint": runs[OURS][1]["fingerprint"]}
    path.write_text(json.dumps(results))
    again: list[int] = []
    real = compare.run_job

    def counted(job: Job, *rest: Any) -> Entry:
        again.append(job.repeat)
        return real(job, *rest)

    monkeypatch.setattr(compare, "run_job", counted)
    assert compare.main([*flags, "--resume"], path, folder) == 0
    assert again == [1]
    assert compare.main([*flags, "--resume", "--limit", "50"], path, folder) == 0
    assert sorted(again) == [0, 1, 1]


def test_a_disagreement_fails_the_command_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, path, folder = planted_run(tmp_path, monkeypatch, (OURS, "bounds"))
    real = compare.run_job

    def wrong(job: Job, limit: float, seed: int, file: Path) -> Entry:
        entry = real(job, limit, seed, file)
        if job.contestant == "bounds":
            truth = Verdicts.read(file)
            status = {i: values.copy() for i, values in truth.status.items()}
            status[1][0] = Status.ACTIVE if status[1][0] != Status.ACTIVE else Status.INACTIVE
            replace(truth, status=status).save(file)
        return entry

    monkeypatch.setattr(compare, "run_job", wrong)
    assert compare.main(flags, path, folder) == 1
    assert "layer 2, unit 0**: " in capsys.readouterr().out
    assert json.loads(path.read_text())["disagreements"]


def test_a_network_that_is_not_on_record_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main(["--only", "nonsense"], tmp_path / "compare.json", tmp_path) == 2
    assert capsys.readouterr().err.startswith("benchmarks.compare: no network 'nonsense'")


def test_tables_hold_every_contestant_and_what_was_skipped(tmp_path: Path) -> None:
    own = network(tmp_path)
    layers = [{"inactive": 1, "active": 2, "unstable": 7, "open": 0}]
    results: Entry = {
        **{"machine": machine(("numpy",)), "seed": 0, "limit": 60.0, "disagreements": []},
        "networks": {own.name: own.to_json()},
        "runs": {
            own.name: {
                OURS: [run(0.5) | {"layers": layers, "open_units": [[0, 3]]}],
                "isa": [run(60.0, left_open=1, program=True)],
                "lirpa": [{"skipped": "not there", "repeat": 0}],
            }
        },
    }
    text = markdown(results)
    assert all(f"`{name}`" in text for name in CONTESTANTS)
    assert "≥ 120" in text
    assert "> 60, 1 open" in text
    assert "| not there | 1" in " ".join(text.split())
    assert f"- {own.name}: 1/3" in text


def test_networks_of_others_are_compared_over_their_domains_where_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(others.COMPARED[0], tiny_case(tmp_path).file, "0:1")
    absent = [Case(name, tmp_path / "absent.onnx") for name in others.COMPARED[1:]]
    monkeypatch.setattr(others, "cases", lambda: [case, *absent])
    (found,) = others.others_networks()
    assert (found.name, found.file) == (case.name, case.file)
    flags, path, folder = planted_run(tmp_path, monkeypatch, (OURS,))
    monkeypatch.setattr(compare, "others_networks", others.others_networks)
    assert compare.main([*flags, "--only", found.name], path, folder) == 0
    results = json.loads(path.read_text())
    assert [entry["open"] for entry in results["runs"][case.name][OURS]] == [0, 0]
    assert results["networks"] == {case.name: {"domain": "[0,1]"}}
    assert networks_words(results).endswith("1 networks of others, 1 of them wholly decided.")


def test_the_least_and_the_greatest_limit_of_all_runs_are_named(tmp_path: Path) -> None:
    results: Entry = {"seed": 0, "limit": 60.0, "runs": {"net": {OURS: [run(1.0)]}}}
    assert "at most 60 s each" in conditions(results)
    results["runs"]["net"]["isa"] = [run(200.0) | {"limit": 300.0}]
    assert "at most 60 to 300 s each" in conditions(results)


def test_contestants_that_need_what_is_missing_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = tiny_case(tmp_path)
    with pytest.raises(SkippedError, match="not on record"):
        CONTESTANTS["isa"].prepare(case)
    monkeypatch.setattr(contestants, "read_record", lambda: {case.name: {"data": "digits"}})

    def missing() -> None:
        raise BenchmarkError("no data")

    monkeypatch.setattr(contestants, "DATASETS", {"digits": missing})
    with pytest.raises(SkippedError, match="no data"):
        CONTESTANTS["isa"].prepare(case)


@pytest.mark.parametrize("name", ["isa-gurobi", "per-unit-gurobi"])
def test_gurobi_agrees_with_the_tool_on_a_small_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pytest.importorskip("gurobipy")
    case = tiny_case(tmp_path)
    rng = np.random.default_rng(0)
    samples = rng.random((4, 3)).astype(np.float32)
    monkeypatch.setattr(contestants, "_training_inputs", lambda _: samples)
    found = {}
    for contestant in (CONTESTANTS[OURS], CONTESTANTS[name]):
        decide = contestant.prepare(case)
        _, stability = measure(case, contestant.method, 60.0, 0, decide)
        found[contestant.name] = Verdicts.of(stability)
    assert not any((status == Status.UNDECIDED).any() for status in found[name].status.values())
    assert clashes(case.name, found) == []


def test_every_trained_network_on_record_has_its_own_file_and_case() -> None:
    networks = trained_networks()
    assert len({network.file for network in networks}) == len(networks) > 0
    assert all(network.case.name == network.spec.name for network in networks)
