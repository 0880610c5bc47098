"""The page of a report, put together from what was gathered."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.bench.report import details, drawings, plots
from tasks.bench.report.captions import captions
from tasks.bench.report.gathered import Gathered
from tasks.bench.report.page import Overview, Page, Section
from tasks.bench.report.published import Numbers

DRAWN = 8
"""Tables that have drawings; those of one take half a second."""
MANY = 2000
"""Cells of which reading alone takes seconds: only the first table is drawn then."""

Looks = Mapping[str, plots.Look]
"""How each method is drawn."""


def page(
    suite: str, found: Gathered, counts: Sequence[str], numbers: Numbers, *, pictures: bool, folder: Path | None
) -> Page:
    """Everything that the page shows; `pictures` lets those of the generated world in, a `folder` those in it."""
    looks = plots.looks(sorted({line.label for table in found.tables for line in table.lines}))
    sections = [Section(found.compared[table], numbers.beside(table)) for table in found.tables]
    drawn = DRAWN if sum(len(table.cells) for table in found.tables) < MANY else 1
    for place, table in enumerate(found.tables[:drawn]):
        sections[place] = sections[place]._replace(
            pareto=drawings.pareto(table, looks, found.links),
            curves=drawings.curves(table, found.store, looks),
            gates=drawings.gates(table, found.store),
            captions=captions(table, found.store, folder) if pictures else [],
        )
    undrawn = max(0, len(found.tables) - drawn)
    behind = list(details.behind(found.tables, found.store))
    return Page(suite, counts, _overviews(found, numbers, looks), sections, undrawn, behind, found.unmeasured)


def _overviews(found: Gathered, numbers: Numbers, looks: Looks) -> list[Overview]:
    overviews = [Overview(each.sheet, "", numbers.over(each.tables)) for each in found.summaries]
    if found.ranking is None or found.ranked is None:
        return overviews
    drawn = plots.critical(found.ranking, looks, "Mean ranks of methods over all tables, with the critical difference")
    return [Overview(found.ranked, drawn, None), *overviews]
