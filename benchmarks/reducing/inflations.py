"""Function-preserving changes that make a network larger: what `benchmarks.inflate` puts in.

Layers are pairs (W, b) with a ReLU between them, in numbers of float32. Factors are powers of two
where `exact`, so that nothing is rounded; else any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.affine import Array

Layers = list[tuple[Array, Array]]


@dataclass(frozen=True, eq=False)
class Setting:
    """What an inflation may use.

    Attributes:
        rng: for every choice.
        size: bounds on the magnitudes of each layer's inputs, shape (inputs,), and so that the
            domain is found in [-size, size].
        exact: factors are powers of two.
    """

    rng: np.random.Generator
    size: float
    exact: bool

    def factors(self, count: int) -> Array:
        """Positive factors."""
        if self.exact:
            return np.ldexp(np.ones(count), self.rng.integers(-2, 3, size=count))
        return f32(self.rng.uniform(0.3, 3.0, size=count))


Inflation = Callable[[Layers, Setting], Layers]


def f32(values: Array) -> Array:
    """Values as float32 holds them."""
    return np.asarray(np.asarray(values, dtype=np.float32), dtype=np.float64)


def magnitudes(layers: Layers, size: float) -> list[Array]:
    """Bounds on the magnitudes of each layer's inputs."""
    sizes = [np.full(layers[0][0].shape[1], size)]
    for weight, bias in layers[:-1]:
        sizes.append(np.abs(weight) @ sizes[-1] + np.abs(bias))
    return sizes


def _joined(layers: Layers, k: int, rows: Array, bias: Array, columns: Array) -> Layers:
    """The layers with more units in layer `k`, read by `columns`."""
    (weight, own), (reader, constant) = layers[k], layers[k + 1]
    wider = (np.vstack([weight, f32(rows)]), np.append(own, f32(bias)))
    after = (np.hstack([reader, f32(columns)]), constant)
    return [*layers[:k], wider, after, *layers[k + 2 :]]


def _some(layers: Layers, k: int, setting: Setting) -> NDArray[np.intp]:
    width = len(layers[k][1])
    return setting.rng.choice(width, size=max(1, width // 4), replace=False)


def duplicates(layers: Layers, setting: Setting) -> Layers:
    """Units twice, each read by half."""
    for k in range(len(layers) - 1):
        layers = _multiples(layers, k, setting, np.ones)
    return layers


def multiples(layers: Layers, setting: Setting) -> Layers:
    """Units and positive multiples of them."""
    for k in range(len(layers) - 1):
        layers = _multiples(layers, k, setting, setting.factors)
    return layers


def _multiples(
    layers: Layers, k: int, setting: Setting, factors_of: Callable[[int], Array]
) -> Layers:
    units = _some(layers, k, setting)
    factors = factors_of(units.size)
    (weight, bias), (reader, constant) = layers[k], layers[k + 1]
    columns = 0.5 * reader[:, units]
    halved = reader.copy()
    halved[:, units] = columns
    layers = [*layers[: k + 1], (halved, constant), *layers[k + 2 :]]
    rows = factors[:, None] * weight[units]
    return _joined(layers, k, rows, factors * bias[units], columns / factors)


def negatives(layers: Layers, setting: Setting) -> Layers:
    """max(-a g, 0), read once as it is and once, as its half, to be taken off again."""
    for k in range(len(layers) - 1):
        units = _some(layers, k, setting)
        factors, (weight, bias) = setting.factors(units.size), layers[k]
        columns = f32(setting.rng.normal(size=(len(layers[k + 1][1]), units.size)))
        rows, shifts = -factors[:, None] * weight[units], -factors * bias[units]
        layers = _joined(
            layers,
            k,
            np.vstack([f32(rows), 0.5 * f32(rows)]),
            np.append(f32(shifts), 0.5 * f32(shifts)),
            np.hstack([columns, -2.0 * columns]),
        )
    return layers


def dead(layers: Layers, setting: Setting) -> Layers:
    """Units that are never on."""
    return _shifted(layers, setting, -1.0, 1)


def always_on(layers: Layers, setting: Setting) -> Layers:
    """Pairs of units that are always on and cancel."""
    return _shifted(layers, setting, 1.0, 2)


def _shifted(layers: Layers, setting: Setting, sign: float, copies: int) -> Layers:
    for k in range(len(layers) - 1):
        count, rng = max(1, len(layers[k][1]) // 5), setting.rng
        rows = f32(rng.normal(size=(count, layers[k][0].shape[1])))
        size = magnitudes(layers, setting.size)[k]
        shift = f32(sign * 2.0 ** np.ceil(np.log2(np.abs(rows) @ size + 1.0)))
        columns = f32(rng.normal(size=(len(layers[k + 1][1]), count)))
        scales = 2.0 ** np.arange(copies)
        layers = _joined(
            layers,
            k,
            np.vstack([s * rows for s in scales]),
            np.concatenate([s * shift for s in scales]),
            np.hstack(
                [columns * (1.0 if copies == 1 else (-1.0) ** i / scales[i]) for i in range(copies)]
            ),
        )
    return layers


def unread(layers: Layers, setting: Setting) -> Layers:
    """Units that nobody reads."""
    for k in range(len(layers) - 1):
        count = max(1, len(layers[k][1]) // 4)
        rows = setting.rng.normal(size=(count, layers[k][0].shape[1]))
        columns = np.zeros((len(layers[k + 1][1]), count))
        layers = _joined(layers, k, rows, setting.rng.normal(size=count), columns)
    return layers


def constants(layers: Layers, setting: Setting) -> Layers:
    """Units that are constant, two of each, taken off again."""
    for k in range(len(layers) - 1):
        columns = f32(setting.rng.normal(size=(len(layers[k + 1][1]), 2)))
        rows = np.zeros((4, layers[k][0].shape[1]))
        bias = np.array([1.0, 0.5, 2.0, 1.0])
        layers = _joined(layers, k, rows, bias, np.hstack([columns, -0.5 * columns]))
    return layers


def identities(layers: Layers, setting: Setting) -> Layers:
    """Hidden layers that pass the one before on."""
    found = [layers[0]]
    for weight, bias in layers[1:]:
        n = weight.shape[1]
        found += [(np.eye(n), np.zeros(n)), (weight, bias)]
    return found


def split(layers: Layers, setting: Setting) -> Layers:
    """Each unit as max(g, 0) - max(-g, 0) and the ReLU after it (ReluSplitter)."""
    return _split(layers, lambda count: np.ones(count))


def split_scaled(layers: Layers, setting: Setting) -> Layers:
    """The same with factors of their own."""
    return _split(layers, setting.factors)


def _split(layers: Layers, factors_of: Callable[[int], Array]) -> Layers:
    found: Layers = []
    for weight, bias in layers[:-1]:
        n = len(bias)
        a, c = factors_of(n), factors_of(n)
        rows = np.vstack([a[:, None] * weight, -c[:, None] * weight])
        read = np.hstack([np.diag(1.0 / a), -np.diag(1.0 / c)])
        found += [(f32(rows), f32(np.append(a * bias, -c * bias))), (f32(read), np.zeros(n))]
    return [*found, layers[-1]]


def collinear(layers: Layers, setting: Setting) -> Layers:
    """max(g, 0) = max(g, 0) / 2 + max(2 g, 0) / 8 + (g + max(-g, 0)) / 4, the linear g shifted."""
    for k in range(len(layers) - 1):
        units = _some(layers, k, setting)
        (weight, bias), (reader, constant) = layers[k], layers[k + 1]
        size = magnitudes(layers, setting.size)[k]
        rows, shifts = weight[units], bias[units]
        terms = np.abs(rows) @ size + np.abs(shifts)
        up = 2.0 ** np.ceil(np.log2(terms + 1e-30))
        columns = reader[:, units]
        halved = reader.copy()
        halved[:, units] = 0.5 * columns
        # What is on top of g is as much as float32 has added.
        lifted = f32(shifts + up)
        after = (halved, f32(constant - 0.25 * columns @ (lifted - shifts)))
        layers = _joined(
            [*layers[: k + 1], after, *layers[k + 2 :]],
            k,
            np.vstack([2.0 * rows, rows, -rows]),
            np.concatenate([2.0 * shifts, lifted, -shifts]),
            np.hstack([columns / 8.0, columns / 4.0, columns / 4.0]),
        )
    return layers


def flipped(layers: Layers, setting: Setting) -> Layers:
    """max(g, 0) = g + max(-g, 0), the linear parts mixed into a row for each reader."""
    for k in range(len(layers) - 1):
        units = _some(layers, k, setting)
        (weight, bias), (reader, constant) = layers[k], layers[k + 1]
        size = magnitudes(layers, setting.size)[k]
        columns = reader[:, units]
        rows, offset = f32(columns @ weight[units]), columns @ bias[units]
        up = f32(2.0 ** np.ceil(np.log2(np.abs(rows) @ size + 1e-30)))
        turned = weight.copy(), bias.copy()
        turned[0][units], turned[1][units] = -weight[units], -bias[units]
        after = (reader, f32(constant + offset - up))
        layers = [*layers[:k], turned, after, *layers[k + 2 :]]
        layers = _joined(layers, k, rows, up, np.eye(len(up)))
    return layers


KINDS: dict[str, Inflation] = {
    one.__name__: one
    for one in (
        *(duplicates, multiples, negatives, dead, always_on, unread, constants, identities),
        *(split, split_scaled, collinear, flipped),
    )
}
# Several on top of one another.
STACKS = (
    ("duplicates", "dead", "constants", "identities"),
    ("collinear", "split"),
    ("always_on", "multiples", "split_scaled", "unread"),
    ("negatives", "identities", "collinear"),
)


def inflated(layers: Layers, names: tuple[str, ...], setting: Setting) -> Layers:
    """The network with the inflations of these names, one after another."""
    for name in names:
        layers = KINDS[name](layers, setting)
    return layers
