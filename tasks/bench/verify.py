"""Every number of a store once more, from its records: what does not follow from them is told, a line each.

Records are what was answered; a hash in the cell's result tells whether they still are. A cell's name holds a hash of
its configuration, so neither can be exchanged for another's.
"""

import contextlib
import csv
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.bench import gzipped
from tasks.bench import task as tasks
from tasks.bench.config import name_of
from tasks.bench.errors import InputError
from tasks.bench.folder import RECORDS
from tasks.bench.plain import visible
from tasks.bench.rows import Row, alike, csv_of
from tasks.bench.store import FINISHED, Store
from tasks.bench.task import Record, faults

SPLITS = ("report", "fit", "shift")
KEY = ("cell", "split", "metric")
"""What names a line of `results.csv`."""


def verified(store: Store) -> bool:
    """Whether all numbers of a store follow from its records; what does not is printed.

    Raises:
        InputError: there is no such store.
    """
    if not store.cells.is_dir():
        raise InputError(f"{store.root} holds no cells: give the folder that --results named")
    wrong = 0
    for line in discrepancies(store):
        print(visible(line))
        wrong += 1
    names = store.names()
    old = sum(1 for name in names if _is_old(store, name))
    if old:
        print(f"{old} cells are from before records were hashed: other answers with the same scores would go unnoticed")
    print(f"{store.root}: {len(names)} cells, {wrong} discrepancies")
    return not wrong


def _is_old(store: Store, name: str) -> bool:
    with contextlib.suppress(InputError):
        return store.has(name) and not store.result(name).get("sha256")
    return False


def discrepancies(store: Store) -> Iterator[str]:
    """What is wrong with a store, a line each; nothing where all is right."""
    rows: list[Row] = []
    for name in store.names():
        try:
            yield from (f"{store.cells / name}: {line}" for line in _cell(store, name))
            rows += store.rows_of(name)
        except InputError as error:
            yield str(error)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
            yield f"{store.cells / name}: what is written there makes no cell ({error!r})"
    yield from _table(store.root / "results.csv", rows)


def _cell(store: Store, name: str) -> Iterator[str]:
    config, result = store.config(name), store.result(name)
    if (own := name_of(config)) != name:
        yield f"config.json is that of {own}"
        return
    if result["facts"]["status"] not in FINISHED:
        return
    report = result["splits"]["report"]
    if result["facts"]["status"] == "done" and report["n"] != report["n_expected"]:
        yield f"it is said to be done, with {report['n']} of {report['n_expected']} examples"
    task, version = tasks.get(config["task"]), config["versions"]["task"]
    if version != task.version:
        yield f"version {task.version} of {config['task']} cannot recompute what version {version} found"
        return
    for split, part in result["splits"].items():
        if split in SPLITS:
            records, wrong = _records(store.cells / name / f"{split}{RECORDS}", result.get("sha256", {}).get(split))
            yield from wrong
            yield from (f"{split}: {line}" for line in _part(task, config["dataset"], records, part))
        else:
            yield f"{split!r} is no split"


def _records(path: Path, digest: str | None) -> tuple[list[Record], list[str]]:
    """The records of a file, and whether they are other than those of which this is the hash.

    Raises:
        InputError: they cannot be read.
    """
    try:
        text = gzipped.unpacked(path.read_bytes())
        records = [json.loads(line) for line in text.decode().split("\n") if line]
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error})") from None
    same = digest in (None, hashlib.sha256(text).hexdigest())
    return records, [] if same else [f"{path.name} is not what was written: its hash is another"]


def _part(task: tasks.Task, dataset: str, records: Sequence[Record], part: Mapping[str, Any]) -> Iterator[str]:
    """What a split's result says otherwise than its records."""
    found = {"n": len(records), **faults(records)}
    scores = task.metrics(records, dataset)
    found |= {name: score.value for name, score in scores.items()}
    found |= {f"{name}'s standard error": score.stderr for name, score in scores.items()}
    said = {name: part.get(name) for name in ("n", *faults([]))}
    for name, (value, stderr) in part["scores"].items():
        said |= {name: value, f"{name}'s standard error": stderr}
    for name in dict.fromkeys([*said, *found]):
        if not alike(said.get(name), found.get(name)):
            yield f"{name} is {said.get(name)}, and {found.get(name)} from the records"


def _table(path: Path, rows: Sequence[Row]) -> Iterator[str]:
    """How `results.csv` differs from what the cells give; nothing where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        yield f"{path} cannot be read ({error})"
        return
    wanted = csv_of(rows)
    if text == wanted:
        return
    there, derived = (_by_key(each) for each in (text, wanted))
    yield from (f"{path}: there is no line of {' '.join(key)}" for key in derived if key not in there)
    yield from (f"{path}: no cell gives the line of {' '.join(key)}" for key in there if key not in derived)
    for key in there.keys() & derived.keys():
        for column, value in derived[key].items():
            if there[key].get(column) != value:
                yield f"{path}: {column} of {' '.join(key)} is {there[key].get(column)}, and {value} in its cell"
    if there == derived:
        yield f"{path} is not what its cells give: `python -m tasks report` derives it anew"


def _by_key(text: str) -> dict[tuple[str, ...], dict[str, Any]]:
    return {tuple(str(row.get(key)) for key in KEY): row for row in csv.DictReader(text.splitlines())}
