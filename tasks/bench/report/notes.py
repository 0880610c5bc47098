"""What stands below a table: its protocol, how bold came about, and what the examples could not have shown."""

import string
from collections.abc import Mapping

from tasks.bench.report.compare import Verdict
from tasks.bench.report.mixing import differences
from tasks.bench.report.tables import Table
from tasks.bench.stats import LEVEL


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
    notes = []
    if alone := tested.pop("", []):
        notes.append(f"{', '.join(alone)}: not a mean over the same examples, so no paired test; bold is the best.")
    if tested:
        told = "; ".join(f"{test} on {', '.join(metrics)}" for test, metrics in sorted(tested.items()))
        holm = f"Holm over all pairs of the table, {100 * LEVEL:.0f}%"
        notes.insert(0, f"Bold: the best, and what is not significantly worse ({told}; {holm}).")
    return notes


def _detectable(table: Table, verdicts: Mapping[str, Verdict]) -> list[str]:
    known = {metric: verdict for metric, verdict in verdicts.items() if verdict.detectable is not None}
    if not known:
        return []
    counts = " or ".join(map(str, sorted({verdict.examples for verdict in known.values()})))
    least = [f"{_least(verdict, table.digits(metric))} in {metric}" for metric, verdict in known.items()]
    return [f"Smallest difference that {counts} examples show with 80% power: {', '.join(least)}."]


def _least(verdict: Verdict, digits: int) -> str:
    """A difference that is not nothing is not told as 0."""
    value, smallest = verdict.detectable or 0, 10.0**-digits
    return f"less than {smallest:.{digits}f}" if value < smallest else f"{value:.{digits}f}"


def _cautions(table: Table) -> list[str]:
    """Marks that every line has, machines that differ, and what all cells say of their data."""
    marks = {line.marks for line in table.lines}
    every = [f"Every line: {'; '.join(mark)}." for mark in marks if mark and len(marks) == 1]
    devices = _told(table, "device")
    mixed = [f"Measured on {', '.join(devices)}: seconds are not comparable."] if len(devices) > 1 else []
    shared = set.intersection(*(set(cell.notes) for cell in table.cells))
    return [*every, *mixed, *(f"{note[:1].upper()}{note[1:]}." for note in sorted(shared))]
