"""What stands behind a number, for who clicks on it: the configuration and facts of its cells, and some records."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from tasks.bench.plain import visible
from tasks.bench.report.found import Found, some_records
from tasks.bench.report.tables import Line, Table
from tasks.bench.store import Store

CELLS = 200
"""Cells of which a page tells more than where they lie: the first seeds come first."""
RECORDS = 5
"""Records shown of a cell."""
LETTERS = 160
"""Letters shown of a value."""


class Told(NamedTuple):
    """One cell: its name and folder, its scores by split and metric, and some of its records."""

    cell: Found
    folder: str
    scores: Mapping[str, Mapping[str, str]]
    fields: Sequence[str]
    records: Sequence[Sequence[str]]


class Behind(NamedTuple):
    """One line: its place on the page, its configuration and facts, and its cells."""

    key: str
    title: str
    config: str
    cells: Sequence[Told]


def links(tables: Sequence[Table]) -> dict[Line, str]:
    """The place of each line's details on the page."""
    lines = [line for table in tables for line in table.lines]
    return {line: f"cells-{place}" for place, line in enumerate(lines)}


def behind(tables: Sequence[Table], store: Store) -> Iterator[Behind]:
    """All lines, with records of as many cells as there is room for."""
    places = links(tables)
    deep = _first([line for table in tables for line in table.lines])
    for table in tables:
        for line in table.lines:
            told = [_told(cell, store, deep=cell.name in deep) for cell in line.cells]
            first = line.cells[0]
            config = json.dumps({**first.config, "facts": first.facts}, indent=1, ensure_ascii=False)
            config = "\n".join(map(visible, config.split("\n")))
            yield Behind(places[line], f"{line.label} · {table.name} · {table.where}", config, told)


def _first(lines: Sequence[Line]) -> set[str]:
    """The first seed of every line, then the second, as far as there is room."""
    longest = max((len(line.cells) for line in lines), default=0)
    names = [line.cells[place].name for place in range(longest) for line in lines if place < len(line.cells)]
    return set(names[:CELLS])


def _told(cell: Found, store: Store, *, deep: bool) -> Told:
    scores = {
        split: {metric: f"{value:.6g}" for metric, (value, _) in part["scores"].items()}
        for split, part in cell.splits.items()
    }
    records = some_records(store, cell, RECORDS) if deep else []
    fields = list(dict.fromkeys(field for record in records for field in record))
    shown = [[_short(record.get(field)) for field in fields] for record in records]
    return Told(cell, f"cells/{quote(cell.name, safe='')}/", scores if deep else {}, fields, shown)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"
