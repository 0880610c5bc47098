"""Text that came with data, made harmless for where it is shown: a terminal, a spreadsheet."""

import sys
import unicodedata

FORMULAS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""What a spreadsheet takes for the beginning of a formula; in some languages wide letters, too."""


def visible(text: str) -> str:
    """One line without what a terminal obeys: controls, escapes, and marks that turn the direction of writing."""
    if text.isprintable():
        return text
    return "".join(
        " " if letter.isspace() else "\N{REPLACEMENT CHARACTER}" if _unseen(letter) else letter for letter in text
    )


def say(line: str) -> None:
    """Tell the user a line, beside what a command prints."""
    print(visible(line), file=sys.stderr)


def _unseen(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn")


def inert(value: object) -> object:
    """A field of a CSV file; words that a spreadsheet would run get an apostrophe in front, numbers stay."""
    if not value or not isinstance(value, str) or (value[:1].isalnum() and "\r" not in value):
        return value
    value = value.replace("\r", " ")  # which `csv` leaves bare, and takes for the end of a line when it reads
    if value.lstrip()[:1] not in FORMULAS or _is_number(value):
        return value
    return f"'{value}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
