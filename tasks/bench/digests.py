"""Files and folders known by their content, wherever they lie."""

import functools
import hashlib
from pathlib import Path

from tasks.bench.errors import InputError


def named(what: str | None) -> str | None:
    """A file or folder by its name and content; anything else as it is."""
    if what is None or not Path(what).exists():
        return what
    path = Path(what).resolve()
    return f"{path.name}#{digest(path)[:16]}"


def digest(path: Path) -> str:
    """The sha256 of a file, or of a folder's files in order of name.

    Raises:
        InputError: a file cannot be read.
    """
    if path.is_dir():
        parts = "".join(f"{p.name}:{digest(p)}\n" for p in sorted(path.iterdir()) if p.is_file())
        return hashlib.sha256(parts.encode()).hexdigest()
    status = path.stat()
    return _file_digest(path, status.st_mtime_ns, status.st_size)


@functools.cache
def _file_digest(path: Path, _modified: int, _size: int) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: it cannot be read ({error.strerror}); give a readable file") from None
