"""A table in Markdown that reads well on a terminal: columns aligned, at most so wide, strong numbers between stars."""

import re
import textwrap
from collections.abc import Iterable, Sequence

from tasks.bench.plain import visible
from tasks.bench.report.sheet import Column, Figure, Sheet

WIDTH = 120
SUPERSCRIPTS = dict(zip("abcdefghijklmnoprstuvwxyz", "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ", strict=True))


def text(sheet: Sheet, width: int | None = WIDTH) -> str:
    """The table with its title and notes; in parts, each with the first column, where it would be wider."""
    rows = [[_shown(figure) for figure in line] for line in sheet.lines]
    parts = _parts(sheet.columns, rows, width)
    notes = [_wrapped(note, width) for note in sheet.notes]
    title = f"**{escaped(sheet.title)}**" + (f" · {escaped(sheet.where)}" if sheet.where else "")
    return "\n\n".join([title, *parts, *(["\n".join(notes)] if notes else [])])


def document(sheets: Iterable[Sheet], width: int | None = WIDTH) -> str:
    """Tables one below the other."""
    return "\n\n".join(text(sheet, width) for sheet in sheets)


def escaped(words: str) -> str:
    """Words that are nothing but words in Markdown, on a page or on a terminal."""
    return re.sub(r"([\\`*<>|\[\]]|(?<!\w)_|_(?!\w))", r"\\\1", visible(words))


def _shown(figure: Figure) -> str:
    words = escaped(figure.text) + SUPERSCRIPTS.get(figure.mark, figure.mark)
    return f"**{words}**" if figure.strong else words


def _wrapped(note: str, width: int | None) -> str:
    """A note is an item, so that lines below each other stay lines."""
    filled = textwrap.fill(escaped(note), (width or 10**6) - 2, break_long_words=False, break_on_hyphens=False)
    return "- " + filled.replace("\n", "\n  ")


def _parts(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Tables of as many columns as fit, the first one repeated."""
    names = [escaped(column.name) for column in columns]
    widths = [max(2, *(len(row[place]) for row in [names, *rows])) for place in range(len(columns))]  # the rule is `-:`
    found: list[list[int]] = [[0]]
    for place in range(1, len(columns)):
        taken = sum(widths[known] + 3 for known in [*found[-1], place]) + 1
        if width is not None and taken > width and len(found[-1]) > 1:
            found.append([0])
        found[-1].append(place)
    return [_table(columns, names, rows, widths, places) for places in found]


def _table(
    columns: Sequence[Column],
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    widths: Sequence[int],
    places: Sequence[int],
) -> str:
    def line(cells: Sequence[str]) -> str:
        padded = [
            cells[place].ljust(widths[place]) if columns[place].words else cells[place].rjust(widths[place])
            for place in places
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * size if column.words else "-" * (size - 1) + ":" for column, size in zip(columns, widths, strict=True)
    ]
    return "\n".join([line(names), line(rule), *(line(row) for row in rows)])
