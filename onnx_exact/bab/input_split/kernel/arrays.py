"""What the compiled kernel works on: arrays in named tuples, which numba can take apart."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.affine import Array

Ints = NDArray[np.int64]
Signs = NDArray[np.int8]
Asked = NDArray[np.bool_]

# Entries that loops take at a time; arrays are filled up with zeros accordingly.
LANES = 8


class Net(NamedTuple):
    """The layers below, padded to the widest of them: shape (layers, units, ...).

    Attributes:
        widths: units of each layer, all followed by ReLUs.
        weight, bias: of the layers, weight[k, unit, input].
        across: the weights once more, across[k, input, unit].
        lower, upper: sound bounds on the pre-activations over the whole box.
        slack: what rounding may add to a bound on a pre-activation.
    """

    widths: Ints
    weight: Array
    bias: Array
    across: Array
    lower: Array
    upper: Array
    slack: Array


class Rows(NamedTuple):
    """The functionals that are to be excluded: g > 0 of each; shape (signs, ...).

    Attributes:
        weight, bias, slack: as in `Net`.
        bits: by which each is named in `Tree.left`.
    """

    weight: Array
    bias: Array
    slack: Array
    bits: NDArray[np.uint64]


class Parts(NamedTuple):
    """Parts that wait, last first; shape (parts, ...).

    Attributes:
        lower, upper: shape (parts, inputs).
        stable: what is known of the units, shape (parts, layers, units).
        asked: the functionals that matter, shape (parts, signs).
        node: its place in the tree.
    """

    lower: Array
    upper: Array
    stable: Signs
    asked: Asked
    node: Ints


class Tree(NamedTuple):
    """Nodes as they are made: the side each is split along, its first child, what is left of it.

    `nodes` holds their number.
    """

    sides: NDArray[np.int16]
    children: Ints
    left: NDArray[np.uint64]
    nodes: Ints


class Found(NamedTuple):
    """What is found of the functionals; shape (signs, ...).

    Attributes:
        shown: those that seem to be above 0 at a point.
        points: that point, shape (signs, inputs).
        stuck: those that are left where nothing can be split any more.
    """

    shown: NDArray[np.bool_]
    points: Array
    stuck: NDArray[np.bool_]


class Layers(NamedTuple):
    """Relaxations on one part, of the units that are not inactive; the box is the layer before.

    Attributes:
        counts: number of such units, shape (layers + 1,); the inputs first.
        live: which they are, shape (layers + 1, units).
        low, high: bounds on what they pass on, shape (layers + 1, units).
        weight, bias: of the layers, shape (layers, units, units) and (layers, units).
        above, offset, below: relu(g) <= above g + offset, relu(g) >= below g.
        loss: |coefficient| times offset in the bound on a functional, shape (layers, units).
    """

    counts: Ints
    live: Ints
    low: Array
    high: Array
    weight: Array
    bias: Array
    above: Array
    offset: Array
    below: Array
    loss: Array


class Space(NamedTuple):
    """Room for one evaluation."""

    lower: Array
    upper: Array
    units: Ints
    front: Array
    back: Array
    constants: Array
    slopes: Array
    values: Array
    passed: Array
    gradient: Array
    varied: Array
    owed: Array
    scratch: Array


def part_room(net: Net, n_in: int) -> tuple[Layers, Space]:
    """Room for one part of a box with so many inputs."""
    last, most = net.bias.shape
    layers = Layers(
        counts=np.zeros(last + 1, dtype=np.int64),
        live=np.zeros((last + 1, most), dtype=np.int64),
        low=np.zeros((last + 1, most)),
        high=np.zeros((last + 1, most)),
        weight=np.zeros((last, most, most)),
        bias=np.zeros((last, most)),
        above=np.zeros((last, most)),
        offset=np.zeros((last, most)),
        below=np.zeros((last, most)),
        loss=np.zeros((last, most)),
    )
    layers.counts[0] = n_in
    layers.live[0, :n_in] = np.arange(n_in)
    space = Space(
        lower=np.zeros(most),
        upper=np.zeros(most),
        units=np.zeros(most, dtype=np.int64),
        front=np.zeros((most, 2 * most)),
        back=np.zeros((most, 2 * most)),
        constants=np.zeros(2 * most),
        slopes=np.zeros((last, most)),
        values=np.zeros((last + 1, most)),
        passed=np.zeros((last + 1, most)),
        gradient=np.zeros(most),
        varied=np.zeros((last + 1, n_in, most)),
        owed=np.zeros((last + 1, n_in, most)),
        scratch=np.zeros(most),
    )
    return layers, space


def parts_room(net: Net, n_in: int, signs: int, most: int) -> Parts:
    """Room for as many parts as may wait."""
    return Parts(
        lower=np.zeros((most, n_in)),
        upper=np.zeros((most, n_in)),
        stable=np.zeros((most, *net.bias.shape), dtype=np.int8),
        asked=np.zeros((most, signs), dtype=np.bool_),
        node=np.zeros(most, dtype=np.int64),
    )


def tree_room(most: int) -> Tree:
    """Room for so many nodes."""
    return Tree(
        sides=np.zeros(most, dtype=np.int16),
        children=np.zeros(most, dtype=np.int64),
        left=np.zeros(most, dtype=np.uint64),
        nodes=np.ones(1, dtype=np.int64),
    )


def found_room(n_in: int, signs: int) -> Found:
    """Room for what is found."""
    shown, stuck = np.zeros(signs, dtype=np.bool_), np.zeros(signs, dtype=np.bool_)
    return Found(shown=shown, points=np.zeros((signs, n_in)), stuck=stuck)
