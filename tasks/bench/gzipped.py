"""Gzipped bytes, of which a small file can ask for all memory there is."""

import gzip
import io

LIMIT = 2**30
"""Bytes that a file may unpack to."""


def unpacked(packed: bytes) -> bytes:
    """What they hold.

    Raises:
        OSError: they are not gzipped.
        EOFError: they are not whole.
        zlib.error: they are damaged.
        ValueError: they hold more than any file may.
    """
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
        found = file.read(LIMIT + 1)
    if len(found) > LIMIT:
        raise ValueError(f"this unpacks to more than {LIMIT >> 20} MiB")
    return found
