"""A table as it is shown, before it is Markdown, LaTeX or HTML: what stands where, what is strong, what it links to."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A heading.

    Attributes:
        name: the heading itself.
        hint: a sentence for who does not know it.
        words: whether it holds words, which stand to the left.
    """

    name: str
    hint: str = ""
    words: bool = False


@dataclass(frozen=True)
class Figure:
    """What stands in one place.

    Attributes:
        text: as it is read.
        order: what it is sorted by; None comes last.
        strong: whether it is among the best.
        mark: a letter that a note explains.
        link: the name of the place that tells more.
    """

    text: str = ""
    order: float | str | None = None
    strong: bool = False
    mark: str = ""
    link: str = ""


@dataclass(frozen=True)
class Sheet:
    """One table.

    Attributes:
        key: a name for links to it.
        title: what is compared.
        where: with which host, or from where.
        columns: the first names the lines.
        lines: as many figures each as there are columns.
        notes: sentences below it.
    """

    key: str
    title: str
    where: str
    columns: Sequence[Column]
    lines: Sequence[Sequence[Figure]]
    notes: Sequence[str] = ()


def word(text: str, link: str = "") -> Figure:
    """A figure that is a word."""
    return Figure(text, text.casefold(), link=link)


def number(value: float | None, text: str, *, strong: bool = False, mark: str = "", link: str = "") -> Figure:
    """A figure that is a number; empty where there is none."""
    return Figure() if value is None else Figure(text, value, strong, mark, link)
