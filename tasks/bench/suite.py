"""A suite is a grid in TOML: tasks x backbones x methods x seeds, and the settings that are not defaults.

    tier = "pocket"

    [[grid]]
    tasks = ["squad"]
    backbones = ["roberta"]
    methods = ["zero_init", "lora"]
    seeds = [0]
    settings = [{ method.layers = 2 }, { method.layers = 4 }]   # where a study varies one: cells for each

    [[set]]                             # for every cell
    steps = 500

    [[set]]
    when = { method = ["lora", "adapter"] }   # for some, by one value or a list of them; later tables win
    learning_rate = 3e-3

The file named after a tier also holds what a single cell of that tier gets, so both are the same cell.
"""

import functools
import itertools
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.bench import discover
from tasks.bench import task as tasks
from tasks.bench.config import Choice, Run, resolve, settle
from tasks.bench.errors import InputError
from tasks.bench.settings import merged

AXES = {"tasks": "task", "datasets": "dataset", "backbones": "backbone", "methods": "method", "seeds": "seed"}
"""The lists of a grid, and what each chooses."""
VARIED = "settings"
"""One more list of a grid: tables of settings, each of which makes cells of its own."""
MOST = 100_000
"""Cells of a suite: a short file can ask for more than anybody will ever compute."""


@dataclass(frozen=True)
class Suite:
    """A suite file, read and checked."""

    name: str
    tier: str
    grids: Sequence[Mapping[str, Sequence[Any]]]
    sets: Sequence[Mapping[str, Any]]

    def cells(self, given: Mapping[str, Any] | None = None) -> Iterator[tuple[Choice, dict[str, Any]]]:
        """The cells of the grids, in order, with what `settings` say of each; `given` are flags for all of them."""
        for grid in self.grids:
            axes = {AXES[key]: values for key, values in grid.items() if key != VARIED}
            for values in itertools.product(*axes.values()):
                choice = replace(Choice(**dict(zip(axes, values, strict=True)), tier=self.tier), **(given or {}))
                for each in grid.get(VARIED, [{}]):
                    yield choice, _dotted(each)

    def settings(self, choice: Choice) -> dict[str, Any]:
        """What this suite sets for a cell."""
        found: dict[str, Any] = {}
        for each in self.sets:
            if all(getattr(choice, key) in _listed(value) for key, value in each.get("when", {}).items()):
                found = merged([found, _dotted({key: value for key, value in each.items() if key != "when"})])
        return found


def read(name: str) -> Suite:
    """The suite of a name, or of a path to a TOML file.

    Raises:
        InputError: there is none, or a key in it is not known.
    """
    path = Path(name) if name.endswith(".toml") else discover.ROOT / "suites" / f"{name}.toml"
    if not path.is_file():
        raise InputError(
            f"there is no suite {name!r}: choose one of {', '.join(discover.names('suite'))} or a .toml file"
        )
    return _parsed(path, path.stat().st_mtime_ns)


@functools.cache
def _parsed(path: Path, _modified: int) -> Suite:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        repr(document)  # numbers of more digits than can be shown are none of TOML's
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: this is not TOML ({error}); correct it") from None
    _known(document, ("tier", "grid", "set"), str(path))
    suite = Suite(
        path.stem,
        document.get("tier", "mini"),
        _tables(document, "grid", path),
        _tables(document, "set", path),
    )
    for grid in suite.grids:
        _known(grid, (*AXES, VARIED), f"{path}: [[grid]]")
        if missing := [key for key in ("tasks", "backbones", "methods") if key not in grid]:
            raise InputError(f"{path}: [[grid]] does not say {missing[0]}; add it")
        if not all(isinstance(values, list) and values for values in grid.values()):
            raise InputError(f"{path}: [[grid]] takes lists, each with at least one entry; correct it")
        for key in AXES:
            _check_entries(path, key, grid.get(key, ()))
        if not all(isinstance(each, dict) for each in grid.get(VARIED, ())):
            raise InputError(f"{path}: settings of a [[grid]] is a list of tables, as [{{ method.length = 4 }}]")
    _check_size(path, suite.grids)
    if not isinstance(suite.tier, str):
        raise InputError(f"{path}: tier is {suite.tier!r}; give a string")
    for each in suite.sets:
        when = each.get("when", {})
        if not isinstance(when, dict):
            raise InputError(f'{path}: [[set]] when is no table; write for example when = {{ method = "lora" }}')
        _known(when, AXES.values(), f"{path}: [[set]] when")
    return suite


def _check_size(path: Path, grids: Iterable[Mapping[str, Sequence[Any]]]) -> None:
    if (count := sum(math.prod(map(len, grid.values())) for grid in grids)) > MOST:
        raise InputError(f"{path}: its grids make {count:,} cells, where {MOST:,} are allowed; divide it")


def _check_entries(path: Path, key: str, values: Iterable[Any]) -> None:
    kind, wanted = (int, "whole numbers") if key == "seeds" else (str, "strings")
    if odd := [value for value in values if type(value) is not kind]:  # true is no number
        raise InputError(f"{path}: {key} of a [[grid]] holds {odd[0]!r}; give {wanted} alone")


def single(choice: Choice, settings: Mapping[str, Any]) -> Run:
    """One cell, with the defaults of its tier."""
    choice = settle(choice)
    _meet(choice.task, choice.backbone)
    return resolve(choice, of_tier(choice), settings)


def of_tier(choice: Choice) -> dict[str, Any]:
    """What the suite named after a tier sets for a cell."""
    suite = suite_of(choice.tier)
    return suite.settings(choice) if suite is not None else {}


@functools.cache
def suite_of(tier: str) -> Suite | None:
    """The suite named after a tier; None where there is none."""
    return read(tier) if tier in discover.names("suite") else None


def plan(
    suite: Suite, given: Mapping[str, Any], settings: Mapping[str, Any], only: Mapping[str, Any] | None = None
) -> list[Run]:
    """The runs of a suite, all checked before any of them begins; flags and settings hold for all of them.

    `only` keeps the cells that have these values, as {"task": "squad"}. Where the folder `data` holds one of a task's
    name, that is the task's.

    Raises:
        InputError: a cell that cannot be, or none that is wanted.
    """
    _known(only or {}, AXES.values(), "--only")
    runs: dict[str, Run] = {}
    alike: dict[tuple[Choice, str], Run] = {}
    for choice, varied in suite.cells(given):
        choice = settle(_with_own_data(choice))
        if any(getattr(choice, key) != value for key, value in (only or {}).items()):
            continue
        _meet(choice.task, choice.backbone)
        own = _for_method(settings, choice.method)
        layers = (of_tier(choice), suite.settings(choice), varied, own)
        key = (replace(choice, seed=0), repr(layers))
        if key not in alike:
            alike[key] = resolve(choice, *layers)
        run = alike[key].seeded(choice.seed)
        runs.setdefault(run.cell, run)
    if not runs:
        raise InputError(f"{suite.name} has no cell with {only}: see `python -m tasks plan {suite.name}`")
    _check_budgets(suite, runs.values())
    return list(runs.values())


def _with_own_data(choice: Choice) -> Choice:
    own = choice.data and choice.data / choice.task
    return replace(choice, data=own) if own and own.is_dir() else choice


def _check_budgets(suite: Suite, runs: Iterable[Run]) -> None:
    """Refuse a comparison in which one method tries more learning rates than another."""
    tried: dict[tuple[str, ...], dict[int, str]] = {}
    for run in runs:
        if run.trains:
            what = tried.setdefault((run.choice.task, run.dataset, run.choice.backbone), {})
            what.setdefault(max(1, len(set(run.training.rates))), run.choice.method)
    for (task, dataset, _), counts in tried.items():
        if len(counts) > 1:
            (few, one), *_, (many, other) = sorted(counts.items())
            raise InputError(
                f"{suite.name}: on {task} {dataset}, {other} chooses from {many} learning rates and {one} from {few}: "
                "give each method the same number"
            )


@functools.cache
def _meet(task: str, backbone: str) -> None:
    """A task and a backbone meet in an output.

    Raises:
        InputError: they do not.
    """
    wanted, built = tasks.get(task).output, discover.outputs(backbone)
    if wanted not in built:
        raise InputError(
            f"--backbone {backbone} gives {', '.join(built)}, but {task} asks for {wanted}: choose another"
        )


def _for_method(settings: Mapping[str, Any], method: str) -> dict[str, Any]:
    """`lora.rank=4` is for LoRA's cells alone; any other key is for all."""
    methods = _methods()
    found = {}
    for key, value in settings.items():
        owner, dot, field = key.partition(".")
        if dot and owner in methods:
            found |= {f"method.{field}": value} if owner == method else {}
        else:
            found[key] = value
    return found


def _methods() -> list[str]:
    from zeroinit import methods

    return methods.names()


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _dotted(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`method.length = 8` is a table in TOML, and one key here."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _tables(document: Mapping[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    found = document.get(key, [])
    if not isinstance(found, list) or not all(isinstance(table, dict) for table in found):
        raise InputError(f"{path}: {key} is no list of tables; write [[{key}]]")
    return found


def _known(table: Mapping[str, Any], keys: Any, place: str) -> None:
    if unknown := [key for key in table if key not in keys]:
        raise InputError(f"{place} has no key {unknown[0]!r}: the known ones are {', '.join(keys)}")
