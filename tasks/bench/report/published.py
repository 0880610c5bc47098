"""Numbers of others beside ours: with their source and known defects, and what keeps them from being compared."""

import csv
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.bench.config import GENERATED
from tasks.bench.errors import InputError
from tasks.bench.report.compared import headed
from tasks.bench.report.sheet import Column, Figure, Sheet, number, word
from tasks.bench.report.tables import Table

FILE = Path(__file__).parents[3] / "results/published.csv"
"""It comes with a clone, not with an installed package."""

NOTE = "Numbers of others as they were printed, never averaged with ours."
COLUMNS = ("task", "dataset", "metric", "value", "method", "source", "weights", "normalisation", "selection", "note")
SAID = ("method", "weights", "normalisation", "selection", "source", "note")


@dataclass(frozen=True)
class Published:
    """One method's numbers of one data set, from one source.

    Attributes:
        row: what the file says of them: method, source, weights, normalisation, selection, note.
        values: by metric.
    """

    row: Mapping[str, str]
    values: Mapping[str, float]


class Numbers:
    """All of them, by task and data set, in the file's order."""

    def __init__(self, rows: Mapping[tuple[str, str], Sequence[Published]]) -> None:
        self.rows = rows

    def beside(self, table: Table) -> Sheet | None:
        """What others published on a table's data set; None where there is nothing."""
        rows = self.rows.get((table.shared["task"], table.shared["dataset"]), ())
        return _sheet(table, rows) if rows else None

    def over(self, tables: Sequence[Table]) -> Sheet | None:
        """What others published over a task's data sets, as means of groups; None where there is nothing."""
        task, name = tables[0].task, tables[0].shared["task"]
        names = [each for each in task.summary({}) if (name, each) in self.rows]
        found: dict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
        for each in names:
            for one in self.rows[name, each]:
                for value in one.values.values():
                    found[tuple(one.row[key] for key in SAID)][each] = value
        return _over(tables, names, found) if found else None


def read(path: Path = FILE) -> Numbers:
    """The file; nothing where it is not there.

    Raises:
        InputError: it is no table of published numbers, or a line of it has no number.
    """
    if not path.is_file():
        return Numbers({})
    groups: dict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
    said: dict[tuple[str, ...], dict[str, str]] = {}
    for number_, row in enumerate(_rows(path), 2):
        name = (row["task"], row["dataset"], row["method"], row["source"], row["selection"])
        said.setdefault(name, row)
        groups[name][row["metric"]] = _finite(row["value"], f"{path}, line {number_}")
    found: dict[tuple[str, str], list[Published]] = defaultdict(list)
    for name, values in groups.items():
        found[name[0], name[1]].append(Published(said[name], values))
    return Numbers(found)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """The lines by column, each with as many values as there are columns."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if missing := [column for column in COLUMNS if column not in (reader.fieldnames or ())]:
                raise InputError(f"{path} has no column {missing[0]!r}; give {', '.join(COLUMNS)}")
            for row in reader:
                if None in row or None in row.values():
                    raise InputError(f"{path}, line {reader.line_num}: give as many values as there are columns")
                yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}); give a CSV file in UTF-8") from None


def _finite(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{place}: {text!r} is no number; correct it")
    return value


def _sheet(table: Table, rows: Sequence[Published]) -> Sheet:
    """Each with what differs from ours."""
    metrics = _metrics(table, rows)
    columns = [Column("published", words=True)]
    columns += [Column(headed(table, metric) if metric in table.metrics else metric) for metric in metrics]
    columns += [Column("differs from ours in", words=True), Column("selection", words=True)]
    columns += [Column("source", words=True), Column("known defects", words=True)]
    lines = []
    for each in sorted(rows, key=lambda each: _place(table, metrics, each)):
        figures = [word(each.row["method"])]
        figures += [_value(each.values.get(metric)) for metric in metrics]
        words = (unlike(table, each), each.row["selection"], each.row["source"], each.row["note"])
        lines.append([*figures, *map(word, words)])
    title = f"Published, {table.name}"
    return Sheet(f"published-{table.key}", title, "", columns, lines, [NOTE])


def _over(tables: Sequence[Table], names: Sequence[str], rows: Mapping[tuple[str, ...], Mapping[str, float]]) -> Sheet:
    columns = [Column("published", words=True), *(Column(each) for each in names)]
    columns += [Column(key.replace("note", "known defects"), words=True) for key in SAID[1:]]
    lines = [
        [word(said[0]), *(_value(values.get(each)) for each in names), *map(word, said[1:])]
        for said, values in sorted(rows.items(), key=lambda item: -item[1].get(names[-1], 0.0))
    ]
    title = f"Published, {tables[0].shared['task']} over its data sets"
    return Sheet(f"published-over-{tables[0].key}", title, "", columns, lines, [NOTE])


def _metrics(table: Table, rows: Sequence[Published]) -> list[str]:
    """Our headline ones first, then whatever else is told."""
    told = list(dict.fromkeys(metric for each in rows for metric in each.values))
    headline = [metric for metric in table.task.headline[table.shared["dataset"]] if metric in told]
    return headline + [metric for metric in told if metric not in headline]


def _place(table: Table, metrics: Sequence[str], each: Published) -> tuple[bool, float, str]:
    value = each.values.get(metrics[0])
    return (value is None, 0.0 if value is None else -table.better(metrics[0])(value), each.row["method"])


def _value(value: float | None) -> Figure:
    return number(value, "" if value is None else f"{value:.4f}".rstrip("0").rstrip("."))


def unlike(table: Table, each: Published) -> str:
    """Why a published number may not be compared with ours; empty where nothing is known to differ."""
    first = table.cells[0]
    host = f"{first.facts['checkpoint']} {first.config['checkpoint'] or ''}".casefold()
    found = []
    weights, normalisation = each.row["weights"], each.row["normalisation"]
    if weights.casefold() not in host or not weights:
        found.append(f"weights ({weights or 'not told'})")
    ours = first.setting("task", "normalisation")
    if ours is not None and normalisation != ours:
        found.append(f"normalisation ({normalisation or 'not told'})")
    if table.partial:
        found.append("examples (ours is a part)")
    elif table.shared["tier"] == GENERATED:
        found.append("examples (ours are generated)")
    return ", ".join(found)
