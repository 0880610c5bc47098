"""What is compared: a table a task, data set and backbone; a line a method and setting; a cell a seed."""

import functools
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.bench import task as tasks
from tasks.bench.config import BASELINES
from tasks.bench.report.found import Found
from tasks.bench.stats import Spread, spread
from tasks.bench.task import Task


@dataclass(frozen=True, eq=False)
class Line:
    """A method with one setting, measured with some seeds.

    Attributes:
        label: the method's name, with what sets it apart from its other lines.
        cells: one a seed.
    """

    label: str
    cells: tuple[Found, ...]

    def spread(self, metric: str, split: str = "report") -> Spread | None:
        """A metric over the seeds that have it."""
        values = [value for cell in self.cells if (value := cell.value(metric, split)) is not None]
        return spread(values) if values else None

    def mean(self, metric: str, split: str = "report") -> float | None:
        """Its mean over seeds."""
        found = self.spread(metric, split)
        return found.mean if found else None

    def fact(self, name: str) -> Any:
        """A fact about the first seed's run."""
        return self.cells[0].facts.get(name)

    @property
    def fingerprint(self) -> str:
        """Of all its cells."""
        return self.cells[0].fingerprint

    @property
    def trains(self) -> bool:
        """Whether anything was learned."""
        return bool(self.fact("trainable_params"))

    @property
    def competes(self) -> bool:
        """Whether it is a model, and not what a table is read by."""
        return self.cells[0].config["method"] not in BASELINES

    @functools.cached_property
    def marks(self) -> tuple[str, ...]:
        """What a reader should know before believing its numbers."""
        cells = self.cells
        looks = {look for cell in cells for look in re.findall(r"[A-Z]+-SELECTED", str(cell.facts["selection"]))}
        found = {
            "one seed": len(cells) == 1,
            "partial": any(cell.partial for cell in cells),
            "stale": any(cell.state == "stale" for cell in cells),
            "changed code": any(cell.facts["dirty"] for cell in cells),
            **{look.lower(): True for look in sorted(looks)},
        }
        return tuple(mark for mark, there in found.items() if there)


@dataclass(frozen=True, eq=False)
class Table:
    """Lines that were measured on the same examples with the same host.

    Attributes:
        shared: `task`, `dataset`, `tier`, `backbone`, `device` and `shown` of all its cells.
        lines: the best first.
    """

    shared: Mapping[str, str]
    lines: tuple[Line, ...]

    @functools.cached_property
    def task(self) -> Task:
        """What is measured."""
        return tasks.get(self.shared["task"])

    @functools.cached_property
    def metrics(self) -> tuple[str, ...]:
        """The headline metrics that some line has; of two that say the same of all lines, the first."""
        found: dict[str, list[Spread | None]] = {}
        for metric in self.task.headline[self.shared["dataset"]]:
            told = [line.spread(metric) for line in self.lines]
            if any(told) and told not in found.values():
                found[metric] = told
        return tuple(found)

    @property
    def first(self) -> str | None:
        """The metric that methods are ordered by; None where none of the headline ones tells good from bad."""
        return next((metric for metric in self.metrics if metric not in self.task.neutral), None)

    @functools.cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """All there are: more than one is a mix."""
        return tuple(sorted({line.fingerprint for line in self.lines}))

    @functools.cached_property
    def rivals(self) -> tuple[Line, ...]:
        """The lines that are compared."""
        return tuple(line for line in self.lines if line.competes)

    @functools.cached_property
    def cells(self) -> tuple[Found, ...]:
        """All of them."""
        return tuple(cell for line in self.lines for cell in line.cells)

    @functools.cached_property
    def partial(self) -> bool:
        """Whether some of it was measured on less than the whole sets."""
        return any(cell.partial for cell in self.cells)

    @property
    def name(self) -> str:
        """What tells it from the other tables."""
        return " ".join(
            [self.shared["task"], self.shared["dataset"], *([f"({shown})"] if (shown := self.shared["shown"]) else [])]
        )

    @property
    def key(self) -> str:
        """A name for links, of letters that every format takes."""
        return re.sub(r"[^A-Za-z0-9]", "-", "-".join(part for part in self.shared.values() if part))

    @functools.cached_property
    def where(self) -> str:
        """The host it was measured with."""
        checkpoints = ", ".join(sorted({str(cell.facts["checkpoint"]) for cell in self.cells}))
        return f"{self.shared['tier']} · {self.shared['backbone']} ({checkpoints})"

    def better(self, metric: str) -> Callable[[float], float]:
        """A value turned so that more is better."""
        return (lambda value: -value) if metric in self.task.lower else (lambda value: value)

    def digits(self, metric: str) -> int:
        """Decimals to show."""
        return self.task.digits.get(metric, 1)


def build(cells: Iterable[Found]) -> list[Table]:
    """The tables of measured cells, in order of name."""
    groups: dict[tuple[tuple[str, str], ...], list[Found]] = defaultdict(list)
    for cell in cells:
        if cell.measured:
            groups[tuple(_shared(cell).items())].append(cell)
    return [_sorted(Table(dict(shared), _lines(group))) for shared, group in sorted(groups.items())]


def _shared(cell: Found) -> dict[str, str]:
    config = cell.config
    return {
        **{key: config[key] for key in ("task", "dataset", "tier", "backbone")},
        "device": config["device"],
        # A method that cannot be shown pictures answers another question than one that can.
        "shown": "the text alone" if cell.facts.get("blind") else "",
    }


def _lines(cells: Sequence[Found]) -> tuple[Line, ...]:
    """Cells that differ in their seed alone."""
    groups: dict[tuple[str, str, str, str], list[Found]] = defaultdict(list)
    for cell in cells:
        config = cell.config
        settings = json.dumps(config["settings"], sort_keys=True)
        groups[config["method"], settings, config["adapter"] or "", cell.fingerprint].append(cell)
    varied: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for method, settings, adapter, _ in groups:
        varied[method].append({**json.loads(settings), "saved": {"adapter": adapter}})
    lines = []
    for (method, settings, adapter, _), group in sorted(groups.items()):
        own = {**json.loads(settings), "saved": {"adapter": adapter}}
        seeds = sorted(group, key=lambda cell: (cell.config["seed"], cell.name))
        lines.append(Line(method + _difference(own, varied[method]), tuple(seeds)))
    return tuple(lines)


def _difference(own: Mapping[str, Any], rivals: Sequence[Mapping[str, Any]]) -> str:
    """What sets a line apart from the others of its method."""
    differing = [
        f"{key}={value}"
        for group in own
        for key, value in own[group].items()
        if any(rival[group].get(key) != value for rival in rivals)
    ]
    return f" ({', '.join(differing)})" if differing else ""


def _sorted(table: Table) -> Table:
    """The best by the first metric comes first; names decide where numbers do not."""
    first = table.first
    if first is None:
        return table
    turned = table.better(first)

    def place(line: Line) -> tuple[bool, float, str]:
        mean = line.mean(first)
        return (mean is None, 0.0 if mean is None else -turned(mean), line.label)

    return Table(table.shared, tuple(sorted(table.lines, key=place)))
