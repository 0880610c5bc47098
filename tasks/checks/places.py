"""There is room in the folders that runs write to, and they can be written."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tasks.bench import cache
from tasks.bench.doctor import Finding, Request

LEAST = 2**30
"""Bytes: a run of mini writes some MB, the weights of pocket some 700."""


def findings(request: Request) -> Iterator[Finding]:
    """Results and cache."""
    yield _folder("results", request.results, "--results")
    yield _folder("cache", cache.root(), "ZEROINIT_CACHE")


def _folder(name: str, folder: Path, how: str) -> Finding:
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Finding("wrong", name, f"{there} cannot be written ({error.strerror}): set {how} to another folder")
    free = shutil.disk_usage(there).free
    room = f"{free / 2**30:.1f} GB free at {folder}"
    if free < LEAST:
        return Finding("wrong", name, f"only {room}: make room, or set {how} to another folder")
    return Finding("ok", name, room)
