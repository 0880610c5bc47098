"""A file's name is its registration: tasks, backbones and suites are found by looking."""

import importlib
from pathlib import Path
from types import ModuleType

from tasks.bench.errors import InputError

ROOT = Path(__file__).parents[1]
PACKAGES = {"task": "tasks", "backbone": "tasks.backbones"}


def names(kind: str) -> list[str]:
    """All there is of a kind (`task`, `backbone`, `suite`), by the name a flag takes."""
    if kind == "suite":
        return sorted(path.stem for path in (ROOT / "suites").glob("*.toml"))
    folder = ROOT.parent.joinpath(*PACKAGES[kind].split("."))
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def load(kind: str, name: str) -> ModuleType:
    """The module of a name.

    Raises:
        InputError: there is no such file.
    """
    if name not in names(kind):
        raise InputError(f"there is no {kind} {name!r}: choose one of {', '.join(names(kind))}")
    return importlib.import_module(f"{PACKAGES[kind]}.{name}")
