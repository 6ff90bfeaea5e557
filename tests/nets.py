"""Small chains, nasty numbers and exact values for the tests of the deciding room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
from hypothesis import strategies as st

from onnx_exact.bab.question import Question
from onnx_exact.bounds import crown
from onnx_exact.bounds.interval import interval_bounds
from onnx_exact.budgets import Budgets
from onnx_exact.decide.branching import BoxBranching, question_of
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.propagate import Layers, bound_by_intervals
from onnx_exact.decide.verdict import Stability, Status
from onnx_exact.milp.encode import Target, targets_of
from onnx_exact.network import Affine, Box, Chain
from onnx_exact.network.affine import Array
from onnx_exact.network.query import Query
from onnx_exact.runtime.deadline import Deadline
from tests.oracle.exact import exact_layers, preactivations
from tests.oracle.regions import Enumeration

# Nodes, more than any tree of these tests has.
MOST = 10_000_000

DENORMAL, NORMAL = 2.0**-1074, 2.0**-1022
# Zeros, denormals, extremes, numbers that cancel and numbers whose decimal digits are not theirs.
NASTY = (
    *(0.0, -0.0, 1.0, -1.0, 0.1, 0.2, 0.3, -0.3, 1 / 3, 2.0**53, -(2.0**53), 2.0**53 + 2.0),
    *(DENORMAL, -DENORMAL, 3 * DENORMAL, NORMAL, -NORMAL, 1e-310, 1e-200, -1e-160),
    *(1e-30, -1e-30, 1e30, -1e30, 1e100, -1e150, 1e-9, 1e9),
)
# Next to nothing: for what is closer to 0 than any means can tell.
LITTLE = Budgets(
    search_products=(1e7,), box_parts=(20_000,), relu_nodes=(200,), program_work=(1_000,)
)
nasty = st.sampled_from(NASTY) | st.floats(-1e30, 1e30) | st.floats(-1.0, 1.0)
sizes = st.integers(1, 3)


def chain_of(
    *layers: tuple[Sequence[Sequence[float]], Sequence[float]], relu_at_end: bool = False
) -> Chain:
    """A chain with a ReLU between neighbours, from weights and biases."""
    affines = [Affine(np.array(w, dtype=float), np.array(b, dtype=float)) for w, b in layers]
    return Chain.of(affines, relu_at_end)


def box_of(low: Sequence[float], high: Sequence[float]) -> Box:
    return Box(np.array(low, dtype=float), np.array(high, dtype=float))


def cube(n: int, low: float = 0.0, high: float = 1.0) -> Box:
    return Box(np.full(n, low), np.full(n, high))


def random_chain(seed: int, *widths: int, shift: float = 0.0) -> Chain:
    """Standard normal weights; biases are lowered by `shift`."""
    rng = np.random.default_rng(seed)
    return Chain.of(
        [
            # Numbers that every structure of a map has.
            Affine(rng.standard_normal((m, n)).astype(np.float32), rng.standard_normal(m) - shift)
            for n, m in pairwise(widths)
        ],
        relu_at_end=True,
    )


@st.composite
def nasty_chains(draw: st.DrawFn, layers: int = 3, numbers: st.SearchStrategy = nasty) -> Chain:
    """Chains of up to `layers` layers whose numbers span the floats; ReLU everywhere."""
    widths = [draw(sizes) for _ in range(draw(st.integers(1, layers)) + 1)]
    affines = []
    for n, m in pairwise(widths):
        values = draw(st.lists(numbers, min_size=m * n + m, max_size=m * n + m))
        affines.append(Affine(np.array(values[m:]).reshape(m, n), np.array(values[:m])))
    return Chain.of(affines, relu_at_end=True)


@st.composite
def nasty_boxes(draw: st.DrawFn, n: int, numbers: st.SearchStrategy = nasty) -> Box:
    """Boxes between any two numbers, points included."""
    sides = [sorted((draw(numbers), draw(numbers))) for _ in range(n)]
    return Box(np.array([a for a, _ in sides]), np.array([b for _, b in sides]))


def exact_points(box: Box, inner: int = 3) -> Iterator[list[Fraction]]:
    """The corners of a finite box and a few points inside, as rationals."""
    sides = [
        (Fraction(float(a)), Fraction(float(b))) for a, b in zip(box.lower, box.upper, strict=True)
    ]
    yield from (list(corner) for corner in product(*sides))
    for k in range(1, inner + 1):
        yield [a + (b - a) * Fraction(k * (j + 1) % 7, 7) for j, (a, b) in enumerate(sides)]


def exact_values(chain: Chain, box: Box) -> list[list[tuple[Fraction, ...]]]:
    """The pre-activations of every layer at the points of `exact_points`."""
    layers = exact_layers(chain)
    return [preactivations(layers, point) for point in exact_points(box)]


def assert_holds(lower: Array, upper: Array, values: Sequence[Sequence[Fraction]]) -> None:
    """No value lies outside its bounds: exactly, no tolerance."""
    assert not np.isnan(lower).any()
    assert not np.isnan(upper).any()
    for value in values:
        for low, high, v in zip(lower, upper, value, strict=True):
            assert low == -np.inf or Fraction(float(low)) <= v
            assert high == np.inf or v <= Fraction(float(high))


def relaxations_of(chain: Chain, box: Box) -> list[crown.Relaxation]:
    """The relaxations of all layers over one box or many, by intervals and linear bounds."""
    low, high = box.lower, box.upper
    magnitude = np.maximum(np.abs(low), np.abs(high))
    found: list[crown.Relaxation] = []
    for layer in chain.layers:
        lower, upper = interval_bounds(layer.affine, low, high)
        if found:
            minus = Affine(-layer.affine.entries, -layer.affine.bias)
            upper = np.minimum(upper, crown.upper_bounds(layer.affine, found, box)[0])
            lower = np.maximum(lower, -crown.upper_bounds(minus, found, box)[0])
        found.append(crown.relax(layer.affine, layer.relu, lower, upper, magnitude))
        low, high, magnitude = found[-1].low, found[-1].high, found[-1].magnitude
    return found


def bounded(chain: Chain, box: Box) -> tuple[Knowledge, Layers]:
    """What linear bounds know of a chain, without any search."""
    knowledge = Knowledge(chain, box, believing=True)
    layers = Layers(knowledge)
    for index in range(len(chain.layers)):
        layers.bound(index)
        layers.relax(index)
    return knowledge, layers


def by_intervals(chain: Chain, box: Box) -> Knowledge:
    """What intervals know of a chain: loose bounds, no witnesses."""
    knowledge = Knowledge(chain, box, believing=True)
    for index in range(len(chain.layers)):
        bound_by_intervals(knowledge, index)
    return knowledge


def targets(knowledge: Knowledge) -> list[Target]:
    """The open queries that a program for all of them together could exclude."""
    queries = [q for layer in knowledge.relu_layers for q in knowledge.open_queries(layer)]
    return targets_of(knowledge.bounds, queries)


def wrong_verdicts(stability: Stability, truth: Enumeration) -> list[str]:
    """Decided units whose verdict the exact ranges contradict."""
    wrong = []
    for index, (verdicts, ranges) in enumerate(zip(stability.layers, truth.ranges, strict=True)):
        for unit, status in enumerate(() if verdicts is None else verdicts.status):
            least, most = ranges[unit]
            holds = {
                Status.UNDECIDED: True,
                Status.INACTIVE: most <= 0,
                Status.ACTIVE: least >= 0,
                Status.UNSTABLE: least < 0 < most,
            }[Status(int(status))]
            if not holds:
                wrong.append(
                    f"{index}.{unit} {Status(int(status)).name} {float(least)} {float(most)}"
                )
    return wrong


def statuses(stability: Stability) -> list[list[Status] | None]:
    return [
        None if verdicts is None else [Status(int(s)) for s in verdicts.status]
        for verdicts in stability.layers
    ]


def question_on(
    knowledge: Knowledge, layer: int, signs: Sequence[tuple[int, bool]] | None = None
) -> Question:
    """Asks for signs of a layer, or for all its positive ones, by what is known."""
    if signs is None:
        signs = [(unit, True) for unit in range(knowledge.chain.layers[layer].width)]
    below = relaxations_of(knowledge.chain, knowledge.box)[:layer]
    return question_of(knowledge, layer, [Query(layer, *sign) for sign in signs], below)


def branched(
    knowledge: Knowledge, most: int = MOST, *, jobs: int = 1, compiled: bool = False
) -> list[bool]:
    """Branches on the box for every layer with open signs; whether each was settled."""
    layers = Layers(knowledge)
    done = []
    for index in knowledge.relu_layers:
        layers.refresh(index)
        if any(signs.any() for signs in knowledge.open_signs(index)):
            below = layers.below(index)
            branching = BoxBranching(knowledge, index, below)
            done.append(branching.run(below, most, Deadline(), jobs, compiled=compiled))
    return done
