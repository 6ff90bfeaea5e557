"""Reads a certificate; takes nothing in it for granted but that it is made of bytes.

A zip of arrays as `numpy.savez_compressed` writes them. Which members there are, of which types and
shapes, follows from the header and the original chain; sizes are checked before anything is
unpacked. What the numbers claim is for others to check.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from onnx_exact.errors import NotVerifiedError

FORMAT, VERSION = "onnx-exact certificate", 1
# Of the file, and of all that is unpacked from it.
MOST_BYTES = 2**30
MOST_HEADER = 2**26
MOST_CHAINS = 1000
MOST_TREES = 100_000
MOST_NODES = 1_000_000
FEW_POINTS = 64
MOST_MULTIPLIERS = 2**25
LARGEST = float(np.finfo(np.float64).max)
UNDECIDED, INACTIVE, ACTIVE, UNSTABLE = range(4)
NONE, BOUNDS, SLOPES, TREE, SOLVER, WITNESS, UNSHOWN = range(7)
# Which proofs a status may have.
PROOFS = {
    UNDECIDED: (NONE,),
    INACTIVE: (BOUNDS, SLOPES, TREE, SOLVER),
    ACTIVE: (BOUNDS, SLOPES, TREE, SOLVER),
    UNSTABLE: (WITNESS, UNSHOWN),
}
_BROKEN = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


class Certificate:
    """The header, and the arrays by name; each is unpacked when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._asked = {"header"}
        self._unpacked = 0
        try:
            size = path.stat().st_size
            self._zip = zipfile.ZipFile(path)
            self._members = {info.filename: info for info in self._zip.infolist()}
            repeated = len(self._members) != len(self._zip.infolist())
        except (*_BROKEN, NotImplementedError) as error:
            self.refuse(f"no zip archive that can be read ({_line(error)})")
        if size > MOST_BYTES or repeated:
            self.refuse("too large, or two members of one name")
        text = self.array("header", np.uint8, (None,), most=MOST_HEADER).tobytes()
        try:
            self.header = json.loads(text, parse_constant=self._no_number)
        except (ValueError, RecursionError) as error:
            self.refuse(f"its header is no JSON ({_line(error)})")
        if not isinstance(self.header, dict) or (
            (self.header.get("format"), self.header.get("version")) != (FORMAT, VERSION)
        ):
            self.refuse(f"not of the format {FORMAT!r}, version {VERSION}")

    def refuse(self, why: str) -> NoReturn:
        """Raises NotVerifiedError."""
        raise NotVerifiedError(f"the certificate {self.path} cannot be used: {why}")

    def _no_number(self, text: str) -> None:
        raise ValueError(f"{text} is no finite number")

    def entry(self, kind: type, *keys: str, of: Any = None) -> Any:
        """A value of the header, or of an object in it, that has to be of a type."""
        found = self.header if of is None else of
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        kinds = (int, float) if kind is float else kind
        wrong = not isinstance(found, kinds) or isinstance(found, bool)
        if wrong or (kind is float and not abs(found) <= LARGEST):
            self.refuse(f"its header has no proper {'.'.join(keys)}")
        return found

    def has(self, name: str) -> bool:
        """Whether there is such an array."""
        return f"{name}.npy" in self._members

    def array(
        self, name: str, kind: Any, shape: Sequence[int | None], most: int = MOST_BYTES
    ) -> NDArray[Any]:
        """An array of that type and shape, None for sizes that are free; all numbers finite.

        Args:
            name: of the array.
            kind: its type, or several.
            shape: its sizes.
            most: how many bytes it may have.
        """
        self._asked.add(name)
        member = self._members.get(f"{name}.npy")
        if member is None:
            self.refuse(f"it has no {name}")
        kinds = [np.dtype(k) for k in (kind if isinstance(kind, tuple) else (kind,))]
        try:
            with self._zip.open(member) as stream:
                version = np.lib.format.read_magic(stream)
                if version != (1, 0):
                    self.refuse(f"{name} is no plain array")
                sizes, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
                fits = len(sizes) == len(shape) and all(
                    want is None or want == size for size, want in zip(sizes, shape, strict=True)
                )
                count = math.prod(sizes)
                if dtype not in kinds or not fits or fortran or count * dtype.itemsize > most:
                    self.refuse(f"{name} has shape {sizes} and type {dtype}")
                data = stream.read(count * dtype.itemsize + 1)
        except (*_BROKEN, NotImplementedError, SyntaxError, TypeError) as error:
            self.refuse(f"{name} cannot be unpacked ({_line(error)})")
        self._unpacked += len(data)
        if self._unpacked > MOST_BYTES:
            self.refuse("it unpacks to more than a certificate takes")
        if len(data) != count * dtype.itemsize:
            self.refuse(f"{name} is not as long as it says")
        values = np.frombuffer(data, dtype).reshape(sizes)
        if dtype.kind == "f" and not np.isfinite(values).all():
            self.refuse(f"{name} holds a number that is not finite")
        if dtype == np.bool_ and (values.view(np.uint8) > 1).any():
            self.refuse(f"{name} holds what is no truth value")
        return values

    def finish(self) -> None:
        """Raises if there is anything that nobody asked for."""
        left = {name.removesuffix(".npy") for name in self._members} - self._asked
        if left:
            self.refuse(f"it holds {min(left)!r}, which says nothing")


@dataclass(frozen=True, eq=False)
class Tree:
    """How a box or the signs of units were split to exclude signs of units of one layer."""

    kind: str
    layer: int
    units: NDArray[np.int32]
    positive: NDArray[np.bool_]
    nodes: NDArray[np.signedinteger[Any]]
    slopes: NDArray[np.uint8] | None
    multipliers: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class Claims:
    """What a certificate says of one chain; dicts by layer of the original."""

    status: dict[int, NDArray[np.int8]]
    proof: dict[int, NDArray[np.int8]]
    witnesses: NDArray[np.floating[Any]]
    slopes: dict[int, tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.uint8]]]
    trees: tuple[Tree, ...]
    sources: tuple[int, ...]
    places: tuple[NDArray[np.int32], ...]
    factors: tuple[NDArray[np.float64], ...]

    def loose(self, layer: int) -> NDArray[np.bool_]:
        """Units of a layer that a slope is given for."""
        status, proof = self.status[layer], self.proof[layer]
        return np.asarray(np.isin(status, (UNDECIDED, UNSTABLE)) | (proof == SOLVER))


def read_claims(
    certificate: Certificate, chain: int, widths: list[int], relu: list[bool], inputs: int
) -> Claims:
    """What the certificate says of its chain number `chain`, whose original has these layers."""
    prefix, get = f"c{chain}_", certificate.array
    head = certificate.entry(list, "chains")[chain]
    wanted = {"widths": widths, "relu": relu}
    if any(certificate.entry(list, key, of=head) != value for key, value in wanted.items()):
        certificate.refuse(f"chain {chain} does not have the widths of the original")
    status, proof, slopes = {}, {}, {}
    for layer in (i for i, has in enumerate(relu) if has):
        name = f"{prefix}l{layer}_"
        status[layer] = get(f"{name}status", np.int8, (widths[layer],))
        proof[layer] = get(f"{name}proof", np.int8, (widths[layer],))
        pairs = set(zip(status[layer].tolist(), proof[layer].tolist(), strict=True))
        for one, by in pairs:
            if by not in PROOFS.get(one, ()):
                certificate.refuse(f"status {one} with proof {by} in layer {layer}")
    found = Claims(status, proof, np.zeros((0, inputs)), {}, (), (), (), ())
    total = [0]
    for layer in range(len(widths)):
        total.append(total[-1] + (int(found.loose(layer).sum()) if layer in status else 0))
        if certificate.has(f"{prefix}l{layer}_slopes"):
            most = 2 * widths[layer] * max(total[layer], 1)
            records = get(f"{prefix}l{layer}_slopes", np.uint8, (None, total[layer]), most)
            units = _units(
                certificate, f"{prefix}l{layer}_slopes_unit", len(records), widths[layer]
            )
            signs = get(f"{prefix}l{layer}_slopes_positive", np.bool_, (len(records),))
            slopes[layer] = units, signs, records
    points = np.zeros((0, inputs))
    if certificate.has(f"{prefix}witnesses"):
        # There is no need of more than one for each sign.
        most = max(2 * sum(widths), FEW_POINTS) * inputs * 8
        points = get(f"{prefix}witnesses", (np.float32, np.float64), (None, inputs), most)
    heads = certificate.entry(list, "trees", of=head)
    if len(heads) > MOST_TREES:
        certificate.refuse("too many trees")
    trees = tuple(
        _tree(certificate, f"{prefix}t{i}_", tree, widths, relu, inputs, total)
        for i, tree in enumerate(heads)
    )
    sources = certificate.entry(list, "sources", of=head)
    last = len(widths) - 1
    if not sources or any(type(s) is not int or not 0 <= s <= last for s in sources):
        certificate.refuse("its layers stand for none of the original")
    if sorted(set(sources)) != sources or sources[-1] != last:
        certificate.refuse("its layers are not in the order of the original")
    after = certificate.entry(list, "result_widths", of=head)
    if len(after) != len(sources) or any(type(n) is not int or n < 1 for n in after):
        certificate.refuse("its widths do not fit its layers")
    places, factors = [], []
    for k, source in enumerate(sources):
        places.append(
            _units(certificate, f"{prefix}m{k}_unit", widths[source], after[k], lowest=-1)
        )
        factor = np.ones(widths[source])
        if certificate.has(f"{prefix}m{k}_factor"):
            factor = get(f"{prefix}m{k}_factor", np.float64, (widths[source],))
        if not (factor > 0.0).all():
            certificate.refuse("a factor that is not positive")
        factors.append(factor)
    return Claims(
        status, proof, points, slopes, trees, tuple(sources), tuple(places), tuple(factors)
    )


def _units(
    certificate: Certificate, name: str, count: int | None, below: int, lowest: int = 0
) -> NDArray[np.int32]:
    units = certificate.array(name, np.int32, (count,), most=4 * MOST_NODES)
    if ((units < lowest) | (units >= below)).any():
        certificate.refuse(f"{name} names a unit that is not there")
    return units


def _tree(
    certificate: Certificate,
    prefix: str,
    head: Any,
    widths: list[int],
    relu: list[bool],
    inputs: int,
    total: list[int],
) -> Tree:
    kind, layer = (certificate.entry(k, key, of=head) for k, key in ((str, "kind"), (int, "layer")))
    if kind not in ("box", "relu") or not 0 <= layer < len(widths) or not relu[layer]:
        certificate.refuse(f"{prefix} is no tree of a layer with ReLUs")
    units = _units(certificate, f"{prefix}units", None, widths[layer])
    positive = certificate.array(f"{prefix}positive", np.bool_, (len(units),))
    if kind == "box":
        nodes = certificate.array(f"{prefix}nodes", np.int16, (None,), most=2 * MOST_NODES)
        if ((nodes < -1) | (nodes >= inputs)).any():
            certificate.refuse(f"{prefix} splits an input that is not there")
        return Tree(kind, layer, units, positive, nodes, None, None)
    nodes = certificate.array(f"{prefix}nodes", np.int32, (None, 2), most=8 * MOST_NODES)
    leaf = (nodes == -1).all(axis=1)
    for where, unit in set(map(tuple, nodes[~leaf].tolist())):
        if not 0 <= where < layer or not relu[where] or not 0 <= unit < widths[where]:
            certificate.refuse(f"{prefix} splits on unit {unit} of layer {where}")
    slopes = certificate.array(f"{prefix}slopes", np.uint8, (int(leaf.sum()), total[layer]))
    multipliers = certificate.array(
        f"{prefix}multipliers", np.float32, (None,), most=4 * MOST_MULTIPLIERS
    )
    if (multipliers < 0.0).any():
        certificate.refuse(f"{prefix} has a negative multiplier")
    return Tree(kind, layer, units, positive, nodes, slopes, multipliers)


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:120]
