"""A table of ours as it is shown: means over seeds, what training fitted, what it cost, and what to be careful about."""

import statistics
import string
from collections.abc import Callable, Iterable, Mapping, Sequence

from tasks.bench.report.compare import ALPHA, MCNEMAR, Verdict
from tasks.bench.report.mixing import differences
from tasks.bench.report.sheet import Column, Figure, Sheet, number, word
from tasks.bench.report.tables import Line, Table
from tasks.bench.stats import Spread

FAULTS = {
    "extract_fail": Column("unread", "answers from which none could be read, in per cent"),
    "empty": Column("empty", "answers that are empty, in per cent"),
    "truncated": Column("truncated", "answers, or what was asked, that were cut at a limit, in per cent"),
}


def sheet(table: Table, verdicts: Mapping[str, Verdict], links: Mapping[Line, str]) -> Sheet:
    """The table with its notes; `links` name the place that tells more about a line."""
    columns, parts = [Column("method", words=True)], [_methods]
    for metric in table.metrics:
        columns.append(Column(f"{metric} {'↓' if metric in table.task.lower else '↑'}"))
        parts.append(_metric(metric, verdicts))
    for column, part in _beside(table):
        columns.append(column)
        parts.append(part)
    lines = [[part(table, line, links.get(line, "")) for part in parts] for line in table.lines]
    return Sheet(table.key, table.name, table.where, columns, lines, _notes(table, verdicts))


Part = Callable[[Table, Line, str], Figure]


def _methods(table: Table, line: Line, link: str) -> Figure:
    return word(line.label, link)


def _metric(metric: str, verdicts: Mapping[str, Verdict]) -> Part:
    def part(table: Table, line: Line, link: str) -> Figure:
        found = line.spread(metric)
        text = shown(found, table.digits(metric)) if found else ""
        strong = len(table.lines) > 1 and line in verdicts[metric].held
        return number(found and found.mean, text, strong=strong, mark=protocol_mark(table, line), link=link)

    return part


def _beside(table: Table) -> Iterable[tuple[Column, Part]]:
    """The columns next to the metrics; those that would be empty are left out."""
    last = table.metrics[-1] if table.metrics else ""
    if any(line.spread(last, "fit") for line in table.lines):
        yield Column(f"fit {last}", "on a sample of what was trained on"), _split("fit", last)
        yield Column("gap", f"fit less report, of {last}"), _gap(last)
    if any(line.spread(last, "shift") for line in table.lines):
        yield Column(f"shift {last}", "on examples of another kind"), _split("shift", last)
    yield Column("trainable", "parameters, + those of the task head"), _parameters
    yield Column("train s", "seconds of training, the mean over seeds"), _seconds
    yield Column("n", "examples of the report split, of how many if partial"), _counted
    for fault, column in FAULTS.items():
        if any(_share(line, fault) for line in table.lines):
            yield column, _fault(fault)
    if len({line.marks for line in table.lines}) > 1:
        yield Column("marks", "what to know before believing a number", words=True), _marks


def _split(split: str, metric: str) -> Part:
    def part(table: Table, line: Line, link: str) -> Figure:
        value = line.mean(metric, split)
        text = "" if value is None else f"{value:.{table.digits(metric)}f}"
        return number(value, text, mark=protocol_mark(table, line), link=link)

    return part


def _gap(metric: str) -> Part:
    def part(table: Table, line: Line, link: str) -> Figure:
        fit, report = line.mean(metric, "fit"), line.mean(metric)
        gap = None if fit is None or report is None else fit - report
        text = "" if gap is None else f"{gap:+.{table.digits(metric)}f}"
        return number(gap, text, mark=protocol_mark(table, line), link=link)

    return part


def _parameters(table: Table, line: Line, link: str) -> Figure:
    head = int(line.fact("head_params") or 0)
    planted = int(line.fact("trainable_params") or 0) - head
    return number(planted + head, f"{planted:,}" + (f" + {head:,}" if head else ""), link=link)


def _seconds(table: Table, line: Line, link: str) -> Figure:
    value = seconds(line)
    return number(value, "" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}", link=link)


def seconds(line: Line) -> float | None:
    """Of training, the mean over seeds; None where nothing was trained."""
    taken = [float(cell.facts["train_seconds"]) for cell in line.cells]
    return statistics.fmean(taken) if line.trains else None


def _counted(table: Table, line: Line, link: str) -> Figure:
    parts = [cell.splits["report"] for cell in line.cells]
    least = min(parts, key=lambda part: part["n"])
    short = any(part["n"] < part["n_expected"] for part in parts)
    return number(least["n"], f"{least['n']}/{least['n_expected']}" if short else str(least["n"]), link=link)


def _share(line: Line, fault: str) -> float | None:
    """Per cent of all answers; None where the task cannot tell."""
    parts = [cell.splits["report"] for cell in line.cells]
    told = [part for part in parts if part.get(fault) is not None]
    return 100 * sum(part[fault] for part in told) / sum(part["n"] for part in told) if told else None


def _fault(fault: str) -> Part:
    def part(table: Table, line: Line, link: str) -> Figure:
        share = _share(line, fault)
        return number(share, "" if share is None else f"{share:.1f}", link=link)

    return part


def _marks(table: Table, line: Line, link: str) -> Figure:
    return word("; ".join(line.marks), link)


def shown(found: Spread, digits: int) -> str:
    """Mean ± standard deviation (number of seeds)."""
    spread = "" if found.sd is None else f" ± {found.sd:.{digits}f}"
    return f"{found.mean:.{digits}f}{spread} ({found.n})"


def protocol_mark(table: Table, line: Line) -> str:
    """A letter for each protocol, where a table has more than one."""
    several = len(table.fingerprints) > 1
    return string.ascii_lowercase[table.fingerprints.index(line.fingerprint) % 26] if several else ""


def _notes(table: Table, verdicts: Mapping[str, Verdict]) -> list[str]:
    """What must be known to read the table."""
    notes = [_protocols(table), *_mixed(table)]
    if any(len(line.cells) > 1 for line in table.lines):
        notes.append("Mean ± standard deviation (seeds).")
    notes += _tests(table, verdicts)
    common = {line.marks for line in table.lines}
    if len(common) == 1 and (marks := next(iter(common))):
        notes.append(f"Every line: {'; '.join(marks)}.")
    devices = sorted({str(cell.facts["device"]) for cell in table.cells})
    if len(devices) > 1:
        notes.append(f"Measured on {', '.join(devices)}: seconds are not comparable.")
    shared = set.intersection(*(set(cell.notes) for cell in table.cells))
    return [*notes, *(f"{note[:1].upper()}{note[1:]}." for note in sorted(shared))]


def _protocols(table: Table) -> str:
    names = sorted({str(cell.facts["protocol"]) for cell in table.cells})
    selections = sorted({str(cell.facts["selection"]) for cell in table.cells})
    devices = sorted({str(cell.facts["device"]) for cell in table.cells})
    return f"Protocol {'; '.join(names)}, {'; '.join(selections)}; {', '.join(devices)}; {', '.join(table.fingerprints)}."


def _mixed(table: Table) -> list[str]:
    if len(table.fingerprints) == 1:
        return []
    letters = ", ".join(f"{string.ascii_lowercase[n % 26]} = {name}" for n, name in enumerate(table.fingerprints))
    return [f"MIXED PROTOCOLS, no test was made: {letters}. They differ in {differences(table)}."]


def _tests(table: Table, verdicts: Mapping[str, Verdict]) -> list[str]:
    """How bold came about, and what the examples could not have shown."""
    if len(table.lines) == 1 or len(table.fingerprints) > 1:
        return _detectable(table, verdicts)
    tested: dict[str, list[str]] = {}
    for metric, verdict in verdicts.items():
        tested.setdefault(verdict.test, []).append(metric)
    alone = tested.pop("", [])
    notes = []
    if tested:
        told = "; ".join(f"{test} on {', '.join(metrics)}" for test, metrics in sorted(tested.items()))
        notes.append(
            f"Bold: the best, and what is not significantly worse ({told}; Holm over the table, {100 * ALPHA:.0f}%)."
        )
    if alone:
        notes.append(f"No paired test of {', '.join(alone)}, which is no mean over the same examples: bold is the best.")
    return notes + _detectable(table, verdicts)


def _detectable(table: Table, verdicts: Mapping[str, Verdict]) -> list[str]:
    known = {metric: verdict for metric, verdict in verdicts.items() if verdict.detectable is not None}
    if not known:
        return []
    counts = sorted({verdict.examples for verdict in known.values()})
    least = [f"{verdict.detectable:.{table.digits(metric)}f} in {metric}" for metric, verdict in known.items()]
    return [
        f"Smallest difference that {' or '.join(map(str, counts))} examples show with 80% power: {', '.join(least)}."
    ]
