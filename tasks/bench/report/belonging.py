"""Which cells of a store are a suite's: those on its axes, as it plans them or, if none is, as they were run."""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tasks.bench import task as tasks
from tasks.bench.config import Choice, Training, settle
from tasks.bench.digests import named
from tasks.bench.report.found import Found
from tasks.bench.settings import merged
from tasks.bench.suite import Suite, of_tier, suite_of

Key = tuple[Any, ...]
"""Tier, task, data set, backbone, method and seed."""
Wanted = Mapping[tuple[str, str], Any]
"""Settings, by group and name."""


class Belonging(NamedTuple):
    """The cells of a suite, how many that it plans are not there, and cells on its axes that are not its own."""

    cells: Sequence[Found]
    missing: int
    others: int


def of(suite: Suite, cells: Iterable[Found]) -> Belonging:
    """Sort out a store.

    A run of the suite with `--set` makes cells that it does not plan. They are its own as long as the same axes have no
    planned ones; what a study or a single command left beside planned cells is another's.
    """
    plans = _plans(suite)
    there: dict[Key, list[Found]] = defaultdict(list)
    for cell in cells:
        if (key := _key(cell)) in plans:
            there[key].append(cell)
    chosen: list[Found] = []
    missing = 0
    for key, wanted in plans.items():
        own = [cell for cell in there[key] if cell.config["adapter"] is None and cell.config["checkpoint"] is None]
        planned = [cell for cell in own if any(_fits(cell, plan) for plan in wanted)]
        chosen += planned or own
        if planned or not own:
            missing += sum(1 for plan in wanted if not any(_fits(cell, plan) for cell in planned))
    return Belonging(sorted(chosen, key=lambda cell: cell.name), missing, sum(map(len, there.values())) - len(chosen))


def _key(cell: Found) -> Key:
    return tuple(cell.config[axis] for axis in ("tier", "task", "dataset", "backbone", "method", "seed"))


def _plans(suite: Suite) -> dict[Key, list[Wanted]]:
    """What the suite wants of the cells on each of its axes."""
    plans: dict[Key, list[Wanted]] = defaultdict(list)
    known: dict[tuple[Any, ...], tuple[Key, Wanted]] = {}
    told = [suite, suite_of(suite.tier)]
    seeded = any("seed" in each.get("when", {}) for known_suite in told if known_suite for each in known_suite.sets)
    for choice, varied in suite.cells():
        axes = (choice.task, choice.dataset, choice.backbone, choice.method, seeded and choice.seed)
        alike = (*axes, json.dumps(varied, sort_keys=True))
        if alike not in known:  # most suites want the same of every seed
            known[alike] = _plan(suite, choice, varied)
        key, wanted = known[alike]
        if wanted not in plans[*key, choice.seed]:  # two grids may want the same cell
            plans[*key, choice.seed].append(wanted)
    return plans


def _plan(suite: Suite, choice: Choice, varied: Mapping[str, Any]) -> tuple[Key, Wanted]:
    """A choice's axes but for the seed, and what is wanted of it."""
    choice = settle(choice)
    method = named(choice.method) if choice.method.endswith(".py") else choice.method
    key = (choice.tier, choice.task, choice.dataset, choice.backbone, method)
    return key, _wanted(choice, merged([of_tier(choice), suite.settings(choice), varied]))


def _wanted(choice: Choice, settings: Mapping[str, Any]) -> Wanted:
    """What is set, and the defaults of training and of the task; those of a method are behind seconds of imports."""
    kinds = {"training": Training, "task": tasks.get(choice.task).fields}
    wanted = {(group, f.name): f.default for group, kind in kinds.items() for f in dataclasses.fields(kind)}
    for key, value in sorted(settings.items(), key=lambda item: "." in item[0]):
        group, dot, name = key.partition(".")
        if not dot:
            group, name = next((known for known in wanted if known[1] == key), ("method", key))
        wanted[group, name] = value
    if wanted["training", "grid"] == "declared":
        del wanted["training", "grid"]
    return dict(zip(wanted, json.loads(json.dumps(list(wanted.values()))), strict=True))  # as from a file


def _fits(cell: Found, wanted: Wanted) -> bool:
    settings = cell.config["settings"]
    return all(settings[group].get(name) == value for (group, name), value in wanted.items() if settings[group])
