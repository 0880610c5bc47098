"""What stands below a table: its protocol, how bold came about, and what the examples could not have shown."""

import string
from collections.abc import Mapping

from tasks.bench.report.compare import ALPHA, Verdict
from tasks.bench.report.mixing import differences
from tasks.bench.report.tables import Table


def notes(table: Table, verdicts: Mapping[str, Verdict]) -> list[str]:
    """What must be known to read the table."""
    several = any(len(line.cells) > 1 for line in table.lines)
    return [
        _protocols(table),
        *_mixed(table),
        *(["Mean ± standard deviation (seeds)."] if several else []),
        *_tests(table, verdicts),
        *_detectable(table, verdicts),
        *_cautions(table),
    ]


def _told(table: Table, fact: str) -> list[str]:
    return sorted({str(cell.facts[fact]) for cell in table.cells})


def _protocols(table: Table) -> str:
    protocol, selection, device = ("; ".join(_told(table, fact)) for fact in ("protocol", "selection", "device"))
    return f"Protocol {protocol}, {selection}; {device}; {', '.join(table.fingerprints)}."


def _mixed(table: Table) -> list[str]:
    if len(table.fingerprints) == 1:
        return []
    letters = ", ".join(f"{string.ascii_lowercase[n % 26]} = {name}" for n, name in enumerate(table.fingerprints))
    return [f"MIXED PROTOCOLS, no test was made: {letters}. They differ in {differences(table)}."]


def _tests(table: Table, verdicts: Mapping[str, Verdict]) -> list[str]:
    """How bold came about."""
    if len(table.lines) == 1 or len(table.fingerprints) > 1:
        return []
    tested: dict[str, list[str]] = {}
    for metric, verdict in verdicts.items():
        if verdict.held and (verdict.test or not verdict.examples):  # where all are best, nothing was to be tested
            tested.setdefault(verdict.test, []).append(metric)
    alone = tested.pop("", [])
    told = "; ".join(f"{test} on {', '.join(metrics)}" for test, metrics in sorted(tested.items()))
    share = f"{100 * ALPHA:.0f}%"
    return [
        *(
            [f"Bold: the best, and what is not significantly worse ({told}; Holm over the table, {share})."]
            if told
            else []
        ),
        *(
            [f"{', '.join(alone)}: not a mean over the same examples, so no paired test; bold is the best."]
            if alone
            else []
        ),
    ]


def _detectable(table: Table, verdicts: Mapping[str, Verdict]) -> list[str]:
    known = {metric: verdict for metric, verdict in verdicts.items() if verdict.detectable is not None}
    if not known:
        return []
    counts = " or ".join(map(str, sorted({verdict.examples for verdict in known.values()})))
    least = [f"{verdict.detectable:.{table.digits(metric)}f} in {metric}" for metric, verdict in known.items()]
    return [f"Smallest difference that {counts} examples show with 80% power: {', '.join(least)}."]


def _cautions(table: Table) -> list[str]:
    """Marks that every line has, machines that differ, and what all cells say of their data."""
    marks = {line.marks for line in table.lines}
    every = [f"Every line: {'; '.join(mark)}." for mark in marks if mark and len(marks) == 1]
    devices = _told(table, "device")
    mixed = [f"Measured on {', '.join(devices)}: seconds are not comparable."] if len(devices) > 1 else []
    shared = set.intersection(*(set(cell.notes) for cell in table.cells))
    return [*every, *mixed, *(f"{note[:1].upper()}{note[1:]}." for note in sorted(shared))]
