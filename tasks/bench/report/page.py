"""The report as one page: nothing is fetched, what came with data is escaped, and it reads without scripts."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tasks.bench.plain import visible
from tasks.bench.report.captions import Captioned
from tasks.bench.report.details import CELLS, RECORDS, Behind
from tasks.bench.report.drawings import BINS, Gates
from tasks.bench.report.found import Found
from tasks.bench.report.sheet import Sheet

HERE = Path(__file__).parent


class Section(NamedTuple):
    """One table with all that belongs to it; drawings are SVG, and empty where there are none."""

    sheet: Sheet
    published: Sheet | None
    pareto: str = ""
    curves: str = ""
    gates: Sequence[Gates] = ()
    captions: Sequence[Captioned] = ()


class Overview(NamedTuple):
    """What is said over several tables, with a drawing and what others published, where there are any."""

    sheet: Sheet
    drawing: str
    published: Sheet | None


@dataclass(frozen=True)
class Page:
    """All that the page shows.

    Attributes:
        suite: its name.
        counts: sentences about how many cells there are, and of which state.
        overviews: over several tables.
        sections: one a table.
        undrawn: how many tables have no drawings, for want of room.
        behind: what stands behind the numbers.
        unmeasured: cells without numbers, each with its sentence.
    """

    suite: str
    counts: Sequence[str]
    overviews: Sequence[Overview]
    sections: Sequence[Section]
    undrawn: int
    behind: Sequence[Behind]
    unmeasured: Sequence[Found]


def html(page: Page) -> str:
    """The whole file."""
    style, script = ((HERE / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"drawn": Markup, "visible": visible}
    environment.globals |= {"style": Markup(style), "script": Markup(script), "digest": _digest(script)}
    environment.globals["titles"] = [section.sheet.title for section in page.sections]
    environment.globals |= {"limits": _limits(page.behind)}
    return environment.get_template("page.html.j2").render(page=page)


def _digest(script: str) -> str:
    """By which the page's policy knows its one script, and refuses every other."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _limits(behind: Sequence[Behind]) -> Mapping[str, int]:
    return {"cells": CELLS, "records": RECORDS, "bins": BINS, "all": sum(len(each.cells) for each in behind)}
