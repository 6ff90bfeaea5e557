"""Measuring how units are decided: end to end on tiny networks, and what has to be noticed."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import decide
from benchmarks.attack import RESTARTS, attack, exact_preactivation
from benchmarks.deciding.cases import Case, cases
from benchmarks.deciding.climb import Climb, Targets
from benchmarks.deciding.verdicts import Disagreement, Verdicts, disagreements
from benchmarks.measure import FIRST_STAGE, StageClock, load, measure
from benchmarks.running.searches import searches_counted
from benchmarks.training.export import relu_network_model, write_model
from onnx_exact.attack.pgd import Effort
from onnx_exact.decide.rounds import FIRST_EFFORT, LATER_EFFORTS
from onnx_exact.decide.run import analyze_chain
from onnx_exact.decide.verdict import Status
from onnx_exact.network.affine import Affine
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from tests.benchmarks.helpers import random_layers

UNITS = 5 + 4


def tiny_case(folder: Path, name: str = "tiny") -> Case:
    """Three inputs and two layers, either with inactive, active and unstable units."""
    layers = random_layers([3, 5, 4, 2], seed=24)
    for _, bias in layers[:2]:
        bias[:2] += np.array([6.0, -6.0], dtype=np.float32)
    path = folder / f"{name}.onnx"
    write_model(relu_network_model(layers, {}), path)
    return Case(name, path, "0:1", seconds=100.0, quick=True)


def test_a_case_is_decided_and_every_unit_and_second_is_counted(tmp_path: Path) -> None:
    measured, stability = measure(tiny_case(tmp_path), "auto", limit=60.0, seed=0)
    assert (measured.units, measured.decided, measured.open) == (UNITS, UNITS, 0)
    assert sum(sum(layer.values()) for layer in measured.layers) == UNITS
    assert sum(layer["inactive"] for layer in measured.layers) == stability.count(Status.INACTIVE)
    assert sum(layer["active"] for layer in measured.layers) == stability.count(Status.ACTIVE) > 0
    assert sum(measured.evidence.values()) == UNITS
    staged = measured.read_seconds + sum(measured.stage_seconds.values())
    # But for what is done between reading and deciding.
    assert staged <= measured.seconds + 0.001
    # Each is rounded to a tenth of a millisecond.
    assert sum(measured.layer_seconds.values()) == pytest.approx(
        sum(measured.stage_seconds.values()), abs=0.005
    )
    assert measured.peak_mb > 1.0


def test_stage_clock_adds_up_what_lies_between_two_calls() -> None:
    clock = StageClock()
    clock("bounds", "layer 1 of 2, 3 units open")
    clock("bounds", "layer 2 of 2, 1 units open")
    clock("milp", "")
    clock.stop()
    assert set(clock.stages) == {FIRST_STAGE, "bounds", "milp"}
    assert set(clock.layers) == {
        *(FIRST_STAGE, "bounds: layer 1 of 2", "bounds: layer 2 of 2", "milp")
    }
    assert sum(clock.layers.values()) == pytest.approx(sum(clock.stages.values()))


def test_the_command_writes_rows_comparisons_and_attacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = Case("absent", tmp_path / "absent.onnx")
    monkeypatch.setattr(decide, "cases", lambda: [tiny_case(tmp_path), absent])
    path = tmp_path / "results" / "decide.json"
    flags = ["--only", "tiny", "absent", "--methods", "auto", "per-unit", "--limit", "60"]
    assert decide.main([*flags, "--attack"], path, tmp_path / "verdicts") == 0
    results = json.loads(path.read_text())
    row = results["rows"]["tiny"]["auto"]
    assert row["decided"] == UNITS
    assert row["met"] is True
    assert results["comparisons"]["tiny"]["per-unit"]["disagreements"] == []
    assert results["attacks"]["tiny"]["violations"] == []
    assert results["attacks"]["tiny"]["units"] > 0
    assert results["machine"]["packages"]["numpy"] == np.__version__
    assert str(tmp_path) not in path.read_text()
    assert "| tiny | [0,1]" in path.with_suffix(".md").read_text()
    assert "absent: skipped" in capsys.readouterr().out

    before = path.read_text()
    monkeypatch.setattr(decide, "run_case", lambda *_: pytest.fail("measured again"))
    assert decide.main([*flags, "--attack", "--resume"], path, tmp_path / "verdicts") == 0
    assert path.read_text() == before


def test_a_run_that_fails_is_told_and_fails_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    monkeypatch.setattr(decide, "cases", lambda: [Case("broken", broken, "0:1")])
    path = tmp_path / "decide.json"
    assert decide.main(["--only", "broken"], path, tmp_path / "verdicts") == 1
    assert "benchmarks.measure failed" in capsys.readouterr().out
    assert "error" in json.loads(path.read_text())["rows"]["broken"]["auto"]


def test_an_unknown_case_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert decide.main(["--only", "nonsense"], tmp_path / "decide.json") == 2
    assert capsys.readouterr().err.startswith("benchmarks.decide: no case 'nonsense'")


def test_a_disagreement_between_two_methods_fails_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = tiny_case(tmp_path)
    monkeypatch.setattr(decide, "cases", lambda: [case])
    truth = Verdicts.of(measure(case, "auto", 60.0, 0)[1])

    def planted(_: Case, method: str, limit: float, seed: int, file: Path) -> decide.Entry:
        status = {i: values.copy() for i, values in truth.status.items()}
        if method == "isa":
            status[1][0] = Status.INACTIVE if status[1][0] != Status.INACTIVE else Status.ACTIVE
        replace(truth, status=status).save(file)
        return decide.run_case(case, "bounds", limit, seed, tmp_path / "unused.npz")

    real = decide.run_case
    monkeypatch.setattr(
        decide,
        "run_case",
        lambda *arguments: planted(*arguments) if arguments[1] != "bounds" else real(*arguments),
    )
    path = tmp_path / "decide.json"
    flags = ["--only", "tiny", "--methods", "auto", "isa"]
    assert decide.main(flags, path, tmp_path / "verdicts") == 1
    assert "auto and isa disagree" in capsys.readouterr().out
    (wrong,) = json.loads(path.read_text())["comparisons"]["tiny"]["isa"]["disagreements"]
    assert (wrong["layer"], wrong["unit"]) == (1, 0)


def verdicts(*status: Status) -> Verdicts:
    zeros = np.zeros(len(status))
    return Verdicts({0: np.array(status, dtype=np.int8)}, {0: zeros}, {0: zeros})


def test_only_units_that_both_decided_can_disagree() -> None:
    one = verdicts(Status.INACTIVE, Status.UNDECIDED, Status.ACTIVE, Status.UNSTABLE)
    other = verdicts(Status.INACTIVE, Status.ACTIVE, Status.UNDECIDED, Status.ACTIVE)
    assert disagreements(one, other) == [Disagreement(0, 3, ("UNSTABLE", "ACTIVE"))]


def test_verdicts_on_different_networks_are_not_compared() -> None:
    with pytest.raises(ValueError, match="different networks"):
        disagreements(verdicts(Status.ACTIVE), verdicts(Status.ACTIVE, Status.ACTIVE))


def test_verdicts_survive_their_file(tmp_path: Path) -> None:
    truth = Verdicts.of(measure(tiny_case(tmp_path), "auto", 60.0, 0)[1])
    truth.save(tmp_path / "verdicts.npz")
    again = Verdicts.read(tmp_path / "verdicts.npz")
    for kind in ("status", "lower", "upper"):
        before, after = getattr(truth, kind), getattr(again, kind)
        assert before.keys() == after.keys()
        for layer in before:
            np.testing.assert_array_equal(before[layer], after[layer])


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("claim", [Status.INACTIVE, Status.ACTIVE])
def test_the_attack_refutes_a_planted_verdict_and_no_other(
    tmp_path: Path, layer: int, claim: Status
) -> None:
    chain, box = load(tiny_case(tmp_path))
    truth = Verdicts.of(analyze_chain(chain, box))
    unit = int(np.flatnonzero(truth.status[layer] == Status.UNSTABLE)[0])
    truth.status[layer].flags.writeable = True
    truth.status[layer][unit] = claim
    found = attack(chain, box, truth, seed=5)
    assert [(v.layer, v.unit, v.verdict) for v in found.violations] == [(layer, unit, claim.name)]
    assert (found.violations[0].exact > 0) == (claim == Status.INACTIVE)
    assert found.closest[layer] < 0.0


def test_the_attack_refutes_a_bound_that_is_too_tight(tmp_path: Path) -> None:
    chain, box = load(tiny_case(tmp_path))
    truth = Verdicts.of(analyze_chain(chain, box))
    unit = int(np.flatnonzero(truth.status[1] == Status.ACTIVE)[0])
    lower = truth.lower[1].copy()
    lower[unit] = truth.upper[1][unit]
    found = attack(chain, box, replace(truth, lower={**truth.lower, 1: lower}), seed=5)
    assert [(v.layer, v.unit) for v in found.violations] == [(1, unit)]


def test_the_attack_finds_a_needle_that_no_random_point_shows() -> None:
    """Positive only where all of thirty inputs are within a tenth of their upper side."""
    n = 30
    first = Affine(np.eye(n), np.full(n, -0.9))
    second = Affine(np.ones((1, n)), np.array([-2.9]))
    chain = Chain.of([first, second], relu_at_end=True)
    box = Box(np.zeros(n), np.ones(n))
    claimed = Verdicts(
        {1: np.array([Status.INACTIVE], dtype=np.int8)}, {1: np.zeros(1)}, {1: np.zeros(1)}
    )
    (violation,) = attack(chain, box, claimed, seed=5).violations
    assert violation.exact > 0.0


def test_the_attack_takes_ten_times_the_steps_of_the_tool() -> None:
    """A unit that bounds settle gets ten times the first effort, any other that of all rounds."""
    chain = Chain.of([Affine(np.eye(2), np.zeros(2)), Affine(np.ones((1, 2)), np.ones(1))], True)
    box = Box(np.zeros(2), np.ones(2))
    truth = Verdicts.of(analyze_chain(chain, box))
    assert truth.status[1].tolist() == [Status.ACTIVE]
    alone = replace(truth, status={1: truth.status[1]})
    nothing = replace(truth, status={1: np.array([Status.UNSTABLE], dtype=np.int8)})
    steps = attack(chain, box, alone, 5).steps - attack(chain, box, nothing, 5).steps
    # One more point is the best one of the unit, tried on all others.
    assert steps == RESTARTS * FIRST_EFFORT.points * FIRST_EFFORT.steps + 1
    assert all(effort.points * effort.steps > 0 for effort in LATER_EFFORTS)


def test_the_attack_takes_ten_times_what_the_tool_was_counted_to_search() -> None:
    chain = Chain.of([Affine(np.eye(2), np.zeros(2)), Affine(np.ones((1, 2)), np.ones(1))], True)
    box = Box(np.zeros(2), np.ones(2))
    truth = Verdicts.of(analyze_chain(chain, box))
    spent = sum(e.points * e.steps for e in (FIRST_EFFORT, *LATER_EFFORTS)) + 1
    searched = replace(truth, searched={1: np.array([spent])})
    assert attack(chain, box, searched, 5).steps >= RESTARTS * spent


def random_chain(seed: int, shift: float = 0.0) -> Chain:
    """Three inputs and layers of 8, 8 and 5 units, all with a ReLU, the last shifted down."""
    rng = np.random.default_rng(seed)
    affines = [
        Affine(rng.standard_normal((m, n)), rng.standard_normal(m))
        for n, m in ((3, 8), (8, 8), (8, 5))
    ]
    affines[-1] = Affine(affines[-1].weight, affines[-1].bias - shift)
    return Chain.of(affines, relu_at_end=True)


def test_searches_are_counted_and_change_nothing() -> None:
    chain, box = random_chain(8, shift=2.5), Box(-np.ones(3), np.ones(3))
    alone = Verdicts.of(analyze_chain(chain, box))
    with searches_counted() as searches:
        counted = Verdicts.of(analyze_chain(chain, box), searches.steps)
    first = FIRST_EFFORT.points * FIRST_EFFORT.steps
    assert set(np.concatenate(list(counted.searched.values()))) == {0, first, 2 * first}
    for layer, status in alone.status.items():
        np.testing.assert_array_equal(counted.status[layer], status)


@pytest.mark.parametrize("layer", [1, 2])
def test_the_climb_beats_random_points_and_tells_its_values(layer: int) -> None:
    layers = random_chain(8).layers[: layer + 1]
    chain = Chain.of([part.affine for part in layers], relu_at_end=True)
    box, rng = Box(np.full(3, -0.2), np.full(3, 0.2)), np.random.default_rng(8)
    targets = Targets(layer, np.array([2, 0]), np.array([1.0, -1.0]), np.zeros(2))
    climb = Climb(chain.layers, box, targets)
    climb.run(np.arange(2), Effort(points=6, steps=30), 0, rng)

    def values(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return chain.preactivations(points)[layer][:, targets.units] * targets.signs

    reached = np.diag(values(climb.points.astype(np.float64)))
    np.testing.assert_allclose(reached, climb.values, rtol=1e-4, atol=1e-5)
    assert (reached >= values(box.sample(rng, 4000)).max(axis=0) - 1e-3).all()


def test_exact_preactivations_equal_those_in_fractions() -> None:
    rng = np.random.default_rng(2)
    affines = [
        Affine(rng.standard_normal((m, n)), rng.standard_normal(m)) for n, m in ((3, 4), (4, 2))
    ]
    point = rng.random(3)
    h = [Fraction(value) for value in point.tolist()]
    for k, affine in enumerate(affines):
        rows = zip(affine.weight.tolist(), affine.bias.tolist(), strict=True)
        h = [
            sum((Fraction(w) * x for w, x in zip(row, h, strict=True)), Fraction(bias))
            for row, bias in rows
        ]
        if k == 0:
            assert min(h) < 0 < max(h)
            h = [max(value, Fraction(0)) for value in h]
    chain = Chain.of(affines, relu_at_end=True)
    assert [exact_preactivation(chain, 1, unit, point) for unit in range(2)] == h


def test_every_case_has_a_name_of_its_own_and_quick_ones_are_quick() -> None:
    names = [case.name for case in cases()]
    assert len(names) == len(set(names))
    assert all(" " not in name for name in names)
    assert all(case.seconds is None or case.seconds <= 10 for case in cases() if case.quick)
