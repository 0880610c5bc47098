"""Methods over several tables: their mean ranks, their means with intervals, and how near they come to full tuning."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
    labels, where = _complete([table for table in tables if len(table.fingerprints) == 1 and table.first])
    if len(labels) < 2 or len(where) < 2:
        return None
    from tasks.bench.ranks import cliques, critical_difference, friedman, mean_ranks  # takes a second, and few need it

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
        sorted({line.label for table in tables for line in table.rivals} - set(labels)),
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
    return [line.label for line in table.rivals if _value(table, line.label) is not None]


def _line(table: Table, label: str) -> Line | None:
    return next((line for line in table.lines if line.label == label), None)


def _value(table: Table, label: str) -> float | None:
    line = _line(table, label)
    return line.mean(table.first) if line and table.first else None


def _turned(table: Table, label: str) -> float:
    """A value that is there, so that more is better."""
    return table.better(table.first or "")(_value(table, label) or 0.0)


def sheet(ranking: Ranking, known: Mapping[Table, Mapping[str, Examples]]) -> Sheet:
    """Ranks; and over the tables where more is better, means with intervals, beside the frozen and the full model."""
    summed = [table for table in ranking.tables if table.first not in table.task.lower]
    means = {label: _mean(label, summed, known) for label in ranking.labels}
    shown = any(means.values())
    beside = [name for name in (FROZEN, FULL) if any(_beside(label, name, summed) for label in ranking.labels)]
    columns = [Column("method", words=True), Column("mean rank ↓", "1 is the best of every table")]
    columns += [Column("mean ↑", "of the tables' first metrics"), Column("95% interval")] if shown else []
    columns += [Column(f"above {name}", f"mean of the differences to {name}") for name in beside]
    lines = []
    for label, rank in zip(ranking.labels, ranking.ranks, strict=True):
        figures = [word(label), number(rank, f"{rank:.2f}"), *(_interval(means[label]) if shown else [])]
        lines.append([*figures, *(_signed(_beside(label, name, summed)) for name in beside)])
    return Sheet(
        "overall", "Over all tables", "", columns, lines, [*_notes(ranking), *_summed_note(summed, beside, shown)]
    )


def _interval(mean: Interval | None) -> list[Figure]:
    if mean is None:
        return [Figure(), Figure()]
    ends = "" if mean.low is None else f"{mean.low:.1f} to {mean.high:.1f}"
    return [number(mean.mean, f"{mean.mean:.1f}"), number(mean.low, ends)]


def _signed(value: float | None) -> Figure:
    return number(value, "" if value is None else f"{value:+.1f}")


def _mean(label: str, tables: Sequence[Table], known: Mapping[Table, Mapping[str, Examples]]) -> Interval | None:
    """Over tables whose first metric is a mean over examples; None where one is not, or there is one table alone."""
    scores, weights = [], []
    for table in tables:
        found, line = known.get(table, {}).get(table.first or ""), _line(table, label)
        if found is None or line is None or line not in found.scores:
            return None
        scores.append(found.scores[line])
        weights.append(found.weights)
    return suite_interval(scores, weights) if len(scores) > 1 else None


def _beside(label: str, other: str, tables: Sequence[Table]) -> float | None:
    """How far above another method, in the mean over tables; None where one of them lacks it, or it is itself."""
    values = [(_value(table, label), _value(table, other)) for table in tables]
    pairs = [(one, reference) for one, reference in values if one is not None and reference is not None]
    if label == other or not pairs or len(pairs) < len(values):
        return None
    return statistics.fmean(one - reference for one, reference in pairs)


def _notes(ranking: Ranking) -> list[str]:
    names = ", ".join(f"{table.name} ({table.first})" for table in ranking.tables)
    apart = f"{ranking.difference:.2f}"
    notes = [
        f"Ranks in {len(ranking.tables)} tables by the first metric: {names}.",
        f"Two methods differ if their ranks lie {apart} or more apart (Nemenyi's test, 5%)"
        + (f"; all alike: p = {ranking.p:.3f} (Friedman's test)." if ranking.p is not None else "."),
    ]
    return [*notes, f"Not in all of these tables: {', '.join(ranking.left_out)}."] if ranking.left_out else notes


def _summed_note(tables: Sequence[Table], beside: Sequence[str], shown: bool) -> list[str]:
    if not beside and not shown:
        return []
    told = "; intervals over the examples and seeds of each" if shown else ""
    return [f"Means and differences over the {len(tables)} tables in which more is better{told}."]


class Summary(NamedTuple):
    """A task's own numbers over its data sets, and the tables that they are from."""

    sheet: Sheet
    tables: Sequence[Table]


def summaries(tables: Sequence[Table]) -> list[Summary]:
    """For tasks of many data sets, each method's numbers over all of them; parts of a set never enter."""
    groups: dict[tuple[str, ...], list[Table]] = {}
    for table in tables:
        if len(table.fingerprints) == 1 and table.first:
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
    if len(tables) == 1 or not any(
        task.summary(values)[name] is not None for values in rows.values() for name in names
    ):
        return None
    lines = []
    for label, values in rows.items():
        summary = task.summary(values)
        figures = [number(summary[name], f"{summary[name] or 0.0:.2f}") for name in names]
        count = number(len(values), f"{len(values)}/{len(set(task.datasets) - task.apart)}")
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
        if table.shared["dataset"] in table.task.apart:
            continue
        line = _line(table, label)
        value = _value(table, label)
        if line is not None and value is not None and not any(cell.partial for cell in line.cells):
            found[table.shared["dataset"]] = value
    return found
