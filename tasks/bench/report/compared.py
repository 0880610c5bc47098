"""A table of ours as it is shown: means over seeds, what training fitted, what it cost, what to be careful about."""

import dataclasses
import statistics
import string
from collections.abc import Callable, Iterable, Mapping

from tasks.bench.report.compare import Verdict
from tasks.bench.report.notes import notes
from tasks.bench.report.sheet import Column, Figure, Sheet, number, word
from tasks.bench.report.tables import Line, Table
from tasks.bench.stats import Spread

FAULTS = {
    "extract_fail": Column("unread", "answers from which none could be read, in per cent"),
    "empty": Column("empty", "answers that are empty, in per cent"),
    "truncated": Column("truncated", "answers, or what was asked, that were cut at a limit, in per cent"),
}

Part = Callable[[Line], Figure]
"""What a line shows in one column."""


def sheet(table: Table, verdicts: Mapping[str, Verdict], links: Mapping[Line, str]) -> Sheet:
    """The table with its notes; `links` name the place that tells more about a line."""
    shown = [*_metrics(table, verdicts), *_splits(table), *_costs(table)]
    columns = [Column("method", words=True), *(column for column, _ in shown)]
    lines = []
    for line in table.lines:
        figures = [word(line.label), *(part(line) for _, part in shown)]
        lines.append([dataclasses.replace(figure, link=links.get(line, "")) for figure in figures])
    return Sheet(table.key, table.name, table.where, columns, lines, notes(table, verdicts))


def headed(table: Table, metric: str) -> str:
    """A metric with the direction that is better, if one is."""
    return metric if metric in table.task.neutral else f"{metric} {'↓' if metric in table.task.lower else '↑'}"


def shown(found: Spread, digits: int) -> str:
    """Mean ± standard deviation (number of seeds)."""
    deviation = "" if found.sd is None else f" ± {found.sd:.{digits}f}"
    return f"{found.mean:.{digits}f}{deviation} ({found.n})"


def seconds(line: Line) -> float | None:
    """Of training, the mean over seeds; None where nothing was trained."""
    taken = [float(cell.facts["train_seconds"]) for cell in line.cells]
    return statistics.fmean(taken) if line.trains else None


def _metrics(table: Table, verdicts: Mapping[str, Verdict]) -> Iterable[tuple[Column, Part]]:
    """The headline ones, the best of each strong; in a mix each number has the letter of its protocol."""

    def part(metric: str) -> Part:
        def figure(line: Line) -> Figure:
            found = line.spread(metric)
            text = shown(found, table.digits(metric)) if found else ""
            strong = len(table.lines) > 1 and line in verdicts[metric].held
            return number(found and found.mean, text, strong=strong, mark=_mark(table, line))

        return figure

    for metric in table.metrics:
        yield Column(headed(table, metric)), part(metric)


def _splits(table: Table) -> Iterable[tuple[Column, Part]]:
    """The last metric on other splits than that of the report, where there are any."""
    metric = table.metrics[-1] if table.metrics else ""

    def figure(line: Line, value: float | None, sign: str = "") -> Figure:
        text = "" if value is None else f"{value:{sign}.{table.digits(metric)}f}"
        return number(value, text, mark=_mark(table, line))

    def gap(line: Line) -> Figure:
        fit, report = line.mean(metric, "fit"), line.mean(metric)
        return figure(line, None if fit is None or report is None else fit - report, "+")

    if any(line.spread(metric, "fit") for line in table.lines):
        yield Column(f"fit {metric}", "on a sample of what was trained on"), lambda n: figure(n, n.mean(metric, "fit"))
        yield Column("gap", f"fit less report, of {metric}"), gap
    if any(line.spread(metric, "shift") for line in table.lines):
        yield Column(f"shift {metric}", "on examples of another kind"), lambda n: figure(n, n.mean(metric, "shift"))


def _costs(table: Table) -> Iterable[tuple[Column, Part]]:
    """What it took, what went wrong, and marks where lines differ in them."""
    yield Column("trainable", "parameters, + those of the task head"), _parameters
    yield Column("train s", "seconds of training, the mean over seeds"), _seconds
    yield Column("n", "examples of the report split, of how many if partial"), _counted
    for fault, column in FAULTS.items():
        if any(_share(line, fault) for line in table.lines):
            yield column, lambda line, fault=fault: _percent(_share(line, fault))
    if len({line.marks for line in table.lines}) > 1:
        yield Column("marks", "what to know before believing a number", words=True), lambda n: word("; ".join(n.marks))


def _parameters(line: Line) -> Figure:
    head = int(line.fact("head_params") or 0)
    planted = int(line.fact("trainable_params") or 0) - head
    return number(planted + head, f"{planted:,}" + (f" + {head:,}" if head else ""))


def _seconds(line: Line) -> Figure:
    value = seconds(line)
    return number(value, "" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}")


def _counted(line: Line) -> Figure:
    parts = [cell.splits["report"] for cell in line.cells]
    least = min(parts, key=lambda part: part["n"])
    short = any(part["n"] < part["n_expected"] for part in parts)
    return number(least["n"], f"{least['n']}/{least['n_expected']}" if short else str(least["n"]))


def _share(line: Line, fault: str) -> float | None:
    """Per cent of all answers; None where the task cannot tell."""
    parts = [cell.splits["report"] for cell in line.cells]
    told = [part for part in parts if part.get(fault) is not None]
    return 100 * sum(part[fault] for part in told) / sum(part["n"] for part in told) if told else None


def _percent(value: float | None) -> Figure:
    return number(value, "" if value is None else f"{value:.1f}")


def _mark(table: Table, line: Line) -> str:
    """A letter for each protocol, where a table has more than one."""
    several = len(table.fingerprints) > 1
    return string.ascii_lowercase[table.fingerprints.index(line.fingerprint) % 26] if several else ""
