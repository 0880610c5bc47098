"""A few pictures with what each method said of them, inside the page: of the generated world, or asked for by name."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tasks.bench.report.found import some_records
from tasks.bench.report.tables import Table
from tasks.bench.store import Store

SHOWN = 8
"""Pictures of a table."""
LOOKED_AT = 200
"""Records among which they are looked for."""
SIDE = 256
"""Pixels of the longer side, at most."""


class Captioned(NamedTuple):
    """A picture as a data URI, and what was said of it by whom."""

    name: str
    picture: str
    said: Sequence[tuple[str, str]]


def captions(table: Table, store: Store, folder: Path | None) -> list[Captioned]:
    """The first pictures that every line has said something of; none where the task has none to show."""
    paths = table.task.pictures(table.cells[0].config, folder)
    if not paths:
        return []
    said = {
        line.label: {str(r["id"]): str(r.get("prediction", "")) for r in some_records(store, line.cells[0], LOOKED_AT)}
        for line in table.lines
    }
    names = [
        name for name in next(iter(said.values())) if name in paths and all(name in each for each in said.values())
    ]
    return [
        Captioned(name, _embedded(paths[name]), [(label, each[name]) for label, each in said.items()])
        for name in names[:SHOWN]
    ]


def _embedded(path: Path) -> str:
    """The picture itself, made small."""
    from tasks.bench.decode import any_colors

    picture = any_colors(path)
    picture.thumbnail((SIDE, SIDE))
    data = io.BytesIO()
    kind = "png" if max(picture.size) <= 64 else "jpeg"  # what is painted stays sharp
    picture.save(data, kind)
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
