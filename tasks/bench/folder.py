"""The files of a cell's folder: how they are written, and how they are read again."""

import contextlib
import gzip
import hashlib
import itertools
import json
import math
import shutil
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.bench.errors import InputError
from tasks.bench.gzipped import LIMIT, unpacked

if TYPE_CHECKING:
    import torch

    from tasks.bench.cell import Cell

Json = dict[str, Any]

FILES = ("config.json", "result.json", "log.json", "adapter")
RECORDS = ".jsonl.gz"
"""How the name of a split's records ends."""


def write(folder: Path, cell: "Cell", trained: "torch.nn.Module | None") -> None:
    """A cell's files, with the adapter of a model that was trained.

    Raises:
        OSError: the disk does not take them.
    """
    hashes = {split: _write_records(folder, split, records) for split, records in cell.records.items()}
    _write_json(folder / "config.json", cell.config)
    _write_json(folder / "result.json", {**cell.result, "sha256": hashes})
    _write_json(folder / "log.json", cell.log)
    if trained is not None:
        _save(trained, folder / "adapter")


def copy(cell: Path, to: Path, without: Collection[str] = ()) -> None:
    """Copy the plain files of a cell alone; what is only linked to, or is not a cell's, stays where it is.

    Raises:
        InputError: the cell itself is a link.
        OSError: the disk does not take them.
    """
    if cell.is_symlink():
        raise InputError(f"{cell} is a link, where a cell's folder belongs: put the folder itself there")

    def left_out(place: str, names: Sequence[str]) -> list[str]:
        own = names if Path(place) != cell else [name for name in names if name in FILES or name.endswith(RECORDS)]
        return [name for name in names if name not in own or name in without or Path(place, name).is_symlink()]

    shutil.copytree(cell, to, ignore=left_out, dirs_exist_ok=True)


def hash_words(cell: Path, fields: Set[str]) -> None:
    """Put hashes in the place of these fields where a cell's records have them, and the records' own hashes right.

    Raises:
        InputError: the cell is none.
        OSError: the disk does not take it.
    """
    result, hashes = read(f"{cell}/result.json"), {}
    for path in cell.glob(f"*{RECORDS}"):
        split = path.name.removesuffix(RECORDS)
        hashed = [
            record | {field: _hash(record[field]) for field in fields & record.keys()} for record in records(str(path))
        ]
        hashes[split] = _write_records(cell, split, hashed)
    _write_json(cell / "result.json", {**result, "sha256": hashes})


def _hash(words: object) -> str:
    return f"sha256 {hashlib.sha256(str(words).encode()).hexdigest()[:16]}" if words else ""


def records(path: str) -> list[Json]:
    """The records of a split, one a line.

    Raises:
        InputError: they are not what was written.
    """
    # Of ten thousand cells, making paths and parsing line by line take longer than the disk.
    with _told(path), open(path, "rb") as file:  # noqa: PTH123
        return _objects(_whole(b"[%b]" % b",".join(unpacked(file.read()).splitlines())))


def some_records(path: str, count: int) -> list[Json]:
    """The first records of a split, without reading the others.

    Raises:
        InputError: they are not what was written.
    """
    with _told(path), gzip.open(path, "rb") as file:
        lines = (file.readline(LIMIT) for _ in range(count))
        return _objects([_whole(line) for line in itertools.takewhile(bool, lines)])


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds {text}, which nothing can be computed with")
    return value


def _whole(text: bytes, number: Callable[[str], float] | None = None) -> Any:
    """JSON without half a character, which no file could take, and without what only Python calls a number."""
    value = json.loads(text.decode(), parse_float=number, parse_constant=_finite)  # bytes may hold halves unseen
    if b"\\ud" in text or b"\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it holds half a character") from None
    return value


def _objects(found: list[Any]) -> list[Json]:
    if not all(isinstance(record, dict) for record in found):
        raise ValueError("a record is no object")
    return found


def read(path: str) -> Json:
    """A file of JSON.

    Raises:
        InputError: it is none.
    """
    with _told(path), open(path, "rb") as file:  # noqa: PTH123
        value = _whole(file.read(), _finite)
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no object: remove its folder, and the cell runs again")
    return value


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Say in one sentence what is wrong with a file.

    Raises:
        InputError: in place of whatever reading it raises.
    """
    try:
        yield
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}): remove its folder, and the cell runs again") from None


def _save(trained: "torch.nn.Module", folder: Path) -> None:
    from safetensors import SafetensorError

    import zeroinit

    try:
        zeroinit.save(trained, folder)
    except SafetensorError as error:  # it says so where the disk is full
        raise OSError(str(error)) from error


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_records(folder: Path, split: str, records: Sequence[Mapping[str, Any]]) -> str:
    """A split's records, one a line; the sha256 of these lines."""
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    (folder / f"{split}{RECORDS}").write_bytes(gzip.compress(text, mtime=0))
    return hashlib.sha256(text).hexdigest()
