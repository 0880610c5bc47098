"""The committed snapshot of a suite: its cells without inputs and weights, and a report derived from these alone.

Of real data no word is in it: a span of a passage that a record has as its answer is kept as a hash.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.bench import durable, folder
from tasks.bench import task as tasks
from tasks.bench.commandline import LOCAL
from tasks.bench.config import is_generated
from tasks.bench.errors import InputError
from tasks.bench.report import belonging, report
from tasks.bench.report.found import Found, read
from tasks.bench.store import Store
from tasks.bench.suite import Suite

LIMIT = 20 * 2**20
"""Bytes of a snapshot, at most."""
LEFT_OUT = ("adapter",)
"""What a cell's folder holds and a snapshot does not."""


def refuse(cells: Sequence[Found], suite: str) -> None:
    """Stop at cells that nobody could make again from the commit they name.

    Raises:
        InputError: there are some, or none at all.
    """
    if not cells:
        raise InputError(f"there is no cell of {suite} to publish: run it first")
    unfit = {
        "without numbers": [cell.name for cell in cells if not cell.measured],
        "stale": [cell.name for cell in cells if cell.state == "stale"],
        "made by changed code": [cell.name for cell in cells if cell.facts.get("dirty")],
        "of no commit": [cell.name for cell in cells if cell.measured and not cell.facts.get("commit")],
    }
    for what, names in unfit.items():
        if names:
            some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise InputError(
                f"{len(names)} of {len(cells)} cells of {suite} are {what} ({some}): run them again from a clean "
                "commit before they are published"
            )


def publish(suite: Suite, store: Store, root: Path, *, allow_mixed: bool = False) -> str:
    """Put the snapshot of a suite's cells under a root, in place of an earlier one; return its tables.

    Raises:
        InputError: cells are not fit to be published, or are too large together; what is there is no snapshot.
    """
    target = root / suite.name
    if target.resolve() == store.root.resolve():
        raise InputError(f"--results {store.root} is the snapshot itself: name the store that it is to be made from")
    if target.exists() and not _is_snapshot(target, suite):
        raise InputError(f"{target} is there and no snapshot of {suite.name}: move it away, or rename the suite")
    cells = belonging.of(suite, read(store)).cells
    refuse(cells, suite.name)
    root.mkdir(parents=True, exist_ok=True)
    durable.sweep(root, root)
    with tempfile.TemporaryDirectory(dir=root, prefix=durable.UNFINISHED) as scratch:
        copy = Store(Path(scratch) / "new")
        for cell in cells:
            folder.copy(store.cells / cell.name, copy.cells / cell.name, LEFT_OUT)
            unquoted(copy.cells / cell.name, cell.config)
        told = report(suite, copy, allow_mixed=allow_mixed, pictures=False)
        (copy.root / f"{suite.name}.html").unlink()  # a snapshot is of one suite, so report.html is enough
        _weigh(copy.root, target)
        durable.replace(target, copy.root, Path(scratch))
    return told


def unquoted(cell: Path, config: Mapping[str, Any]) -> None:
    """Put hashes in the place of the words that a cell's records have from real data."""
    quotes = tasks.get(config["task"]).quotes
    if quotes and not is_generated(config):
        folder.hash_words(cell, quotes)


def _is_snapshot(target: Path, suite: Suite) -> bool:
    """Whether a snapshot of this suite may take the place of what is there; a reported store has a page as well."""
    pages = {path.name for path in target.glob("*.html")}
    return (
        target.resolve() != LOCAL.resolve()
        and "report.html" in pages
        and pages <= {"report.html", f"{suite.name}.html"}
        and not any(any(target.glob(f"cells/*/{name}")) for name in LEFT_OUT)
    )


def _weigh(whole: Path, target: Path) -> None:
    sizes = {path.relative_to(whole): path.stat().st_size for path in whole.rglob("*") if path.is_file()}
    if sum(sizes.values()) > LIMIT:
        largest = max(sizes, key=lambda path: sizes[path])
        together, one = (f"{size / 2**20:.1f} MB" for size in (sum(sizes.values()), sizes[largest]))
        raise InputError(
            f"{target} would hold {together}, where {LIMIT / 2**20:.0f} MB are allowed; the largest file, {largest}, "
            f"holds {one}: report fewer examples, or publish a smaller suite"
        )
