"""Files that appear together, all of them or none, and temporary folders that never stay.

Everything is first written to a hidden folder beside its place, on the same file system, and moved
at the very end. A signal that ends the program is an exception like any other here.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from onnx_exact.errors import OutputError

# Of the 255 bytes that a name may have, what a hidden folder takes of the name it stands for.
LONGEST_PREFIX = 100


class Outputs:
    """What is written, and where it goes; made by `appearing`."""

    def __init__(self) -> None:
        self._folders: list[Path] = []
        self._moves: list[tuple[Path, Path]] = []
        self._unneeded: list[Path] = []
        self._undo: list[tuple[Path, Path | None]] = []
        self._inputs: set[Path] = set()

    def protect(self, path: Path) -> None:
        """Lets no file be placed at `path`, which is read."""
        self._inputs.add(real(path))

    def folder(self, path: Path) -> Path:
        """A new empty folder beside `path`.

        Raises:
            OSError: none can be made there.
        """
        name = os.fsdecode(os.fsencode(path.name)[:LONGEST_PREFIX])
        for number in count():
            made = path.parent / f".{name}.{os.getpid()}.{number}.tmp"
            with suppress(FileExistsError):
                # Noted before it is there: a signal may come at any moment.
                if made in self._folders or made.exists():
                    continue
                self._folders.append(made)
                made.mkdir(mode=0o700)
                return made
        raise AssertionError("numbers do not end")

    def move(self, made: Path, path: Path) -> None:
        """Lets `made`, a file in one of the folders, become `path` at the end.

        Raises:
            OutputError: another file is to become `path`.
        """
        if any(path == target for _, target in self._moves):
            raise OutputError(f"two results would be written to {path}; name another for one")
        self._moves.append((made, path))

    def place(self, path: Path) -> Path:
        """A temporary name for the file that is to become `path`, or what `path` links to.

        Raises:
            OSError: nothing can be written there.
            OutputError: another file is to become `path`, or it is part of the input.
        """
        path = real(path)
        if path in self._inputs:
            raise OutputError(f"{path} is part of the input; name another file to write to")
        made = self.folder(path) / path.name
        self.move(made, path)
        return made

    def made(self, path: Path) -> Path:
        """The file that is to become `path`.

        Raises:
            KeyError: none is.
        """
        return {target: made for made, target in self._moves}[real(path)]

    def discard(self, path: Path) -> None:
        """Lets `path` go once everything is in place, unless something was put there."""
        self._unneeded.append(path)

    def commit(self) -> None:
        """Puts every file in its place, with the mode of the file that was there or of a new one.

        Raises:
            OutputError: one cannot be put there; all others are then as they were.
        """
        target = Path()
        try:
            for made, target in self._moves:
                self._replace(made, target)
        except BaseException as error:
            for replaced, old in reversed(self._undo):
                with suppress(OSError):
                    replaced.unlink() if old is None else os.replace(old, replaced)
            if isinstance(error, OSError):
                raise OutputError(_unwritable(target, error)) from error
            raise
        for path in self._unneeded:
            if all(path != target for _, target in self._moves):
                with suppress(OSError):
                    path.unlink()

    def _replace(self, made: Path, target: Path) -> None:
        old = None
        if target.exists():
            made.chmod(stat.S_IMODE(target.stat().st_mode))
            old = made.with_name(f"{made.name}.old")
            _link(target, old)
        else:
            made.chmod(_mode_of_a_new_file(made.parent))
        self._undo.append((target, old))
        os.replace(made, target)

    def clear(self) -> None:
        """Removes the folders and what is left in them."""
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def appearing() -> Iterator[Outputs]:
    """Files that appear at the end, if nothing goes wrong.

    Raises:
        OutputError: one of them cannot be put in its place.
    """
    outputs = Outputs()
    try:
        yield outputs
        outputs.commit()
    finally:
        outputs.clear()


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turns failures of the file system into one line.

    Raises:
        OutputError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(_unwritable(path, error)) from error


def real(path: Path) -> Path:
    """The file itself, whatever links lead to it; it need not exist."""
    return Path(os.path.realpath(path))


def _unwritable(path: Path, error: OSError) -> str:
    return f"cannot write {path}: {error.strerror or error}; choose another output"


def _mode_of_a_new_file(folder: Path) -> int:
    """What the umask leaves; `onnx` writes external data for its owner alone."""
    with tempfile.TemporaryDirectory(dir=folder) as within:
        probe = Path(within) / "probe"
        probe.touch()
        return stat.S_IMODE(probe.stat().st_mode)


def _link(target: Path, name: Path) -> None:
    """A second name for a file, or a copy where the file system knows no such."""
    try:
        os.link(target, name)
    except OSError:
        shutil.copy2(target, name)
