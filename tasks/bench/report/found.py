"""A cell as it lies in a store: read once, and asked for its numbers by every part of a report."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.bench import folder
from tasks.bench.errors import InputError
from tasks.bench.report import shape
from tasks.bench.store import FINISHED, Store, outdated


@dataclass(frozen=True, eq=False)
class Found:
    """One cell.

    Attributes:
        name: its folder's.
        state: `done`, `partial`, `stale`, `failed` or `cancelled`.
        config: everything its numbers depend on.
        facts: about its run.
        splits: counts and scores of each split.
        notes: what a reader of its numbers should know.
    """

    name: str
    state: str
    config: Mapping[str, Any]
    facts: Mapping[str, Any]
    splits: Mapping[str, Any]
    notes: Sequence[str]

    @property
    def measured(self) -> bool:
        """Whether it has numbers of the report split."""
        return "report" in self.splits

    @property
    def partial(self) -> bool:
        """Whether it trained or was scored on less than the whole sets; a stale cell can be both."""
        return self.facts["status"] == "partial"

    @property
    def fingerprint(self) -> str:
        """What its numbers share with those they may be compared with."""
        return str(self.facts["fingerprint"])

    def value(self, metric: str, split: str = "report") -> float | None:
        """A number of a split; None where it has none."""
        scored = self.splits.get(split, {}).get("scores", {}).get(metric)
        return None if scored is None else float(scored[0])

    def setting(self, group: str, name: str) -> Any:
        """A setting of `training`, `task` or `method`; None where there is none of that name."""
        return self.config["settings"][group].get(name)


def read(store: Store, names: Iterable[str] | None = None) -> Iterator[Found]:
    """Cells of a store by name, all of them unless said; what is missing is left out.

    Raises:
        InputError: a file of a cell is not what was written.
    """
    for name in store.names() if names is None else names:
        if store.stamp(name):
            result = store.result(name)
            status = result["facts"]["status"]
            state = "stale" if status in FINISHED and outdated(result) else status
            config = store.config(name)
            _refuse(f"{store.cells / name}", shape.of_cell(config, result))
            yield Found(name, state, config, result["facts"], result["splits"], result["notes"])


def _refuse(place: str, wrong: Iterator[str]) -> None:
    if first := next(wrong, ""):
        raise InputError(f"{place} is no cell ({first}): remove its folder, and the cell runs again")


def some_records(store: Store, cell: Found, count: int) -> list[dict[str, Any]]:
    """The first records of a cell's report split, without reading the others.

    Raises:
        InputError: they are not what was written.
    """
    found = folder.some_records(f"{store.cells}/{cell.name}/report.jsonl.gz", count)
    _refuse(f"{store.cells}/{cell.name}", (f"record {n} has no id" for n, each in enumerate(found) if "id" not in each))
    return found


def log(store: Store, cell: Found) -> dict[str, Any]:
    """What happened in a cell's run: the loss of each step, gates, trials; nothing where it is not kept.

    Raises:
        InputError: it is not what was written.
    """
    path = store.cells / cell.name / "log.json"
    if not path.exists():
        return {}
    found = folder.read(str(path))
    _refuse(str(path.parent), shape.of_log(found))
    return found
