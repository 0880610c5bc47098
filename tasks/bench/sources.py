"""Which of our source files a number depends on, and whether they still say what they said when it was made.

A file is known by a hash of its code alone: comments, docstrings and layout do not count. What a number depends on is
found by following imports from its task, its backbone and its method; what only keeps or shows numbers does not count.
"""

import ast
import contextlib
import functools
import hashlib
import importlib.util
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
OURS = ("tasks", "zeroinit")
ROOM = "tasks.bench.run"
"""Where every run passes."""
FOUND_BY_NAME = ("zeroinit/seams",)
"""Folders of files that are imported by a name known only at run time."""
KEEPERS = frozenset(
    f"tasks.bench.{name}"
    for name in ("store", "folder", "sources", "durable", "provenance", "progress", "errors", "golden")
)
"""They keep, show or test numbers, and make none."""
STARTED = time.time()
"""What changed after it was imported is not what ran."""


def of(task: str, backbone: str, method: object | None) -> dict[str, str]:
    """The files that a cell's numbers depend on: their modules, and a hash of what each said when it was imported."""
    roots = [ROOM, f"tasks.{task}", f"tasks.backbones.{backbone}", *_classes(type(method))]
    for folder in FOUND_BY_NAME:
        roots += [f"{folder.replace('/', '.')}.{path.stem}" for path in sorted((ROOT / folder).glob("[!_]*.py"))]
    return {name: "changed meanwhile" if _touched(name) else hash_of(name) for name in _reached(tuple(roots))}


def changed(recorded: Mapping[str, str]) -> list[str]:
    """The modules that no longer say what was recorded, and those that are nowhere."""
    return [name for name, said in recorded.items() if not said or hash_of(name) != said]


@functools.cache  # asked for each module of thousands of cells
def hash_of(module: str) -> str:
    """What a module said when this process asked first; empty where there is none."""
    return _read(module).said


class _Read(NamedTuple):
    said: str
    """A hash of the code."""
    imports: tuple[str, ...]
    """The modules of ours that it imports."""


@functools.cache
def _read(module: str) -> _Read:
    path = _file(module)
    if path is None:
        return _Read("", ())
    tree = _Bare().visit(ast.parse(path.read_bytes()))
    said = hashlib.sha256(json.dumps(_form(tree)).encode()).hexdigest()[:12]
    return _Read(said, tuple(found for found in _imported(tree.body, module) if found.split(".")[0] in OURS))


def _form(node: Any) -> Any:
    """A syntax tree in lists, the same in every version of Python.

    `ast.unparse` quotes f-strings differently from 3.12 on, and each version adds fields that older code leaves empty.
    """
    if isinstance(node, list):
        return [_form(each) for each in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    filled = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
    return [type(node).__name__, *([name, _form(value)] for name, value in filled)]


def _touched(module: str) -> bool:
    path = _file(module)
    return path is None or path.stat().st_mtime > STARTED


def _classes(method: type) -> list[str]:
    """The modules of a method's class and of those it extends; a file given by the user is part of the cell's name."""
    own = getattr(method, "source", None)
    return [kind.__module__ for kind in method.__mro__ if own is None or kind is not method]


def read_all() -> None:
    """Hash every file of ours now, and follow its imports: the processes that are forked from this one need not."""
    for top in OURS:
        for path in (ROOT / top).rglob("*.py"):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            _read(module)


class _Bare(ast.NodeTransformer):
    """Leave out strings that stand alone: docstrings."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node


@functools.cache
def _reached(roots: tuple[str, ...]) -> tuple[str, ...]:
    """These modules of ours and all that they import, anywhere in their code."""
    seen, waiting = set[str](), list(roots)
    while waiting:
        name = waiting.pop()
        if name not in seen and name not in KEEPERS and _file(name) is not None:
            seen.add(name)
            waiting += _read(name).imports
    return tuple(sorted(seen))


def _imported(nodes: Iterable[ast.AST], name: str) -> Iterator[str]:
    """What a module imports when others import it, be it late; not what is for type checkers."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.util.resolve_name("." * node.level + (node.module or ""), name.rpartition(".")[0])
            yield from (module, *(f"{module}.{alias.name}" for alias in node.names))
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")):
            yield from _imported(ast.iter_child_nodes(node), name)


def _file(module: str) -> Path | None:
    """A module's source; None where it is nowhere, or was given to a run as a file, which is part of its name."""
    top, *inner = module.split(".")
    if not all(name.isidentifier() for name in (top, *inner)):
        return None
    return _source(ROOT.joinpath(top, *inner)) if top in OURS else _file_of_others(module)


@functools.cache
def _file_of_others(module: str) -> Path | None:
    """Looked up without an import, because the cell that names it may be anybody's."""
    top, *inner = module.split(".")
    if top in sys.builtin_module_names or top in sys.stdlib_module_names:
        return None
    try:
        spec = importlib.util.find_spec(top)  # of a name without a dot, which imports nothing
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    if not inner:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    found = (_source(Path(folder, *inner)) for folder in spec.submodule_search_locations or ())
    return next((path for path in found if path is not None), None)


def _source(base: Path) -> Path | None:
    """The file of a module or of a package."""
    with contextlib.suppress(OSError):  # of a name that is too long for a file
        return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)
    return None
