"""Comparison tables from the rows of one store: a row a method; other measurements stand apart."""

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.bench import task as tasks
from tasks.bench.store import Row

SHARED = ("task", "dataset", "tier", "backbone", "checkpoint", "device", "fingerprint")
"""What cells of one table have in common."""
NUMBERLESS = ("failed", "cancelled")
"""What a cell ended as that has no numbers."""
SUMMED = ("task", "tier", "backbone", "checkpoint", "device", "weights_sha256", "selection")
"""What cells have in common that are summed up over data sets, the task's own settings beside."""


def tables(rows: Sequence[Row]) -> str:
    """Every table of the rows, in Markdown that reads well on a terminal."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row["status"] not in NUMBERLESS:
            groups[tuple(str(row[key]) for key in SHARED)].append(row)
    parts = [_table(dict(zip(SHARED, key, strict=True)), group) for key, group in sorted(groups.items())]
    parts += _summaries(rows)
    for status in NUMBERLESS:
        if names := sorted(row["cell"] for row in rows if row["status"] == status):
            parts.append(f"{status.capitalize()}, not in the tables: {', '.join(names)}")
    return "\n\n".join(parts) + "\n" if parts else "There is no finished cell yet.\n"


def _table(shared: dict[str, str], rows: Sequence[Row]) -> str:
    task = tasks.get(shared["task"])
    headline = task.headline[shared["dataset"]]
    metrics = [metric for metric in headline if _values(rows, metric)]
    last = metrics[-1]
    header = [
        "method",
        *(f"{metric} {'↓' if metric in task.lower else '↑'}" for metric in metrics),
        f"fit {last}",
        "gap",
    ]
    header += ["trainable", "train s", "n", "seeds"]
    entries = [(_line(label, group, metrics, task.digits), group) for label, group in _by_method(rows).items()]
    entries.sort(key=lambda entry: _mean(entry[1], metrics[0]), reverse=metrics[0] not in task.lower)
    host = f"{shared['tier']} · {shared['backbone']} ({shared['checkpoint']})"
    title = f"**{shared['task']} {shared['dataset']}** · {host}"
    selections = {row["selection"] for row in rows} - {"", "last step"}
    told = [shared["device"], *sorted({row["protocol"] for row in rows} - {""}), *sorted(selections)]
    notes = " · ".join([*told, f"protocol {shared['fingerprint']}"])
    if any(len(_values(group, last)) > 1 for _, group in entries):
        notes += " · ± is the standard deviation over seeds"
    return "\n".join([title, "", _markdown(header, [line for line, _ in entries]), "", notes])


def _summaries(rows: Sequence[Row]) -> list[str]:
    """For tasks of many data sets, each method's numbers over all of them; parts of a set never enter."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        headline = tasks.get(row["task"]).headline[row["dataset"]][0]
        if (row["status"], row["split"], row["metric"]) == ("done", "report", headline):
            rules = json.dumps(json.loads(row["settings"]).get("task"), sort_keys=True)
            groups[*(str(row[key]) for key in SUMMED), rules].append(row)
    found = [_summary(dict(zip(SUMMED, key, strict=False)), group) for key, group in sorted(groups.items())]
    return [table for table in found if table]


def _summary(shared: dict[str, str], rows: Sequence[Row]) -> str:
    """Empty where there is one data set, or the task has no summary."""
    summed = {label: _summed(shared["task"], group) for label, group in _by_method(rows).items()}
    names = list(next(iter(summed.values())))
    if len({row["dataset"] for row in rows}) == 1 or names == ["sets"]:
        return ""
    title = (
        f"**{shared['task']}, over its data sets** · {shared['tier']} · {shared['backbone']} ({shared['checkpoint']})"
    )
    table = _markdown(["method", *names], [[label, *values.values()] for label, values in sorted(summed.items())])
    return "\n".join([title, "", table, "", f"{shared['device']} · {shared['selection']}"])


def _summed(task: str, rows: Sequence[Row]) -> dict[str, str]:
    """The task's own summary of the means over seeds."""
    bench = tasks.get(task)
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        values[row["dataset"]].append(float(row["value"]))
    summary = bench.summary({dataset: statistics.mean(those) for dataset, those in values.items()})
    shown = {name: "" if value is None else f"{value:.2f}" for name, value in summary.items()}
    return shown | {"sets": f"{len(values)}/{len(bench.datasets)}"}


def _by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by method; where one was run with several settings, each with what sets it apart."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["method"], row["settings"]].append(row)
    named: dict[str, list[Row]] = {}
    for (method, settings), group in groups.items():
        rivals = [json.loads(other) for name, other in groups if name == method and other != settings]
        named[method + _difference(json.loads(settings), rivals)] = group
    return named


def _difference(settings: dict[str, Any], rivals: Sequence[dict[str, Any]]) -> str:
    differing = [
        f"{key}={value}"
        for group in settings
        for key, value in settings[group].items()
        if any(rival[group].get(key) != value for rival in rivals)
    ]
    return f" ({', '.join(differing)})" if differing else ""


def _line(label: str, rows: Sequence[Row], metrics: Sequence[str], digits: Mapping[str, int]) -> list[str]:
    report = next(row for row in rows if row["split"] == "report")
    partial = report["status"] == "partial"
    fit, gap = _values(rows, metrics[-1], "fit"), ""
    if fit:
        gap = f"{statistics.mean(fit) - _mean(rows, metrics[-1]):+.{digits.get(metrics[-1], 1)}f}"
    seconds = [float(row["train_seconds"]) for row in rows if row["split"] == "report"]
    return [
        label,
        *(_spread(_values(rows, metric), digits.get(metric, 1)) for metric in metrics),
        _spread(fit, digits.get(metrics[-1], 1)),
        gap,
        f"{int(report['trainable_params']):,}",
        f"{statistics.mean(seconds):.0f}",
        f"{report['n']}/{report['n_expected']}" if partial else str(report["n"]),
        str(len({row["seed"] for row in rows})),
    ]


def _values(rows: Sequence[Row], metric: str, split: str = "report") -> list[float]:
    return [float(row["value"]) for row in rows if row["metric"] == metric and row["split"] == split]


def _mean(rows: Sequence[Row], metric: str) -> float:
    return statistics.mean(_values(rows, metric))


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns: words to the left, numbers to the right."""
    widths = [max(len(line[column]) for line in [header, *lines]) for column in range(len(header))]

    def row(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if not column else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([row(header), row(rule), *(row(line) for line in lines)])
