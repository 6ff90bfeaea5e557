"""What is known of a chain while its units are being decided: bounds, witnesses, verdicts.

The only place where a query is concluded: where a bound excludes a sign, and a point shows one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bab.trees import Tree
from onnx_exact.bounds.chain_bounds import ChainBounds
from onnx_exact.bounds.crown import unstable_units
from onnx_exact.decide.verdict import Evidence, LayerVerdicts, Narrowed, Stability, Status
from onnx_exact.errors import ContradictionError
from onnx_exact.network.affine import Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.network.query import Query
from onnx_exact.network.rounding import forward_error

# A bound this close to 0, relative to the terms of its pre-activation, may be one that nothing but
# rounding keeps from 0: splitting would go on for ever.
TIE_TOLERANCE = 1e-12
# Points that are run forward at once: bounds the memory of the pre-activations.
FORWARD_BATCH = 4096


class Knowledge:
    """Bounds and witnesses of every layer of a chain over a box; grows monotonically.

    Attributes:
        lower, upper: per layer, sound bounds on the pre-activations; infinite at first.
        seen_positive, seen_negative: per layer, units whose sign a confirmed point shows.
        trees: the splittings that bounds rest on, in the order in which they were found.
        narrowed: slopes of bounds that exclude no sign; a bound that does is in here as well.
        claimed: margins by which a solver excludes the sign that a query asks for.
        trusting: whether a solver is asked with a margin that its tolerance cannot bridge.

    Args:
        chain, box: the network and the domain.
        believing: whether what a solver claims becomes a bound; if not, nothing rests on it.
        trusting: see above.
    """

    def __init__(
        self, chain: Chain, box: Box, *, believing: bool = False, trusting: bool = False
    ) -> None:
        if box.lower.shape != (chain.n_in,):
            raise ValueError(f"a box of shape {box.lower.shape} for {chain.n_in} inputs")
        self.chain, self.box = chain, box
        widths = [layer.width for layer in chain.layers]
        self.lower = [np.full(n, -np.inf) for n in widths]
        self.upper = [np.full(n, np.inf) for n in widths]
        self.seen_positive = [np.zeros(n, dtype=bool) for n in widths]
        self.seen_negative = [np.zeros(n, dtype=bool) for n in widths]
        self._ties = [np.zeros(n) for n in widths]
        self._given_up = [np.zeros((2, n), dtype=bool) for n in widths]
        self._evidence = [np.zeros(n, dtype=np.int8) for n in widths]
        self._witnesses: list[Array] = []
        self.trees: list[Tree] = []
        self.narrowed: list[Narrowed] = []
        self.claimed: dict[Query, float] = {}
        self.trusting, self._believing = trusting, believing

    def claim(self, query: Query, margin: float) -> None:
        """Notes a solver's word that the sign is nowhere within `margin` of occurring."""
        self.claimed[query] = margin
        if self._believing:
            self.believe(query)

    def believe(self, query: Query) -> None:
        """Makes a bound of what a solver claims."""
        self.conclude(query, -self.claimed[query], Evidence.SOLVER)

    def conclude(self, query: Query, bound: float, evidence: Evidence) -> None:
        """Takes in a sound upper bound on the query's signed pre-activation; 0 excludes the sign.

        Args:
            query: of the unit and its sign.
            bound: on g for the positive sign, on -g for the negative one.
            evidence: what the bound was obtained by.
        """
        units, bounds = np.array([query.unit]), np.array([bound])
        self.conclude_units(query.layer, units, query.positive, bounds, evidence)

    def conclude_tree(self, tree: Tree) -> None:
        """Takes in that a tree excludes its queries, and keeps it as their evidence."""
        for positive in (True, False):
            units = tree.units[tree.positive == positive]
            bounds = np.zeros(units.size)
            self.conclude_units(tree.layer, units, positive, bounds, Evidence.LINEAR)
        self.trees.append(tree)

    def conclude_units(
        self,
        layer: int,
        units: NDArray[np.intp],
        positive: bool,
        bounds: Array,
        evidence: Evidence,
    ) -> None:
        """As `conclude`, for one sign of several units of a layer, shape (units,) both."""
        full = np.full(self.lower[layer].size, np.inf)
        full[units] = bounds
        if positive:
            self.tighten(layer, evidence, upper=full)
        else:
            self.tighten(layer, evidence, lower=-full)

    def tighten(
        self,
        layer: int,
        evidence: Evidence,
        lower: Array | None = None,
        upper: Array | None = None,
    ) -> None:
        """Intersects the bounds of a layer with sound ones obtained by `evidence`; nan is none."""
        low, high = self.lower[layer], self.upper[layer]
        new_low = low if lower is None else np.fmax(low, lower)
        new_high = high if upper is None else np.fmin(high, upper)
        was_open = unstable_units(low, high)
        self._evidence[layer][was_open & ((new_low >= 0.0) | (new_high <= 0.0))] = evidence
        self.lower[layer], self.upper[layer] = new_low, new_high
        self._ties[layer] = TIE_TOLERANCE * self._reach(layer)
        if (self.lower[layer] > self.upper[layer]).any() or self._contradicted(layer):
            raise ContradictionError(f"layer {layer}: {evidence.name} bounds exclude a witness")

    def show(self, points: Array) -> int:
        """Runs points forward, after clipping them into the box, and records what they show.

        Args:
            points: shape (points, inputs).

        Returns:
            How many signs were seen for the first time, over all layers.
        """
        found = 0
        for start in range(0, len(points), FORWARD_BATCH):
            batch = self.box.clip(points[start : start + FORWARD_BATCH])
            with np.errstate(over="ignore", invalid="ignore"):
                values = self.chain.preactivations(batch)
                if self._promising(values):
                    found += self._confirm(batch, values)
        return found

    def show_exactly(self, query: Query, corner: Array) -> None:
        """Records a sign that exact arithmetic has shown at a point of the box."""
        seen = self._seen(query.layer)[query.row]
        if not seen[query.unit]:
            seen[query.unit] = True
            self._witnesses.append(corner.copy())

    def _seen(self, layer: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        return self.seen_positive[layer], self.seen_negative[layer]

    def _promising(self, values: list[Array]) -> bool:
        """Whether a sign that no point has shown seems to show."""
        return any(
            bool((g[:, ~self.seen_positive[layer]] > 0.0).any())
            or bool((g[:, ~self.seen_negative[layer]] < 0.0).any())
            for layer, g in enumerate(values)
            if self.chain.layers[layer].relu
        )

    def _confirm(self, points: Array, values: list[Array]) -> int:
        """Records the signs that points of the box show beyond the rounding of a forward pass.

        Inputs are bounded over all points, so that one vector of errors a layer does for them all.
        """
        h, error = points, np.zeros(points.shape[1])
        finite = np.ones(len(points), dtype=bool)
        witnesses: set[int] = set()
        total = 0
        for index, (layer, g) in enumerate(zip(self.chain.layers, values, strict=True)):
            # A point that overflows shows nothing from there on, and hides nothing.
            finite &= np.isfinite(g).all(axis=1)
            size = np.abs(h[finite]).max(axis=0, initial=0.0)
            error = forward_error(layer.affine, size, error)
            h = layer.activate(g)
            if not layer.relu:
                continue
            for seen, shown in (
                (self.seen_positive[index], g > error),
                (self.seen_negative[index], g < -error),
            ):
                shown &= finite[:, None]
                first = np.flatnonzero(shown.any(axis=0) & ~seen)
                witnesses.update(shown[:, first].argmax(axis=0).tolist())
                seen[first] = True
                total += first.size
            if self._contradicted(index):
                raise ContradictionError(f"layer {index}: a witness lies outside the bounds")
        self._witnesses += [points[row].copy() for row in sorted(witnesses)]
        return total

    def _reach(self, layer: int) -> Array:
        """What the terms of each pre-activation add up to at most; 0 where that is unbounded."""
        inputs = np.maximum(*(np.abs(bound) for bound in self.output_bounds(layer - 1)))
        if not np.isfinite(inputs).all():
            return np.zeros(self.lower[layer].shape)
        with np.errstate(over="ignore"):
            reach = self.chain.layers[layer].affine.linear.absolute().apply(inputs)
        reach += np.abs(self.chain.layers[layer].affine.bias)
        return np.where(np.isfinite(reach), reach, 0.0)

    def _contradicted(self, layer: int) -> bool:
        return bool(
            (self.seen_positive[layer] & (self.upper[layer] <= 0.0)).any()
            or (self.seen_negative[layer] & (self.lower[layer] >= 0.0)).any()
        )

    def status(self, layer: int) -> NDArray[np.int8]:
        """The verdicts on a layer's units as they follow from what is known, of `Status`."""
        status = np.full(self.lower[layer].shape, Status.UNDECIDED, dtype=np.int8)
        both = self.seen_positive[layer] & self.seen_negative[layer]
        status[both] = Status.UNSTABLE
        status[self.lower[layer] >= 0.0] = Status.ACTIVE
        status[self.upper[layer] <= 0.0] = Status.INACTIVE
        return status

    def output_bounds(self, layer: int) -> tuple[Array, Array]:
        """Sound bounds on the output h of a layer; of the box for layer -1."""
        if layer < 0:
            return self.box.lower, self.box.upper
        made = self.chain.layers[layer]
        return made.activate(self.lower[layer]), made.activate(self.upper[layer])

    def open_signs(self, layer: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which units may still turn out positive, and negative, somewhere: shape (units,).

        Those that were given up are not among them.
        """
        undecided = self.status(layer) == Status.UNDECIDED
        positive, negative = undecided & ~self._given_up[layer]
        return positive & ~self.seen_positive[layer], negative & ~self.seen_negative[layer]

    def open_queries(self, layer: int) -> list[Query]:
        """The open signs of a layer as queries, the positive ones first."""
        return [
            Query(layer, int(unit), positive)
            for positive, signs in zip((True, False), self.open_signs(layer), strict=True)
            for unit in np.flatnonzero(signs)
        ]

    def are_open(self, queries: Sequence[Query]) -> NDArray[np.bool_]:
        """Which queries are open, shape (queries,)."""
        signs = {layer: self.open_signs(layer) for layer in {query.layer for query in queries}}
        return np.array([signs[q.layer][q.row][q.unit] for q in queries], dtype=bool)

    def is_open(self, query: Query) -> bool:
        """Whether a query is open."""
        return bool(self.open_signs(query.layer)[query.row][query.unit])

    def is_shown(self, query: Query) -> bool:
        """Whether a point shows the sign that a query asks for."""
        return bool(self._seen(query.layer)[query.row][query.unit])

    def is_splittable(self, query: Query) -> bool:
        """Whether a query is open, and its bound is not within rounding of 0."""
        tie = float(self._ties[query.layer][query.unit])
        return self.is_open(query) and self.signed_bound(query) > tie

    def signed_bound(self, query: Query) -> float:
        """The upper bound on a query's signed pre-activation."""
        if query.positive:
            return float(self.upper[query.layer][query.unit])
        return -float(self.lower[query.layer][query.unit])

    def give_up(self, queries: Iterable[Query]) -> None:
        """Takes queries off the open ones: their extreme is within a solver's tolerance of 0."""
        for query in queries:
            self._given_up[query.layer][query.row, query.unit] = True

    @property
    def bounds(self) -> ChainBounds:
        """The bounds as they stand, as a value."""
        return ChainBounds(self.chain, self.box, tuple(self.lower), tuple(self.upper))

    @property
    def relu_layers(self) -> list[int]:
        """Indices of the layers that end in a ReLU."""
        return [i for i, layer in enumerate(self.chain.layers) if layer.relu]

    @property
    def open_units(self) -> int:
        """Number of units of all layers with an open sign."""
        return sum(int((p | n).sum()) for p, n in map(self.open_signs, self.relu_layers))

    @property
    def witnesses(self) -> Array:
        """The points that showed a sign first, shape (points, inputs)."""
        return np.array(self._witnesses).reshape(-1, self.chain.n_in)

    def freeze(self) -> Stability:
        """The verdicts as they stand."""
        layers: list[LayerVerdicts | None] = []
        for i, layer in enumerate(self.chain.layers):
            if not layer.relu:
                layers.append(None)
                continue
            status = self.status(i)
            evidence = self._evidence[i].copy()
            evidence[status == Status.UNSTABLE] = Evidence.WITNESS
            evidence[status == Status.UNDECIDED] = Evidence.NONE
            layers.append(
                LayerVerdicts(
                    status,
                    evidence,
                    self.lower[i],
                    self.upper[i],
                    self.seen_positive[i],
                    self.seen_negative[i],
                )
            )
        outputs = self.output_bounds(len(self.chain.layers) - 1)
        return Stability(
            *(tuple(layers), self.witnesses, *outputs),
            trees=tuple(self.trees),
            narrowed=tuple(self.narrowed),
        )
