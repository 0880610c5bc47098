"""JSON and tables that somebody else wrote: every value knows its place, so that a refusal can name it."""

import contextlib
import csv
import gzip
import io
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.bench.errors import InputError
from tasks.bench.gzipped import unpacked


class BadRecordError(InputError):
    """A record that `--skip-bad` would leave out."""


@dataclass(frozen=True)
class Entry:
    """A JSON value, the document it comes from, and its path in there."""

    value: Any
    document: str
    path: str = ""

    @property
    def place(self) -> str:
        """For people: `file: data[0].paragraphs[2]`."""
        return f"{self.document}: {self.path}" if self.path else self.document

    def has(self, key: str) -> bool:
        """Whether this is an object with that key."""
        return isinstance(self.value, dict) and key in self.value

    def tells(self, key: str) -> bool:
        """Whether that key has a value: tables leave a cell blank, and other programs write null."""
        return self.has(key) and self.value[key] not in (None, "")

    def keys(self) -> list[str]:
        """The keys of an object."""
        if not isinstance(self.value, dict):
            raise InputError(f"{self.place}: this is {_kind(self.value)}; give an object")
        return list(self.value)

    def entries(self, key: str) -> list["Entry"]:
        """The items of a list."""
        items = self._get(key, list, "a list")
        path = f"{self.path}.{key}" if self.path else key
        return [Entry(item, self.document, f"{path}[{number}]") for number, item in enumerate(items)]

    def text(self, key: str) -> str:
        """A string."""
        return self._whole(key, self._get(key, str, "a string"))

    def text_if_any(self, key: str) -> str:
        """A string; empty where there is none."""
        return self.text(key) if self.tells(key) else ""

    def texts(self, key: str) -> list[str]:
        """A list of strings."""
        items = self._get(key, list, "a list of strings")
        if odd := [item for item in items if not isinstance(item, str)]:
            raise InputError(f"{self.place}: {key!r} holds {_kind(odd[0])}; give strings alone")
        return [self._whole(key, item) for item in items]

    def _whole(self, key: str, value: str) -> str:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InputError(f"{self.place}: {key!r} holds half a character; give whole ones") from None
        return value

    def integer(self, key: str) -> int:
        """A whole number."""
        return self._get(key, int, "a whole number")

    def count(self, key: str) -> int:
        """A whole number of at most nine digits, which a table has as text; JSON's may be any."""
        given = self.value[key] if self.has(key) else None
        if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) < 10:
            return int(given)
        return self.integer(key)

    def number(self, key: str) -> float:
        """A number."""
        try:
            value = float(self._get(key, (int, float), "a number"))
        except OverflowError:
            raise InputError(f"{self.place}: {key!r} is a number of too many digits; give a smaller one") from None
        if value != value:
            raise InputError(f"{self.place}: {key!r} is not a number; give one")
        return value

    def _get(self, key: str, kind: Any, wanted: str) -> Any:
        if not self.has(key):
            raise InputError(f"{self.place}: there is no {key!r}; give {wanted}")
        value = self.value[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"{self.place}: {key!r} is {_kind(value)}; give {wanted}")
        return value


class Tolerance:
    """Leaves out so many bad records of a file, keeps what was wrong with each, and refuses the next."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.left_out: list[str] = []

    @contextlib.contextmanager
    def record(self) -> Iterator[None]:
        """Around the reading of one record."""
        try:
            yield
        except BadRecordError:
            raise
        except InputError as error:
            if len(self.left_out) == self.most:
                others = f" ({self.most} were left out before it)" if self.most else ""
                raise BadRecordError(
                    f"{error}, or pass --skip-bad N to leave up to N bad records out{others}"
                ) from None
            self.left_out.append(str(error))


def omissions(left_out: Mapping[str, Sequence[str]]) -> list[str]:
    """A note for each role of whose records some were left out, with what was wrong with each."""
    return [f"{len(bad)} bad records of {role} left out: {' | '.join(bad)}" for role, bad in left_out.items() if bad]


class _TwiceError(ValueError):
    """A key that an object has twice; JSON's readers would keep the last one in silence."""


def is_there(path: Path) -> bool:
    """Whether there is such a file; not, too, where no file can have that name."""
    return os.path.isfile(path)  # noqa: PTH113 - a path's own `is_file` raises there


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; not, too, at the end of a link that no folder can have the name of."""
    return os.path.isdir(path)  # noqa: PTH112 - a path's own `is_dir` raises there


def packed_or_not(name: str, *folders: Path) -> Path | None:
    """The first file of that name in some folders, plain or gzipped; None where there is none."""
    places = (folder / (name + end) for folder in folders for end in ("", ".gz"))
    return next((path for path in places if is_there(path)), None)


def read_json(path: Path) -> Entry:
    """A JSON file, gzipped where its name ends in `.gz`.

    Raises:
        InputError: the file is not there, cannot be read or is not JSON.
    """
    text = _text(path)
    try:
        return Entry(_parsed(text), str(path))
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: line {error.lineno}, column {error.colno} is not JSON ({error.msg}); give JSON"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {_trouble(error)}") from None


def read_lines(path: Path, bad: Tolerance) -> Iterator[Entry]:
    """The lines of a JSON-lines file, one by one, gzipped where its name ends in `.gz`; blank ones are left out.

    Raises:
        InputError: the file cannot be read, or more lines than allowed are not JSON.
    """
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        entry = None
        with bad.record():
            try:
                entry = Entry(_parsed(line), str(path), f"line {number}")
            except json.JSONDecodeError as error:
                where = f"line {number}, column {error.colno}"
                raise InputError(f"{path}: {where} is not JSON ({error.msg}); give one JSON value a line") from None
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}: line {number}: {_trouble(error)}") from None
        if entry is not None:
            yield entry


def read_records(path: Path, bad: Tolerance) -> Iterator[Entry]:
    """The records of a JSON list, of JSON lines (`.jsonl`) or of a table with a header (`.csv`), gzipped or not.

    Raises:
        InputError: the file is none of these, or more records than allowed cannot be read.
    """
    match Path(path.name.removesuffix(".gz")).suffix:
        case ".jsonl":
            yield from read_lines(path, bad)
        case ".csv":
            yield from _read_table(path, bad)
        case _:
            document = read_json(path)
            if not isinstance(document.value, list):
                raise InputError(f"{path}: this is no list of records; give one, or JSON lines in a file named .jsonl")
            for number, item in enumerate(document.value):
                yield Entry(item, document.document, f"[{number}]")


def _read_table(path: Path, bad: Tolerance) -> Iterator[Entry]:
    """The rows of a CSV file by the names of its columns; every value is a text."""
    rows = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        names = next(rows, [])
        if len(set(names)) < len(names):
            raise InputError(f"{path}: line 1 names a column twice; give each a name of its own")
        for row in filter(None, rows):
            place = f"line {rows.line_num}"
            with bad.record():
                if len(row) != len(names):
                    raise InputError(f"{path}: {place} ends a row of {len(row)} values, not {len(names)}; correct it")
                yield Entry(dict(zip(names, row, strict=True)), str(path), place)
    except csv.Error as error:
        raise InputError(f"{path}: line {rows.line_num} is not CSV ({error}); give commas and quoted texts") from None


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        return (unpacked(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8; give a JSON file in UTF-8") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: this is not a whole gzip file ({error}); give it unpacked or whole") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}; give it unpacked") from None
    except OSError as error:
        raise InputError(f"{path}: it cannot be read ({error.strerror}); give a readable file") from None


def _parsed(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise _TwiceError(key)
    return found


def _trouble(error: Exception) -> str:
    if isinstance(error, _TwiceError):
        return f"the key {str(error)!r} occurs twice in one object; keep one of them"
    if isinstance(error, RecursionError):
        return "this JSON is nested too deeply; give a file in the task's format"
    return "a number has too many digits to be read; give a smaller one"


def _kind(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    names = {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number"}
    return names[type(value)]
