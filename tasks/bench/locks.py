"""One process at a time: a lock of the system's (flock), gone when the process that holds it is, however that died.

It holds between the processes of one machine, and between machines that share a folder by NFS version 4 or by a cluster
file system mounted with flock. Where a file system knows no locks a warning says so, and nobody is kept out.
"""

import contextlib
import errno
import warnings
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

NONE_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What a file system says that knows no locks."""


@contextlib.contextmanager
def held(path: Path, wait: bool) -> Iterator[bool]:
    """Hold the lock that this file stands for; whether it is ours, which it always is after waiting.

    Raises:
        OSError: the file cannot be written.
    """
    lock = FileLock(path, timeout=-1 if wait else 0, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        yield False
        return
    except OSError as error:
        if error.errno not in NONE_HERE:
            raise
        warnings.warn(f"{path.parent} is on a file system without locks: two processes may do the same", stacklevel=3)
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # while it is held: who waits for it notices, and asks anew
        lock.release()


def is_held(path: Path) -> bool:
    """Whether some process holds it now; never of a file that cannot be written, because then nobody can."""
    if not path.exists():
        return False
    try:
        with held(path, wait=False) as free:
            return not free
    except OSError:
        return False
