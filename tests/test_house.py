"""The rules of the house: which way imports point, what importing costs, what no room is called."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "zeroinit").rglob("*.py"), *(ROOT / "tasks").rglob("*.py")])


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_has_an_idea_and_a_place(path):
    text = path.read_text()
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "the first line of a file is its idea"
    assert not {"utils", "common", "helpers", "misc"} & set(path.relative_to(ROOT).with_suffix("").parts)
    top = path.relative_to(ROOT).parts
    imported = _imports(path)
    if top[0] == "zeroinit":
        assert not {name for name in imported if name.split(".")[0] == "tasks"}
    if top[:2] == ("tasks", "bench"):
        assert not {name for name in imported if name in {f"tasks.{p.stem}" for p in (ROOT / "tasks").glob("[!_]*.py")}}


def test_importing_the_library_imports_no_model_library():
    code = "import sys, zeroinit; print([m for m in ('timm', 'transformers', 'peft') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
