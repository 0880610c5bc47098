"""Methods over several tables: their mean ranks, their means with intervals, and how near they come to full tuning."""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tasks.bench.ranks import cliques, critical_difference, friedman, mean_ranks
from tasks.bench.report.compare import Examples
from tasks.bench.report.sheet import Column, Figure, Sheet, number, word
from tasks.bench.report.tables import Line, Table
from tasks.bench.stats import Interval, suite_interval

FROZEN, FULL = "frozen", "full"
"""The methods that others are measured against."""


@dataclass(frozen=True)
class Ranking:
    """Methods that stand in the same tables, by their first headline metric in each.

    Attributes:
        labels: the best mean rank first.
        ranks: their mean ranks.
        difference: how far two must lie apart to differ.
        groups: places of methods that do not.
        p: of all methods being alike; None for two.
        tables: where they meet.
        left_out: methods that are not in all of these.
    """

    labels: Sequence[str]
    ranks: Sequence[float]
    difference: float
    groups: Sequence[tuple[int, ...]]
    p: float | None
    tables: Sequence[Table]
    left_out: Sequence[str]


def rank(tables: Sequence[Table]) -> Ranking | None:
    """The largest comparison that is complete; None where no two methods meet in two tables."""
    labels, where = _complete([table for table in tables if len(table.fingerprints) == 1 and table.metrics])
    if len(labels) < 2 or len(where) < 2:
        return None
    scores = [[_turned(table, label) for label in labels] for table in where]
    ranks = mean_ranks(scores)
    order = sorted(range(len(labels)), key=lambda place: (ranks[place], labels[place]))
    ordered = [ranks[place] for place in order]
    distance = critical_difference(len(labels), len(where))
    return Ranking(
        [labels[place] for place in order],
        ordered,
        distance,
        cliques(ordered, distance),
        friedman(scores).p if len(labels) > 2 else None,
        where,
        sorted({line.label for table in tables for line in table.lines} - set(labels)),
    )


def _complete(tables: Sequence[Table]) -> tuple[list[str], list[Table]]:
    """Methods and tables that have all of them: of what any two tables share, the most comparisons with another."""
    here = [(table, frozenset(_measured(table))) for table in tables]
    candidates = {one & other for _, one in here for _, other in here}

    def meets(labels: frozenset[str]) -> list[Table]:
        return [table for table, there in here if labels <= there]

    best = max(candidates, key=lambda c: ((len(c) - 1) * len(meets(c)), len(c), sorted(c)), default=frozenset())
    return sorted(best), meets(best)


def _measured(table: Table) -> list[str]:
    return [line.label for line in table.lines if line.mean(table.metrics[0]) is not None]


def _line(table: Table, label: str) -> Line | None:
    return next((line for line in table.lines if line.label == label), None)


def _value(table: Table, label: str) -> float | None:
    line = _line(table, label)
    return line.mean(table.metrics[0]) if line and table.metrics else None


def _turned(table: Table, label: str) -> float:
    return table.better(table.metrics[0])(_value(table, label) or 0.0)


def sheet(ranking: Ranking, known: Mapping[Table, Mapping[str, Examples]]) -> Sheet:
    """Ranks, means and what they are worth beside the frozen and the fully tuned model."""
    summed = [table for table in ranking.tables if table.metrics[0] not in table.task.lower]
    means = {label: _mean(label, summed, known) for label in ranking.labels}
    columns = [Column("method", words=True), Column("mean rank ↓", "1 is the best of every table")]
    columns += [Column("mean", "of the tables' first metrics"), Column("95% interval")] if any(means.values()) else []
    beside = {name: {label: _ratio(label, name, ranking.tables) for label in ranking.labels} for name in (FROZEN, FULL)}
    beside = {name: ratios for name, ratios in beside.items() if any(value is not None for value in ratios.values())}
    columns += [Column(f"of {name} %", f"geometric mean of the ratios to {name}") for name in beside]
    lines: list[list[Figure]] = []
    for label, rank in zip(ranking.labels, ranking.ranks, strict=True):
        figures = [word(label), number(rank, f"{rank:.2f}")]
        if mean := means[label]:
            figures += [number(mean.mean, f"{mean.mean:.1f}"), number(mean.low, f"{mean.low:.1f} to {mean.high:.1f}")]
        figures += [number(v[label], "" if v[label] is None else f"{100 * v[label]:.1f}") for v in beside.values()]
        lines.append(figures)
    return Sheet("overall", "Over all tables", "", columns, lines, [*_notes(ranking), *_means_note(summed, means)])


def _mean(label: str, tables: Sequence[Table], known: Mapping[Table, Mapping[str, Examples]]) -> Interval | None:
    """Over tables whose first metric is a mean over examples; None where one is not, or there is one table alone."""
    scores = []
    for table in tables:
        found, line = known.get(table, {}).get(table.metrics[0]), _line(table, label)
        if found is None or line not in found.scores or (found.weights != found.weights[0]).any():
            return None
        scores.append(found.scores[line])
    return suite_interval(scores) if len(scores) > 1 else None


def _ratio(label: str, other: str, tables: Iterable[Table]) -> float | None:
    """How much better than another method, as a ratio; where less is better, turned around."""
    logs = []
    for table in tables:
        one, reference = _value(table, label), _value(table, other)
        if not one or not reference or one < 0 or reference < 0:
            continue
        ratio = math.log(one / reference)
        logs.append(-ratio if table.metrics[0] in table.task.lower else ratio)
    return math.exp(statistics.fmean(logs)) if logs else None


def _notes(ranking: Ranking) -> list[str]:
    names = ", ".join(f"{table.name} ({table.metrics[0]})" for table in ranking.tables)
    apart = f"{ranking.difference:.2f}"
    notes = [
        f"Ranks in {len(ranking.tables)} tables by the first metric: {names}.",
        f"Two methods differ if their ranks lie {apart} or more apart (Nemenyi's test, 5%)"
        + (f"; all alike: p = {ranking.p:.3f} (Friedman's test)." if ranking.p is not None else "."),
    ]
    return [*notes, f"Not in all of these tables: {', '.join(ranking.left_out)}."] if ranking.left_out else notes


def _means_note(tables: Sequence[Table], means: Mapping[str, Interval | None]) -> list[str]:
    if not any(means.values()):
        return []
    return [f"Means over {len(tables)} tables in which more is better; intervals over examples and seeds of each task."]


class Summary(NamedTuple):
    """A task's own numbers over its data sets, and the tables that they are from."""

    sheet: Sheet
    tables: Sequence[Table]


def summaries(tables: Sequence[Table]) -> list[Summary]:
    """For tasks of many data sets, each method's numbers over all of them; parts of a set never enter."""
    groups: dict[tuple[str, ...], list[Table]] = {}
    for table in tables:
        if len(table.fingerprints) == 1 and table.metrics:
            groups.setdefault(_rules(table), []).append(table)
    found = [_summary(group) for _, group in sorted(groups.items())]
    return [summary for summary in found if summary is not None]


def _rules(table: Table) -> tuple[str, ...]:
    """What tables have in common that are summed up over data sets."""
    shared = [value for name, value in table.shared.items() if name != "dataset"]
    first = table.cells[0]
    looks = {str("SELECTED" in cell.facts["selection"]) for cell in table.cells}
    settings = json.dumps(first.config["settings"]["task"], sort_keys=True)
    return (*shared, str(first.facts["weights_sha256"]), settings, *sorted(looks))


def _summary(tables: Sequence[Table]) -> Summary | None:
    """None where there is one data set, or the task has no summary."""
    task, shared = tables[0].task, tables[0].shared
    labels = sorted({line.label for table in tables for line in table.lines})
    rows = {label: _whole(label, tables) for label in labels}
    names = list(task.summary(next(iter(rows.values()), {})))
    if len(tables) == 1 or not names:
        return None
    lines = []
    for label, values in rows.items():
        summary = task.summary(values)
        figures = [number(summary[name], f"{summary[name] or 0.0:.2f}") for name in names]
        count = number(len(values), f"{len(values)}/{len(task.datasets)}")
        lines.append([word(label), *figures, count])
    columns = [Column("method", words=True), *(Column(name) for name in names), Column("sets")]
    title = f"{shared['task']}, over its data sets"
    selections = sorted({str(cell.facts["selection"]) for table in tables for cell in table.cells})
    key = f"over-{tables[0].key}"
    return Summary(Sheet(key, title, tables[0].where, columns, lines, [f"{'; '.join(selections)}."]), tables)


def _whole(label: str, tables: Sequence[Table]) -> dict[str, float]:
    """The first headline metric of each data set that was reported whole and chosen on no report split."""
    found = {}
    for table in tables:
        line = _line(table, label)
        value = _value(table, label)
        if line is not None and value is not None and not any(cell.partial for cell in line.cells):
            found[table.shared["dataset"]] = value
    return found
