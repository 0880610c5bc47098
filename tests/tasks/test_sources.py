"""Which code a number depends on: what a run really imports, and what a change of it means."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.bench import sources
from zeroinit import methods

CELL = """
import json, pathlib, sys

from tasks.bench import golden, sources
from tasks.bench.config import Choice
from tasks.bench.run import run
from tasks.bench.store import Store
from tasks.bench.suite import single

task, backbone, folder = sys.argv[1:]
golden.cases = lambda task: ()  # they bring modules in that only test numbers
config = single(Choice(task, backbone, "lora", limit=4, device="cpu"), {"steps": 1, "fit_sample": 2})
code = run(config, Store(pathlib.Path(folder))).result["code"]
print(json.dumps([[name for name in sys.modules if name.split(".")[0] in sources.OURS], list(code)]))
"""
"""One cell; what was imported for it, and what it says it depends on."""


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The source files once more, to be changed."""
    for top in sources.OURS:
        shutil.copytree(
            sources.ROOT / top, tmp_path / top, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors")
        )
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    monkeypatch.setattr(sources, "STARTED", float("inf"))
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    for cached in (sources.hash_of, sources._read, sources._reached, sources._file_of_others):
        cached.cache_clear()


def of(task: str = "squad", backbone: str = "roberta", method: str = "lora") -> dict[str, str]:
    return sources.of(task, backbone, methods.get(method)())


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    sources.hash_of.cache_clear()
    sources._read.cache_clear()


def test_comments_docstrings_and_layout_are_no_code(copy):
    before = of()
    path = copy / "tasks/bench/splits.py"
    path.write_text(
        "# By hash.\n\n" + path.read_text().replace('"""Splits that do not move', '"""Splits\nthat never move')
    )
    change(path, "def sample(", "def sample (")
    assert sources.changed(before) == []
    change(path, "[:size]", "[: size + 1]")
    assert sources.changed(before) == ["tasks.bench.splits"]


QUOTED = """\
def told(x: dict[str, int]) -> str:
    return f"{x['it']!r:>{9}} of {{" f'"{x.get("all") if x else None}"' "\\n"
"""


def test_every_python_gives_a_file_the_same_hash(copy):
    """As Python 3.11, 3.12, 3.13 and 3.14 gave it, the second of which unparses this in another way."""
    (copy / "tasks/bench/splits.py").write_text(QUOTED)
    assert sources.hash_of("tasks.bench.splits") == "a89eb4fe8ad0"


def test_a_number_depends_on_what_it_passes_through_alone(copy):
    squad, vtab = of(), of("vtab", "vit", "zero_init")
    change(copy / "tasks/vtab.py", "100.0 *", "99.0 *")
    assert (sources.changed(squad), sources.changed(vtab)) == ([], ["tasks.vtab"])
    change(copy / "zeroinit/methods/lora.py", "class Lora", "class  Lora\\\n")
    assert sources.changed(squad) == []
    change(copy / "zeroinit/methods/_peft.py", "import", "import os\nimport")
    assert (sources.changed(squad), sources.changed(vtab)) == (["zeroinit.methods._peft"], ["tasks.vtab"])
    (copy / "zeroinit/seams/timm.py").unlink()
    forget()
    assert "zeroinit.seams.timm" in sources.changed(vtab)


def test_what_keeps_and_shows_numbers_does_not_make_them():
    found = set(of())
    assert {"tasks.squad", "tasks.outputs.span", "tasks.metrics.squad_rules", "zeroinit.methods._peft"} < found
    keepers = (
        "store",
        "provenance",
        "progress",
        "board",
        "tables",
        "suite",
        "commandline",
        "verify",
        "executors.local",
    )
    assert not found & {f"tasks.bench.{name}" for name in keepers}
    assert "tasks.vtab" not in found


def test_what_changed_while_it_ran_is_known_by_no_hash(copy, monkeypatch):
    monkeypatch.setattr(sources, "STARTED", 1e9)
    for path in copy.rglob("*.py"):
        os.utime(path, (0, 0))
    before = of()
    assert sources.changed(before) == []
    os.utime(copy / "tasks/squad.py")
    during = of()
    assert {name for name in during if during[name] != before[name]} == {"tasks.squad"}
    assert sources.changed(during) == ["tasks.squad"]


def test_a_method_of_another_package_counts_and_a_file_is_in_the_name(tmp_path, monkeypatch):
    text = (
        '"""Nothing new."""\nfrom dataclasses import dataclass\nfrom zeroinit.methods.lora import Lora\n'
        "@dataclass(frozen=True)\nclass Mine(Lora):\n    pass\n"
    )
    (tmp_path / "mine_elsewhere.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    import mine_elsewhere

    found = sources.of("squad", "roberta", mine_elsewhere.Mine())
    assert {"mine_elsewhere", "zeroinit.methods.lora"} < set(found)
    by_file = methods.from_file(tmp_path / "mine_elsewhere.py")()
    assert set(sources.of("squad", "roberta", by_file)) == set(found) - {"mine_elsewhere"}


def test_what_a_foreign_cell_names_is_never_imported(tmp_path, monkeypatch):
    package = tmp_path / "of_a_stranger"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')\n")
    (package / "inner.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    named = ["of_a_stranger.inner", "of_a_stranger.none", "nowhere.at_all", f"tasks.{package}/inner", "", "x" * 999]
    assert sources.changed(dict.fromkeys(named, "")) == named
    assert [sources.hash_of(name) != "" for name in named] == [True] + [False] * 5
    assert "of_a_stranger" not in sys.modules


@pytest.mark.slow
@pytest.mark.parametrize(("task", "backbone"), [("squad", "roberta"), ("vtab", "vit"), ("instruct", "llama")])
def test_no_module_that_a_run_imports_is_left_out(task, backbone, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CELL, task, backbone, tmp_path], capture_output=True, text=True, check=True
    )
    imported, recorded = json.loads(done.stdout.splitlines()[-1])
    packages = {"tasks", "tasks.bench", "tasks.backbones", "tasks.metrics", "tasks.mini", "tasks.outputs"}
    # What keeps numbers, and what the plan of a cell passes through: its settings are in the cell's name.
    kept = sources.KEEPERS | {f"tasks.bench.{name}" for name in ("suite", "sources", "rows", "locks")}
    assert set(imported) - set(recorded) - packages - kept == set()
