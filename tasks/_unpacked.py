"""A tar of pictures beside the file that names them, unpacked once into the cache."""

import lzma
import tarfile
import zlib
from pathlib import Path

from tasks.bench import cache
from tasks.bench.digests import digest
from tasks.bench.errors import InputError


def unpacked(archive: Path) -> Path:
    """The folder with an archive's content.

    Raises:
        InputError: it is no whole tar file, or the cache cannot be written.
    """
    target = cache.root() / f"{archive.stem}-{digest(archive)[:12]}"
    if not target.is_dir():
        with cache.whole(target) as whole:
            whole.mkdir()  # an archive may hold nothing
            try:
                with tarfile.open(archive) as tar:
                    tar.extractall(whole, filter="data")
            except (
                tarfile.TarError,
                zlib.error,
                lzma.LZMAError,
                EOFError,
                OSError,
                LookupError,
                RuntimeError,
                ValueError,
            ) as error:
                reason = str(error).splitlines()[0].rstrip(":")
                raise InputError(f"{archive}: this cannot be unpacked ({reason}); give it whole, or unpacked") from None
    return target
