"""What is fetched, converted or made once and kept: each folder is there as a whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tasks.bench import durable
from tasks.bench.errors import InputError


def root() -> Path:
    """Where it is kept: ZEROINIT_CACHE, else the user's cache folder."""
    if given := os.environ.get("ZEROINIT_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zeroinit"


def made(name: str, write: Callable[[Path], None]) -> Path:
    """The folder of this name; where it is not there yet, written first."""
    target = root() / name
    if not target.is_dir():
        with whole(target) as scratch:
            write(scratch)
    return target


@contextlib.contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A folder yet to be made, beside the target; it takes the target's place when all went well.

    Two processes may make the same at the same time: one of them wins, and both find it.

    Raises:
        InputError: the cache cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=target.parent)
    except OSError as error:
        raise _unwritable(target, error) from error
    with scratch as place:
        yield Path(place) / "whole"
        try:
            (Path(place) / "whole").replace(target)
        except OSError as error:
            if not target.is_dir():
                raise _unwritable(target, error) from error


def keep(path: Path, data: bytes) -> None:
    """A file in the cache, there as a whole or not at all; no power cut is feared: it is made again.

    Raises:
        InputError: the cache cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.write(path, data, lasting=False)
    except OSError as error:
        raise _unwritable(path.parent, error) from error


def _unwritable(place: Path, error: OSError) -> InputError:
    return InputError(
        f"{place} cannot be written ({error.strerror}): make room there, or set ZEROINIT_CACHE to another folder"
    )
