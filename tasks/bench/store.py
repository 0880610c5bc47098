"""The cell store: a folder a cell, there as a whole or not at all; `results.csv` is derived from the folders.

<root>/cells/<cell>/config.json          everything its numbers depend on
                    result.json          scores by split, facts about the run, hashes of the code and of the records
                    report.jsonl.gz      one record an example; fit.jsonl.gz likewise
                    log.json             the loss of each step, notes; the traceback of one that failed
                    adapter/             what was trained
<root>/results.csv                       one line a cell, split and metric
<root>/.locks/<cell>.lock                held by the process that computes the cell

Locks are those of `tasks.bench.locks`. Where there are none, two processes may compute one cell; it is one cell all the
same, because the folder of the second finds that of the first in its place.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.bench import durable, folder, locks, sources
from tasks.bench.errors import InputError
from tasks.bench.folder import Json
from tasks.bench.rows import Row, csv_of, rows_of

if TYPE_CHECKING:
    import torch

    from tasks.bench.cell import Cell

Stamp = tuple[int, int] | None
"""Another one whenever a cell was written; None where there is none."""

FINISHED = ("done", "partial")
RANK = {"cancelled": 0, "failed": 1, "partial": 2, "done": 2}
"""Which end of a cell gives way to which."""


class Store:
    """Cells under one root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cells = root / "cells"
        self._seen: dict[tuple[str, str], tuple[Stamp, Json]] = {}
        self._codes: dict[str, Json] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """What was read stays where it was read."""
        return Store, (self.root,)

    def state(self, name: str) -> str:
        """`missing`, `running` in some process, `stale` (its code has changed since), or the status it ended with."""
        if self.running(name):
            return "running"
        status = self.status(name)
        return "stale" if status in FINISHED and self.outdated(name) else status

    def status(self, name: str) -> str:
        """What a cell's run ended as: `done`, `partial`, `failed`, `cancelled`; else `missing`."""
        return self.result(name)["facts"]["status"] if self.stamp(name) else "missing"

    def has(self, name: str) -> bool:
        """Whether a cell has numbers."""
        return self.status(name) in FINISHED

    def outdated(self, name: str) -> list[str]:
        """The modules that say something else than when the cell was made; `unknown` where that was not recorded."""
        return outdated(self.result(name))

    def stamp(self, name: str) -> Stamp:
        """What tells one writing of a cell from another."""
        try:
            # Of ten thousand cells, making paths takes longer than looking.
            status = os.stat(f"{self.cells}/{name}/result.json")  # noqa: PTH116
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino

    def names(self) -> list[str]:
        """All cells, in order of name."""
        return list(self.stamps())

    def stamps(self) -> dict[str, Stamp]:
        """What tells the writings of all cells from others, in order of name."""
        try:
            there = os.listdir(self.cells)  # noqa: PTH208
        except OSError:
            return {}
        return {name: stamp for name in sorted(there) if (stamp := self.stamp(name))}

    def config(self, name: str) -> Json:
        """Everything that a cell's numbers depend on; not to be changed, because it is read but once."""
        return self._once(name, "config.json", folder.read)

    def result(self, name: str) -> Json:
        """A cell's scores by split, and the facts about its run; not to be changed, because it is read but once.

        Raises:
            InputError: it is no longer what was written.
        """
        return self._once(name, "result.json", self._result)

    def _once(self, name: str, file: str, read: Callable[[str], Json]) -> Json:
        """What a file of a cell says, read anew when the cell was written anew."""
        stamp = self.stamp(name)
        seen = self._seen.get((name, file))
        if seen is None or stamp is None or seen[0] != stamp:
            seen = self._seen[name, file] = (stamp, read(f"{self.cells}/{name}/{file}"))
        return seen[1]

    def _result(self, path: str) -> Json:
        result = folder.read(path)
        if not isinstance(result.get("facts"), dict) or result["facts"].get("status") not in [*RANK]:
            raise InputError(f"{path} says no status: remove its folder, and the cell runs again")
        if isinstance(code := result.get("code"), dict):  # most cells share it
            result["code"] = self._codes.setdefault(json.dumps(code), code)
        return result

    def records(self, name: str, split: str) -> list[dict[str, Any]]:
        """The records of a cell's split.

        Raises:
            InputError: they are not what was written.
        """
        return folder.records(f"{self.cells}/{name}/{split}{folder.RECORDS}")

    def rows(self, names: Iterable[str] | None = None) -> list[Row]:
        """One row a split and metric of these cells, or of all; one without a metric for a cell without numbers."""
        return [row for name in (self.names() if names is None else names) for row in self.rows_of(name)]

    def rows_of(self, name: str) -> list[Row]:
        """The rows of one cell; none where it is missing."""
        if self.stamp(name) is None:
            return []
        try:
            return rows_of(name, self.config(name), self.result(name))
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{self.cells / name} is no cell ({error!r}): remove it, and the cell runs again"
            ) from None

    def export(self) -> Path:
        """Derive `results.csv` from the cells; whoever writes it last has seen every cell.

        Raises:
            InputError: the disk does not take it.
        """
        path = self.root / "results.csv"
        seen = None
        with durable.told(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            while seen != (now := self.stamps()):
                seen = now
                durable.write(path, csv_of(self.rows(now)).encode())
        return path

    @contextlib.contextmanager
    def lock(self, name: str, wait: bool = False) -> Iterator[bool]:
        """Keep every other process from computing a cell; whether it is ours to compute.

        Raises:
            InputError: the store cannot be written.
        """
        with contextlib.ExitStack() as stack:
            with durable.told(self.root):
                ours = stack.enter_context(locks.held(self._lock(name), wait))
            yield ours

    def running(self, name: str) -> bool:
        """Whether a process computes a cell now."""
        return locks.is_held(self._lock(name))

    def _lock(self, name: str) -> Path:
        return self.root / ".locks" / f"{name}.lock"

    def write(self, cell: "Cell", trained: "torch.nn.Module | None" = None) -> None:
        """Put a cell into place, with the adapter of a model that was trained.

        Raises:
            InputError: the disk does not take it; what was there is there still.
        """
        with self.unfinished() as whole:
            folder.write(whole, cell, trained)
            self.settle(whole, cell.name)

    def probe(self) -> None:
        """Refuse before hours are spent what could not be kept after them.

        Raises:
            InputError: the disk takes nothing.
        """
        durable.probe(self.root)

    @contextlib.contextmanager
    def unfinished(self) -> Iterator[Path]:
        """A folder to put a cell together in; what does not reach its place goes away.

        Raises:
            InputError: the disk does not take it.
        """
        with durable.told(self.root):
            self.cells.mkdir(parents=True, exist_ok=True)
            durable.sweep(self.root, self.cells)
            with tempfile.TemporaryDirectory(dir=self.root, prefix=durable.UNFINISHED) as scratch:
                whole = Path(scratch) / "cell"
                whole.mkdir()
                yield whole

    def settle(self, whole: Path, name: str) -> None:
        """Move a cell's folder into its place, if what is there gives way."""
        target, before = self.cells / name, self.stamp(name)
        durable.settle(whole)
        if target.exists() and not self._gives_way(name, folder.read(f"{whole}/result.json")):
            return
        try:
            durable.replace(target, whole, whole.parent)
        except OSError:
            if self.stamp(name) == before or not self.has(name):  # no other process was faster
                raise
        durable.flush(self.cells)

    def _gives_way(self, name: str, new: Mapping[str, Any]) -> bool:
        """To an end that says more, and of two with numbers to the one of other code: only a stale cell runs again."""
        if self.stamp(name) is None:
            return True
        old = self.result(name)
        ranks = [RANK[each["facts"]["status"]] for each in (old, new)]
        return ranks[0] < ranks[1] or (ranks[0] == ranks[1] and (ranks[1] < 2 or old.get("code") != new.get("code")))


def outdated(result: Mapping[str, Any]) -> list[str]:
    """As `Store.outdated`, of a result that was read."""
    recorded = result.get("code")
    return sources.changed(recorded if isinstance(recorded, dict) and recorded else {"unknown": "?"})
