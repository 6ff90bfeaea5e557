"""Refuses places where a result cannot or must not be written, before any long work."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from onnx_exact.errors import OutputError

# What lies here is the machine's, whatever a link to it is called.
_NOT_FOR_FILES = ("/proc", "/sys")
# Links that lead in a circle are given up after as many.
_MOST_LINKS = 40


def check_output(source: Path, target: Path, *, in_place: bool) -> None:
    """Raises unless a model can be written to `target`.

    Raises:
        OutputError: `target` is `source`, by whatever name, and not `in_place`; or it cannot be
            written at all.
    """
    if not in_place and is_same_file(source, target):
        raise OutputError(
            f"the output {target} is the input file; give another name, or --in-place to replace it"
        )
    check_writable(target)


def check_report(report: Path, others: Iterable[Path], what: str = "report") -> None:
    """Raises unless a report can be written to `report`, which must be none of `others`.

    Raises:
        OutputError: as said.
    """
    for other in others:
        if is_same_file(report, other):
            raise OutputError(f"the {what} {report} would replace {other}; name another")
    check_writable(report)


def check_writable(target: Path) -> None:
    """Raises unless a file can be put at `target`, in place of the one that may be there.

    Raises:
        OutputError: no such folder, no permission, or something there that is no regular file, a
            device or what /proc holds among them, also at the end of links.
    """
    steps = list(_links(target))
    if len(steps) > _MOST_LINKS:
        raise OutputError(f"{target} cannot be written: its links lead in a circle")
    for step in steps:
        if any(Path(top) in step.parents for top in _NOT_FOR_FILES):
            raise OutputError(f"{target} cannot be written: {step} is no place for files")
    folder = Path(os.path.realpath(target)).parent
    try:
        if not folder.is_dir():
            raise OutputError(f"{target} cannot be written: there is no folder {folder}")
        if target.exists() and not target.is_file():
            raise OutputError(f"{target} cannot be written: it is there and no regular file")
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{target} cannot be written: no permission to write in {folder}")


def _links(path: Path) -> Iterator[Path]:
    """`path` and what it leads to, link by link, each as an absolute path."""
    for _ in range(_MOST_LINKS + 1):
        path = Path(os.path.abspath(path))
        yield path
        if not path.is_symlink():
            return
        path = path.parent / os.readlink(path)


def is_same_file(first: Path, second: Path) -> bool:
    """Whether both names lead to one file, also through links; names of no file as such."""
    try:
        return first.samefile(second)
    except OSError:
        return os.path.realpath(first) == os.path.realpath(second)
