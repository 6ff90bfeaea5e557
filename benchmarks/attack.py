"""An attempt to refute verdicts: a long search for points where stable units show the other sign.

It shares nothing with the search of the tool but the network: other starting points, another seed,
another climb (`benchmarks.deciding.climb`), other gradients, ten times the steps that the tool
spent on the unit. The best points of all units are tried on all others, and whatever seems to
refute a verdict is computed again in exact rationals, so that a refutation has no tolerance.

`python -m benchmarks.attack CASE VERDICTS SEED` takes the case as JSON and the file of the verdicts
and prints what it found as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.deciding.cases import case_from_json
from benchmarks.deciding.climb import KINDS, Climb, Targets, starts
from benchmarks.deciding.verdicts import Verdicts
from benchmarks.measure import load
from onnx_exact.attack.pgd import Effort
from onnx_exact.decide.rounds import FIRST_EFFORT, LATER_EFFORTS
from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Status
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box

Array = NDArray[np.float64]

# How often the tool's own budget; each time the climb begins anew.
RESTARTS = 10


@dataclass(frozen=True)
class Violation:
    """A point refutes a bound, and with it a verdict: `exact` is what the unit has there."""

    layer: int
    unit: int
    verdict: str
    claimed: float
    exact: float


@dataclass(frozen=True)
class Attack:
    """What a search over all stable units found.

    Attributes:
        units: stable units that were attacked.
        steps: how often one point was moved or placed.
        closest: by layer, how near any unit came to the other sign; positive: on its own side.
        violations: refuted verdicts, all in exact arithmetic.
        seconds: by the clock on the wall.
    """

    units: int
    steps: int
    closest: dict[int, float]
    violations: list[Violation]
    seconds: float


def attack(chain: Chain, box: Box, verdicts: Verdicts, seed: int) -> Attack:
    """Searches every stable unit for a point beyond the bound that its verdict rests on.

    Args:
        chain: the network.
        box: shape (inputs,), finite.
        verdicts: what is to be refuted.
        seed: of every random choice.

    Raises:
        ValueError: the box is infinite.
    """
    if not box.finite:
        raise ValueError("only verdicts over a finite box can be attacked")
    begin = time.perf_counter()
    rng = np.random.default_rng([seed, 0x5EA])
    efforts = _efforts(chain, box, verdicts)
    layers = [_targets(verdicts, layer) for layer in verdicts.status]
    steps, points = 0, [starts(box, rng, 1024, kind) for kind in range(len(KINDS))]
    for targets in layers:
        if targets.layer == 0:
            # Linear: no search finds more than the corner that maximises it.
            points.append(_corners(targets.signs[:, None] * _rows(chain, targets), box))
            steps += targets.units.size
            continue
        climb = Climb(chain.layers[: targets.layer + 1], box, targets)
        count = efforts[targets.layer][targets.units]
        for number in range(count.max(initial=0)):
            chosen, effort = np.flatnonzero(count > number), _effort(number)
            for kind in range(RESTARTS):
                climb.run(chosen, effort, kind, rng)
            steps += chosen.size * effort.points * effort.steps * RESTARTS
        points.append(climb.points.astype(np.float64))
    best = [_best(chain, targets, points) for targets in layers]
    return Attack(
        units=sum(targets.units.size for targets in layers),
        steps=steps + sum(len(batch) for batch in points),
        closest={
            targets.layer: -float(values.max())
            for targets, (values, _) in zip(layers, best, strict=True)
            if values.size
        },
        violations=[
            violation
            for targets, (values, where) in zip(layers, best, strict=True)
            for violation in _violations(chain, targets, values, where)
        ],
        seconds=round(time.perf_counter() - begin, 2),
    )


def _targets(verdicts: Verdicts, layer: int) -> Targets:
    status = verdicts.status[layer]
    units = np.flatnonzero((status == Status.INACTIVE) | (status == Status.ACTIVE))
    inactive = status[units] == Status.INACTIVE
    claimed = np.where(inactive, verdicts.upper[layer][units], -verdicts.lower[layer][units])
    return Targets(layer, units, np.where(inactive, 1.0, -1.0), np.minimum(claimed, 0.0))


def _efforts(chain: Chain, box: Box, verdicts: Verdicts) -> dict[int, NDArray[np.int64]]:
    """How many efforts each unit is attacked with: with them the tool's search spent no more.

    At least the first one, and one more where bounds alone do not decide: there the tool searches
    longer.
    """
    bounds = analyze_chain(chain, box, Options(method="bounds"))
    efforts = {}
    for i, status in verdicts.status.items():
        alone = bounds.layers[i]
        late = np.zeros(status.size, bool) if alone is None else alone.status == Status.UNDECIDED
        count = np.where(late, 2, 1)
        spent = verdicts.searched.get(i, np.zeros(status.size, dtype=np.int64))
        while (short := _steps(count) < spent).any():
            count += short
        efforts[i] = count
    return efforts


def _steps(count: NDArray[np.int64]) -> NDArray[np.int64]:
    """The steps of so many efforts, for each unit."""
    steps = [_effort(number).points * _effort(number).steps for number in range(count.max())]
    total: NDArray[np.int64] = np.concatenate([[0], np.cumsum(steps)])[count]
    return total


def _effort(number: int) -> Effort:
    """The tool's efforts, one after another; then the last of them again and again."""
    return (FIRST_EFFORT, *LATER_EFFORTS)[min(number, len(LATER_EFFORTS))]


def _rows(chain: Chain, targets: Targets) -> Array:
    return chain.layers[targets.layer].affine.weight[targets.units]


def _corners(functionals: Array, box: Box) -> Array:
    """The corners that maximise linear functionals, shape (functionals, inputs)."""
    return np.where(functionals > 0.0, box.upper, box.lower)


def _best(chain: Chain, targets: Targets, points: list[Array]) -> tuple[Array, Array]:
    """For each target the greatest sign * g over all points, in float64, and where it is."""
    units = targets.units
    values = np.full(units.size, -np.inf)
    where = np.zeros((units.size, chain.n_in))
    for batch in points:
        if not len(batch) or not units.size:
            continue
        g = chain.preactivations(batch)[targets.layer][:, units] * targets.signs
        leader = g.argmax(axis=0)
        most = g[leader, np.arange(units.size)]
        better = most > values
        values[better], where[better] = most[better], batch[leader[better]]
    return values, where


def _violations(chain: Chain, targets: Targets, values: Array, where: Array) -> Iterator[Violation]:
    """The targets whose best point lies beyond the bound that is claimed, in exact arithmetic."""
    for k in np.flatnonzero(values > targets.limits):
        unit, sign = int(targets.units[k]), float(targets.signs[k])
        exact = exact_preactivation(chain, targets.layer, unit, where[k])
        if exact * Fraction(sign) > Fraction(float(targets.limits[k])):
            verdict = "INACTIVE" if sign > 0 else "ACTIVE"
            claimed = sign * float(targets.limits[k])
            yield Violation(targets.layer, unit, verdict, claimed, float(exact))


def exact_preactivation(chain: Chain, layer: int, unit: int, point: Array) -> Fraction:
    """The pre-activation of a unit at a point of shape (inputs,), in exact rationals.

    Integers over one power of two a layer: numbers of floating point need no other denominator.
    """
    h, scale = _integers(point)
    for k, current in enumerate(chain.layers[: layer + 1]):
        affine = current.affine if k < layer else current.affine.rows(np.array([unit]))
        weight, weight_scale = _integers(affine.weight)
        bias, bias_scale = _integers(affine.bias)
        scale += weight_scale
        common = max(scale, bias_scale)
        h = (weight @ h) * 2 ** (common - scale) + bias * 2 ** (common - bias_scale)
        scale = common
        if current.relu and k < layer:
            h = np.maximum(h, 0)
    return Fraction(int(h[0]), 2**scale)


def _integers(values: Array) -> tuple[NDArray[np.object_], int]:
    """Python integers and an exponent: values = integers / 2**exponent, exactly."""
    fractions = [value.as_integer_ratio() for value in values.ravel().tolist()]
    exponent = max(denominator.bit_length() - 1 for _, denominator in fractions)
    scaled = [top * (2**exponent // bottom) for top, bottom in fractions]
    return np.array(scaled, dtype=object).reshape(values.shape), exponent


def main(argv: Sequence[str]) -> None:
    """Attacks the verdicts on one case as the module's words say."""
    case, verdicts, seed = argv
    chain, box = load(case_from_json(json.loads(case)))
    print(json.dumps(asdict(attack(chain, box, Verdicts.read(Path(verdicts)), int(seed)))))


if __name__ == "__main__":
    main(sys.argv[1:])
