"""Files that are there as a whole or not at all, also after a power cut; a disk that takes none is one sentence."""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from tasks.bench.errors import InputError

UNFINISHED = ".unfinished-"
"""How the name of what is being written begins, until it is renamed."""
ASIDE = "before"
"""Where in a folder of unfinished things lies what they are to replace."""
PROBE = 1 << 18
"""Bytes that a folder must take before anything long is begun for it."""


def write(path: Path, data: bytes, *, lasting: bool = True) -> None:
    """A file in one step: whoever reads it sees the old one or the new one; a lasting one outlives a power cut."""
    scratch = beside(path)
    try:
        with scratch.open("wb") as file:
            file.write(data)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    if lasting:
        flush(path.parent)


def beside(path: Path) -> Path:
    """A name in the same folder that nobody else uses, to write to first."""
    return path.with_name(f"{UNFINISHED}{secrets.token_hex(8)}-{path.name}")


def settle(folder: Path) -> None:
    """All that is in a folder reaches the disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            with Path(place, name).open("rb") as file:
                os.fsync(file.fileno())
        flush(Path(place))


def flush(folder: Path) -> None:
    """The names in a folder reach the disk, where the system can be asked for that."""
    if os.name != "nt":
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def replace(target: Path, new: Path, scratch: Path) -> None:
    """Move a folder to its place; what is there goes aside, and comes back if the new one does not arrive.

    Raises:
        OSError: it did not.
    """
    aside = scratch / ASIDE / target.name
    aside.parent.mkdir()
    try:
        if target.exists():
            target.rename(aside)
        new.rename(target)
    except BaseException:
        _bring_back(aside, target)
        raise


def _bring_back(aside: Path, target: Path) -> None:
    if aside.exists() and not target.exists():
        aside.rename(target)


def sweep(folder: Path, home: Path, age: float = 3600) -> None:
    """Remove what killed processes were writing, and bring home what they had set aside; a live one takes seconds."""
    for left in folder.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > age:
                for aside in left.glob(f"{ASIDE}/*"):
                    _bring_back(aside, home / aside.name)
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def probe(root: Path) -> None:
    """Find out now what would else be found out when there is something to keep.

    Raises:
        InputError: the folder does not take a file.
    """
    with told(root):
        root.mkdir(parents=True, exist_ok=True)
        path = beside(root / "probe")
        write(path, bytes(PROBE))
        path.unlink()


@contextlib.contextmanager
def told(root: Path) -> Iterator[None]:
    """Say in one sentence what a disk refuses.

    Raises:
        InputError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        if root.exists() and not root.is_dir():
            raise InputError(f"{root} is a file, where a folder for results belongs: give another --results") from error
        raise InputError(
            f"{root} cannot be written ({error.strerror or error}): make room there, or give another --results"
        ) from error
