"""What a certificate may hold: its container, one table of its arrays, and the claims read by it.

Nothing is taken for granted but that a certificate is made of bytes: types and sizes are checked
before anything is unpacked, indices as it is read, and what no entry of the table asks for is
refused. Whether what it claims is true is for others to check.
"""

from __future__ import annotations

import json
import math
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact.errors import NotVerifiedError, UncheckedError, UsageError
from onnx_exact.verifier.intervals import Interval
from onnx_exact.verifier.refusals import require, require_known
from onnx_exact.verifier.rounding import LARGEST, Flags

FORMAT, VERSIONS = "onnx-exact certificate", (1, 2)
MOST_HEADER = 2**23
# Of all that is unpacked: so much, and so many times what the two models have.
MOST_BYTES, MOST_TIMES = 2**26, 8
MOST_TREES = 100_000
MOST_NODES = 1_000_000
FEW_POINTS = 64
UNDECIDED, INACTIVE, ACTIVE, UNSTABLE = range(4)
NONE, BOUNDS, SLOPES, TREE, CLAIMED, WITNESS, UNSHOWN = range(7)
# Which proofs a status may have.
PROVED = (BOUNDS, SLOPES, TREE, CLAIMED)
PROOFS = {
    (UNDECIDED, NONE),
    *((status, proof) for status in (INACTIVE, ACTIVE) for proof in PROVED),
    *((UNSTABLE, proof) for proof in (WITNESS, UNSHOWN)),
}


@dataclass(frozen=True)
class Field:
    """An array: its types, its sizes and the range of its entries.

    Sizes and ends of the range are numbers, or names of numbers that follow from the header, the
    models and the arrays before; None is a size that is free, up to `most` bytes.
    """

    kinds: tuple[type, ...]
    sizes: tuple[str | int | None, ...]
    low: float = -math.inf
    below: str | float = math.inf


# Of a tensor that lost channels; of a chain, its layer l and its tree t; of layer k of the result.
FIELDS = {
    "kept": Field((np.bool_,), (None,)),
    "witnesses": Field((np.float32, np.float64), (None, "inputs")),
    "box": Field((np.float64,), (2, "inputs")),
    "status": Field((np.int8,), ("units",), UNDECIDED, UNSTABLE + 1),
    "proof": Field((np.int8,), ("units",), NONE, UNSHOWN + 1),
    "slopes_unit": Field((np.int32,), (None,), 0, "units"),
    "slopes_positive": Field((np.bool_,), ("rows",)),
    "slopes": Field((np.uint8,), ("rows", "loose")),
    "units": Field((np.int32,), (None,), 0, "units"),
    "positive": Field((np.bool_,), ("signs",)),
    "box_nodes": Field((np.int16,), (None,), -1, "inputs"),
    "relu_nodes": Field((np.int32,), (None, 2), -1, "units"),
    "leaf_slopes": Field((np.uint8,), ("leaves", "loose")),
    "multipliers": Field((np.float32,), (None,), 0.0),
    "unit": Field((np.int32,), ("units",), -math.inf, "result_units"),
    "factor": Field((np.float64,), ("units",)),
}


class Certificate:
    """The header, and the arrays by name; each is unpacked when it is asked for.

    Args:
        path: the file.
        nbytes: of the two models together.

    Raises:
        UsageError: it is no certificate.
        UncheckedError: it is of another version.
    """

    def __init__(self, path: Path, nbytes: int) -> None:
        self.path, self._asked = path, {"header.npy"}
        self._left = MOST_BYTES + MOST_TIMES * nbytes
        try:
            self._zip = zipfile.ZipFile(path)
            listed = self._zip.infolist()
            self._members = {info.filename: info for info in listed}
            text = self._unpacked("header", (np.uint8,), (None,), MOST_HEADER).tobytes()
            self.header = json.loads(text, parse_constant=_no_number)
            marked = isinstance(self.header, dict) and self.header.get("format") == FORMAT
        except Exception as error:  # whatever hostile bytes may lead to
            raise UsageError(f"{path} is no certificate ({_line(error)})") from error
        if not marked or len(self._members) != len(listed):
            raise UsageError(f"{path} is no certificate (nothing that onnx-exact writes)")
        require_known(
            self.header.get("version") in VERSIONS, f"{path} is of another version than {VERSIONS}"
        )

    def require(self, holds: object, why: str) -> None:
        """Raises NotVerifiedError unless something holds."""
        require(holds, f"the certificate {self.path} is wrong: {why}")

    def entry(self, kind: type, *keys: str, of: Any = None) -> Any:
        """A value of the header, or of an object in it, that has to be of a type."""
        found = self.header if of is None else of
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        kinds = (int, float) if kind is float else kind
        proper = isinstance(found, kinds) and (kind is bool or not isinstance(found, bool))
        self.require(
            proper and (kind is not float or abs(found) <= LARGEST),
            f"its header has no proper {'.'.join(keys)}",
        )
        return found

    def entries(self, kind: type, key: str, of: Any) -> list[Any]:
        """A list of values of a type."""
        found: list[Any] = self.entry(list, key, of=of)
        self.require(all(type(value) is kind for value in found), f"its header has no proper {key}")
        return found

    def has(self, name: str) -> bool:
        """Whether there is such an array."""
        return f"{name}.npy" in self._members

    def array(self, name: str, field: str, most: int = sys.maxsize, **known: int) -> NDArray[Any]:
        """An array as its field in the table has it, all numbers finite.

        Args:
            name: of the array.
            field: its entry in `FIELDS`.
            most: how many bytes it may have.
            **known: the numbers that the field names.
        """
        wanted = FIELDS[field]
        sizes = tuple(known[s] if isinstance(s, str) else s for s in wanted.sizes)
        try:
            values = self._unpacked(name, wanted.kinds, sizes, most)
        except UncheckedError:
            raise
        except Exception as error:  # whatever hostile bytes may lead to
            why = f"{name} is no proper array ({_line(error)})"
            raise NotVerifiedError(f"the certificate {self.path} is wrong: {why}") from error
        below = known[wanted.below] if isinstance(wanted.below, str) else wanted.below
        if values.dtype == np.bool_:
            proper = (values.view(np.uint8) <= 1).all()
        else:
            proper = ((values >= wanted.low) & (values < below) & np.isfinite(values)).all()
        self.require(proper, f"{name} holds an entry that means nothing")
        return values

    def _unpacked(
        self, name: str, kinds: tuple[type, ...], sizes: tuple[int | None, ...], most: int
    ) -> NDArray[Any]:
        """An array of one of the types and of these sizes, None for free ones."""
        self._asked.add(f"{name}.npy")
        with self._zip.open(self._members[f"{name}.npy"]) as stream:
            require(np.lib.format.read_magic(stream) == (1, 0), "no plain array")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            fits = len(shape) == len(sizes) and all(
                has >= 0 and want in (None, has) for has, want in zip(shape, sizes, strict=True)
            )
            nbytes = math.prod(shape) * dtype.itemsize
            fits &= dtype in [np.dtype(kind) for kind in kinds] and not fortran
            require(fits, f"shape {shape} and type {dtype}")
            require_known(nbytes <= min(most, self._left), f"{name} of {self.path} is too large")
            data = stream.read(nbytes + 1)
        self._left -= nbytes
        require(len(data) == nbytes, "not as long as it says")
        return np.frombuffer(data, dtype).reshape(shape)

    def finish(self) -> None:
        """Raises if there is anything that nobody asked for."""
        left = sorted(self._members.keys() - self._asked)
        self.require(not left, f"it holds {left[:1]}, which say nothing")


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no finite number")


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:120]


@dataclass(frozen=True, eq=False)
class Tree:
    """How a box or the signs of units were split to exclude signs of units of one layer."""

    kind: str
    layer: int
    units: NDArray[np.int32]
    positive: Flags
    nodes: NDArray[np.signedinteger[Any]]
    slopes: NDArray[np.uint8]
    multipliers: NDArray[np.float32]

    @property
    def leaves(self) -> int:
        """How many parts it has."""
        return (len(self.nodes) + 1) // 2


@dataclass(frozen=True, eq=False)
class Claims:
    """What a certificate says of one chain; dicts by layer of the original."""

    status: dict[int, NDArray[np.int8]]
    proof: dict[int, NDArray[np.int8]]
    witnesses: NDArray[np.floating[Any]]
    slopes: dict[int, tuple[NDArray[np.int32], Flags, NDArray[np.uint8]]]
    trees: tuple[Tree, ...]
    sources: tuple[int, ...]
    places: tuple[NDArray[np.int32], ...]
    factors: tuple[NDArray[np.float64], ...]
    together: dict[int, tuple[NDArray[np.int32], NDArray[np.float64]]]

    def loose(self, layer: int) -> Flags:
        """Units of a layer with ReLUs that have slopes: those of which no bound shows the sign."""
        claimed = self.proof[layer] == CLAIMED
        return np.asarray(np.isin(self.status[layer], (UNDECIDED, UNSTABLE)) | claimed)


class ClaimsReader:
    """Reads what the certificate says of its chain `number`, whose original has these layers."""

    def __init__(
        self, file: Certificate, number: int, widths: list[int], relu: list[bool], inputs: int
    ) -> None:
        self.file, self.prefix = file, f"c{number}_"
        self.head = file.entry(list, "chains")[number]
        self.widths, self.relu, self.inputs = widths, relu, inputs
        after = file.entries(bool, "result_relu", of=self.head)
        self.result_relu = {f"m{k}": relu for k, relu in enumerate(after)}

    def claims(self) -> Claims:
        """All of it."""
        own = [self.file.entries(k, n, of=self.head) for k, n in ((int, "widths"), (bool, "relu"))]
        self.file.require(
            own == [self.widths, self.relu], "its widths and relu are not those of the original"
        )
        layers = [k for k, relu in enumerate(self.relu) if relu]
        status, proof = (
            {k: self.array(f"l{k}_{kind}", kind, units=self.widths[k]) for k in layers}
            for kind in ("status", "proof")
        )
        for k in layers:
            pairs = set(zip(status[k].tolist(), proof[k].tolist(), strict=True))
            self.file.require(pairs <= PROOFS, f"a status without such a proof in layer {k}")
        claims = Claims(status, proof, self.witnesses(), {}, (), *self.map())
        # Slopes are given for this many units of the layers before each.
        loose = [int(claims.loose(k).sum()) if relu else 0 for k, relu in enumerate(self.relu)]
        self.loose = [sum(loose[:k]) for k in range(len(loose))]
        slopes = {
            k: self.slopes(k)
            for k in range(len(self.widths))
            if self.file.has(f"{self.prefix}l{k}_slopes")
        }
        heads = self.file.entries(dict, "trees", of=self.head)
        require_known(len(heads) <= MOST_TREES, f"{len(heads)} trees")
        trees = (self.tree(i, head) for i, head in enumerate(heads))
        return replace(claims, slopes=slopes, trees=tuple(trees))

    def array(self, name: str, field: str, **known: int) -> NDArray[Any]:
        """An array of this chain."""
        return self.file.array(f"{self.prefix}{name}", field, **known)

    def box(self, found: Interval) -> Interval:
        """The box that it names for the chain's input, which has to hold what was found."""
        if not self.file.has(f"{self.prefix}box"):
            return found
        low, high = self.array("box", "box", inputs=self.inputs)
        holds = (low <= found[0]).all() and (found[1] <= high).all()
        require_known(holds, f"the input of {self.prefix} may leave the box that is named for it")
        return low, high

    def slopes(self, layer: int) -> tuple[NDArray[np.int32], Flags, NDArray[np.uint8]]:
        """Units, signs and slopes of a layer's records."""
        width, name = self.widths[layer], f"l{layer}_slopes"
        units = self.array(f"{name}_unit", "slopes_unit", units=width, most=8 * width)
        rows = {"rows": len(units), "loose": self.loose[layer]}
        positive = self.array(f"{name}_positive", "slopes_positive", **rows)
        return units, positive, self.array(name, "slopes", **rows)

    def witnesses(self) -> NDArray[np.floating[Any]]:
        """The points; there is no need of more than one for each sign."""
        if not self.file.has(f"{self.prefix}witnesses"):
            return np.zeros((0, self.inputs))
        most = 2 * sum(self.widths) + FEW_POINTS
        return self.array("witnesses", "witnesses", inputs=self.inputs, most=8 * most * self.inputs)

    def tree(self, number: int, head: Any) -> Tree:
        """One tree."""
        name, kind = f"t{number}_", self.file.entry(str, "kind", of=head)
        layer = self.file.entry(int, "layer", of=head)
        self.file.require(
            kind in ("box", "relu") and 0 <= layer < len(self.widths) and self.relu[layer],
            f"{name} is no tree of a layer with ReLUs",
        )
        width = self.widths[layer]
        units = self.array(f"{name}units", "units", units=width, most=8 * width)
        positive = self.array(f"{name}positive", "positive", signs=len(units))
        most = MOST_NODES * (2 if kind == "box" else 8)
        known = {"inputs": self.inputs, "units": max(*self.widths, layer)}
        nodes = self.array(f"{name}nodes", f"{kind}_nodes", most=most, **known)
        if kind == "box":
            none = np.zeros((0, 0), np.uint8), np.zeros(0, np.float32)
            return Tree(kind, layer, units, positive, nodes, *none)
        leaf = (nodes == -1).all(axis=1)
        for where, unit in set(map(tuple, nodes[~leaf].tolist())):
            there = 0 <= where < layer and self.relu[where]
            self.file.require(
                there and 0 <= unit < self.widths[where],
                f"{name} splits on unit {unit} of layer {where}",
            )
        known = {"leaves": int(leaf.sum()), "loose": self.loose[layer]}
        slopes = self.array(f"{name}slopes", "leaf_slopes", **known)
        multipliers = self.array(f"{name}multipliers", "multipliers")
        return Tree(kind, layer, units, positive, nodes, slopes, multipliers)

    def map(self) -> tuple[tuple[int, ...], Any, Any, dict[int, Any]]:
        """The layers that those of the result stand for, where their units went, and how often.

        Then the two of all layers of the original in which some are gone together.
        """
        sources = self.file.entries(int, "sources", of=self.head)
        after = self.file.entries(int, "result_widths", of=self.head)
        last = len(self.widths) - 1
        ordered = sorted({s for s in sources if 0 <= s <= last}) == sources
        self.file.require(
            ordered and sources[-1:] == [last] and len(after) == len(sources),
            "its layers are not those of the original in their order",
        )
        found = {s: self.units(f"m{k}", s, after[k]) for k, s in enumerate(sources)}
        gone = [
            s for s in range(last) if s not in found and self.file.has(f"{self.prefix}g{s}_unit")
        ]
        together = found | {s: self.units(f"g{s}", s, 0) for s in gone}
        places, factors = zip(*(found[s] for s in sources), strict=True)
        return tuple(sources), places, factors, together

    def units(
        self, name: str, source: int, width: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Where the units of a layer of the original went, and how often."""
        units = {"units": self.widths[source], "result_units": width}
        place, factor = self.array(f"{name}_unit", "unit", **units), np.ones(self.widths[source])
        if self.file.has(f"{self.prefix}{name}_factor"):
            factor = self.array(f"{name}_factor", "factor", **units)
        relu = self.relu[source] and self.result_relu.get(name, True)
        self.file.require(
            (factor != 0.0).all() and (relu or (factor > 0.0).all()),
            f"{name} turns what has no ReLU, or makes it 0",
        )
        return place, factor
