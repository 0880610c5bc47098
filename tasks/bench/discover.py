"""A file's name is its registration: tasks, backbones and suites are found by looking."""

import ast
import importlib
from pathlib import Path
from types import ModuleType

from tasks.bench.errors import InputError

ROOT = Path(__file__).parents[1]
PACKAGES = {"task": "tasks", "backbone": "tasks.backbones", "executor": "tasks.bench.executors"}


def names(kind: str) -> list[str]:
    """All there is of a kind (`task`, `backbone`, `executor`, `suite`), by the name a flag takes."""
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


def outputs(backbone: str) -> list[str]:
    """What a backbone can build: the keys that its file writes down in `OUTPUTS`, because importing it takes seconds.

    Raises:
        InputError: there is no such file.
    """
    if backbone not in names("backbone"):
        raise InputError(f"there is no backbone {backbone!r}: choose one of {', '.join(names('backbone'))}")
    source = ast.parse((ROOT / "backbones" / f"{backbone}.py").read_bytes())
    written = (node for node in source.body if isinstance(node, ast.Assign | ast.AnnAssign) and _names(node, "OUTPUTS"))
    keys = [
        ast.literal_eval(key) for node in written if isinstance(node.value, ast.Dict) for key in node.value.keys if key
    ]
    return keys or list(load("backbone", backbone).OUTPUTS)


def _names(node: ast.Assign | ast.AnnAssign, name: str) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)
