"""A cell that is computed on another machine: what is sent there, and how its folder comes back."""

import contextlib
import pickle
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.bench.attempt import Ended, attempt
from tasks.bench.config import Run
from tasks.bench.errors import InputError
from tasks.bench.store import Store

Files = Mapping[str, bytes]
"""A folder: each file by its path in there."""


@dataclass(frozen=True)
class Order:
    """A cell to be computed, and what must be there as it is here.

    Attributes:
        run: the cell, pickled, because that may need one of its files.
        cell: its name.
        folder: where relative paths begin.
        inputs: files and folders that it names.
        commit: of the code, which is sent along without its history.
        versions: of the packages that numbers depend on.
    """

    run: bytes
    cell: str
    folder: Path
    inputs: Sequence[str]
    commit: tuple[str, bool | None]
    versions: str

    @classmethod
    def of(cls, run: Run) -> "Order":
        """A cell as it would be computed here."""
        from tasks.bench import provenance

        # Without what was worked out of it here, as its name is: that is worked out again there.
        packed = pickle.dumps(replace(run))
        return cls(packed, run.cell, Path.cwd(), _inputs(run), provenance.commit(), provenance.versions())

    def unpacked(self) -> Run:
        """The cell, where it would be the same one here.

        Raises:
            InputError: a file is missing here or is another, or packages are of other versions.
        """
        from tasks.bench import provenance

        here = platform.node()
        if missing := [path for path in self.inputs if not Path(path).exists()]:
            raise InputError(
                f"{missing[0]} is not on {here}, where this cell was to run: put it there under the same path, or into "
                "a folder that all nodes share"
            )
        if (versions := provenance.versions()) != self.versions:
            raise InputError(f"{here} has {versions}, and {self.versions} is wanted: install the same on every node")
        run = pickle.loads(self.run)
        if run.cell != self.cell:
            raise InputError(
                f"the files of this cell are others on {here} than where it was planned: bring the same there"
            )
        return run


def _inputs(run: Run) -> list[str]:
    """Whatever the cell names that is a file or a folder here."""
    choice = run.choice
    named = [choice.train, choice.eval, choice.data, choice.adapter, choice.checkpoint]
    named += [choice.method] if choice.method.endswith(".py") else []
    named += [value for value in run.settings["task"].values() if isinstance(value, str)]
    return [str(name) for name in named if name and Path(name).exists()]


def compute(order: Order, words: Any) -> tuple[Ended, Files]:
    """Compute a cell in a folder of its own: how it ended, and what came out; `words` is told how far it is.

    Raises:
        InputError: it would not be the same cell here.
    """
    from tasks.bench import progress, provenance

    provenance.take(order.commit)
    progress.send_to(lambda *word: words.say.remote(order.cell, *word))
    with contextlib.ExitStack() as stack:
        store = Store(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        if order.folder.is_dir():
            stack.enter_context(contextlib.chdir(order.folder))
        ended = attempt(order.unpacked(), store, None)
        folder = store.cells / order.cell
        return ended, pack(folder) if folder.is_dir() else {}


def pack(folder: Path) -> Files:
    """All files of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unpack(store: Store, cell: str, files: Files) -> None:
    """Put a cell into its place, if there is one.

    Raises:
        InputError: the disk does not take it.
    """
    if not files:
        return
    with store.unfinished() as whole:
        for name, data in files.items():
            (whole / name).parent.mkdir(parents=True, exist_ok=True)
            (whole / name).write_bytes(data)
        store.settle(whole, cell)
