"""Reads a certificate; takes nothing in it for granted but that it is made of bytes.

A zip of arrays as `numpy.savez_compressed` writes them: here as a container, of which types and
sizes are checked before anything is unpacked; `contents` says what there has to be in it.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from onnx_exact.errors import NotVerifiedError

FORMAT, VERSION = "onnx-exact certificate", 1
# Of the file, and of all that is unpacked from it.
MOST_BYTES = 2**30
MOST_HEADER = 2**26
LARGEST = float(np.finfo(np.float64).max)
UNDECIDED, INACTIVE, ACTIVE, UNSTABLE = range(4)
NONE, BOUNDS, SLOPES, TREE, SOLVER, WITNESS, UNSHOWN = range(7)
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


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:120]
