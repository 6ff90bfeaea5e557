"""An attempt to refute verdicts: a long search for points where stable units show the other sign.

It shares nothing with the search of the tool but the network: other starting points, another seed,
another climb, other gradients, ten times its budget. Signs climb by projected sign gradients (Madry
et al. 2018) in float32, half of the time through a ReLU whose slope below zero is drawn at random
for each point. The best points of all units are tried on all others, and whatever seems to refute a
verdict is computed again in exact rationals, so that a refutation has no tolerance.

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

from benchmarks.cases import case_from_json
from benchmarks.measure import load
from benchmarks.verdicts import Verdicts
from onnx_exact.network.chain import Chain, Layer
from onnx_exact.network.domain import Box
from onnx_exact.stability.decide import FIRST_EFFORT, LATER_EFFORTS, Options, analyze_chain
from onnx_exact.stability.search import Effort
from onnx_exact.stability.verdict import Status

Array = NDArray[np.float64]
Single = NDArray[np.float32]
Index = NDArray[np.intp]

# How often the tool's own budget; each time the climb begins anew, from points of the next kind.
RESTARTS = 10
# Points that climb at once: bounds the memory.
CLIMBING = 2048
# Length of a step as a share of the box's side, first and last.
STEP_LENGTHS = (0.5, 0.004)
SPARSE_SHARES = (0.005, 0.05, 0.2, 0.5)
# Half-width of the cloud around the middle of the box, as a share of its side.
CLOUD = 0.05


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


@dataclass(frozen=True, eq=False)
class _Targets:
    """Stable units of one layer, all arrays of shape (units,).

    Attributes:
        layer: its index.
        units: their indices.
        signs: 1 for inactive units and -1 for active ones: sign * g should stay at most `limit`.
        limits: the bound that is claimed for sign * g, at most 0.
    """

    layer: int
    units: Index
    signs: Array
    limits: Array

    def only(self, chosen: NDArray[np.bool_]) -> _Targets:
        """Those chosen."""
        return _Targets(self.layer, self.units[chosen], self.signs[chosen], self.limits[chosen])


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
    hard = _settled_late(chain, box, verdicts)
    layers = [_targets(verdicts, layer) for layer in verdicts.status]
    steps, points = 0, [_starts(chain, box, rng, 1024, kind) for kind in range(len(_KINDS))]
    for targets in layers:
        if targets.layer == 0:
            # Linear: no search finds more than the corner that maximises it.
            points.append(_corners(targets.signs[:, None] * _rows(chain, targets), box))
            steps += targets.units.size
            continue
        late = hard[targets.layer][targets.units]
        for part, efforts in (
            (targets.only(~late), (FIRST_EFFORT,)),
            (targets.only(late), (FIRST_EFFORT, *LATER_EFFORTS)),
        ):
            for effort in efforts:
                steps += part.units.size * effort.points * effort.steps * RESTARTS
                points += _climbed(chain, box, part, effort, rng)
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


def _targets(verdicts: Verdicts, layer: int) -> _Targets:
    status = verdicts.status[layer]
    units = np.flatnonzero((status == Status.INACTIVE) | (status == Status.ACTIVE))
    inactive = status[units] == Status.INACTIVE
    claimed = np.where(inactive, verdicts.upper[layer][units], -verdicts.lower[layer][units])
    return _Targets(layer, units, np.where(inactive, 1.0, -1.0), np.minimum(claimed, 0.0))


def _settled_late(chain: Chain, box: Box, verdicts: Verdicts) -> dict[int, NDArray[np.bool_]]:
    """Which units bounds alone do not decide: the tool searched longer for these."""
    bounds = analyze_chain(chain, box, Options(method="bounds"))
    return {
        i: bounds.layers[i].status == Status.UNDECIDED  # type: ignore[union-attr]
        for i in verdicts.status
    }


def _rows(chain: Chain, targets: _Targets) -> Array:
    return chain.layers[targets.layer].affine.weight[targets.units]


def _corners(functionals: Array, box: Box) -> Array:
    """The corners that maximise linear functionals, shape (functionals, inputs)."""
    return np.where(functionals > 0.0, box.upper, box.lower)


# Starting points. Each takes a share of the box's side in [0, 1], entry by entry.


def _uniform(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    return rng.random(shape)


def _corner(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    return rng.integers(0, 2, shape).astype(np.float64)


def _sparse(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """A few entries at their upper side, the rest at their lower one."""
    return (rng.random(shape) < rng.choice(SPARSE_SHARES, (shape[0], 1))).astype(np.float64)


def _full(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """A few entries at their lower side, the rest at their upper one."""
    return 1.0 - _sparse(rng, shape)


def _middle(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    return 0.5 + CLOUD * rng.uniform(-1.0, 1.0, shape)


_KINDS = (_uniform, _sparse, _corner, _middle, _full)


def _starts(chain: Chain, box: Box, rng: np.random.Generator, count: int, kind: int) -> Array:
    share = _KINDS[kind % len(_KINDS)](rng, (count, chain.n_in))
    return box.clip(box.lower + share * (box.upper - box.lower))


def _climbed(
    chain: Chain, box: Box, targets: _Targets, effort: Effort, rng: np.random.Generator
) -> Iterator[Array]:
    """The best points of a climb for each target, one batch of targets after another."""
    layers = chain.layers[: targets.layer + 1]
    size = max(1, CLIMBING // effort.points)
    for start in range(0, targets.units.size, size):
        part = targets.only(np.isin(np.arange(targets.units.size), range(start, start + size)))
        climb = _Climb(layers, box, part, effort, rng)
        for kind in range(RESTARTS):
            climb.run(_starts(chain, box, rng, part.units.size * effort.points, kind))
        yield climb.best_points.astype(np.float64)


class _Climb:
    """Points that climb for the units of one layer, and the best point of each unit so far."""

    def __init__(
        self,
        layers: Sequence[Layer],
        box: Box,
        targets: _Targets,
        effort: Effort,
        rng: np.random.Generator,
    ) -> None:
        self._weights = [layer.affine.weight.astype(np.float32) for layer in layers]
        self._biases = [layer.affine.bias.astype(np.float32) for layer in layers]
        self._relu = [layer.relu for layer in layers]
        self._low, self._high = box.lower.astype(np.float32), box.upper.astype(np.float32)
        self._effort, self._rng = effort, rng
        signs = targets.signs[:, None].astype(np.float32)
        self._own = np.repeat(self._weights[-1][targets.units] * signs, effort.points, axis=0)
        bias = self._biases[-1][targets.units] * signs[:, 0]
        self._own_bias = np.repeat(bias, effort.points)
        self._best = np.full(targets.units.size, -np.inf, dtype=np.float32)
        self.best_points = np.zeros((targets.units.size, len(self._low)), dtype=np.float32)

    def run(self, starts: Array) -> None:
        """Climbs from `starts`, one row for each point of each unit."""
        x = starts.astype(np.float32)
        side = self._high - self._low
        steps = self._effort.steps
        leaks = self._rng.random((len(x), 1), dtype=np.float32)
        ratio = (STEP_LENGTHS[1] / STEP_LENGTHS[0]) ** (1.0 / max(1, steps - 1))
        for step in range(steps):
            leak = leaks * np.float32(max(0.0, 1.0 - 2.0 * step / steps))
            values, gradient = self._evaluate(x, leak)
            self._keep(x, values)
            length = np.float32(STEP_LENGTHS[0] * ratio**step)
            x = np.clip(x + length * side * np.sign(gradient), self._low, self._high)
        for last in (x, np.where(2.0 * x > self._low + self._high, self._high, self._low)):
            self._keep(last, self._evaluate(last, leaks)[0])

    def _evaluate(self, x: Single, leak: Single) -> tuple[Single, Single]:
        """Each point's own value, and a gradient through slopes `leak` of units that are off."""
        h, slopes = x, []
        hidden = zip(self._weights[:-1], self._biases[:-1], self._relu[:-1], strict=True)
        for weight, bias, relu in hidden:
            g = h @ weight.T + bias
            slopes.append(np.where(g > 0.0, np.float32(1.0), leak) if relu else np.ones_like(g))
            h = np.maximum(g, 0.0) if relu else g
        values = np.einsum("pi,pi->p", h, self._own) + self._own_bias
        back = self._own
        for weight, slope in zip(reversed(self._weights[:-1]), reversed(slopes), strict=True):
            back = (back * slope) @ weight
        return values, back

    def _keep(self, x: Single, values: Single) -> None:
        """Keeps the point of each unit that has the greatest value so far."""
        units, points = len(self._best), self._effort.points
        by_unit = values.reshape(units, points)
        leader = by_unit.argmax(axis=1)
        most = by_unit[np.arange(units), leader]
        better = np.flatnonzero(most > self._best)
        self._best[better] = most[better]
        self.best_points[better] = x[better * points + leader[better]]


def _best(chain: Chain, targets: _Targets, points: list[Array]) -> tuple[Array, Array]:
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


def _violations(
    chain: Chain, targets: _Targets, values: Array, where: Array
) -> Iterator[Violation]:
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
