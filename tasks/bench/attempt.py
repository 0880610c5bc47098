"""One cell, computed by one process at a time: under its lock, and whatever happens its end is kept and told."""

import contextlib
from dataclasses import dataclass
from typing import Any

from tasks.bench.config import Run
from tasks.bench.errors import InputError
from tasks.bench.store import Stamp, Store

ELSEWHERE = "elsewhere"
"""The end of an attempt at a cell that another process computes."""


@dataclass(frozen=True)
class Ended:
    """How a cell ended: its status, and its headline numbers or what went wrong."""

    status: str
    told: str

    @property
    def well(self) -> bool:
        """Whether there is a number."""
        return self.status in ("done", "partial")


def attempt(run: Run, store: Store, before: Stamp) -> Ended:
    """Compute a cell and keep it, unless another process does so or has changed it since `before` was asked for.

    An error belongs to the cell alone, whatever it is.
    """
    try:
        with store.lock(run.cell) as ours:
            if not ours:
                return Ended(ELSEWHERE, "another process computes it")
            if store.stamp(run.cell) != before:
                return ended(store, run.cell)
            return _computed(run, store)
    except InputError as error:  # of the store itself
        return Ended("failed", f"failed: {error}")


def _computed(run: Run, store: Store) -> Ended:
    from tasks.bench.cell import failed
    from tasks.bench.run import run as run_cell

    try:
        return _told(run_cell(run, store).result)
    except Exception as error:
        return lost(store, failed(run, error))


def given_up(store: Store, cell: Any) -> Ended:
    """The end of a cell whose process could not tell it: it was killed, or stopped."""
    try:
        with store.lock(cell.name) as ours:
            return lost(store, cell) if ours else Ended(ELSEWHERE, "another process computes it")
    except InputError:
        return _told(cell.result)


def lost(store: Store, cell: Any) -> Ended:
    """Keep what is known of a cell without numbers; where even that cannot be written, it is told all the same."""
    with contextlib.suppress(InputError):
        store.write(cell)
    return _told(cell.result)


def ended(store: Store, name: str) -> Ended:
    """How a cell ended that is in the store."""
    return _told(store.result(name))


def _told(result: Any) -> Ended:
    facts = result["facts"]
    if "report" not in result["splits"]:
        return Ended(facts["status"], f"{facts['status']}: {facts['error']}")
    scores = result["splits"]["report"]["scores"]
    numbers = ", ".join(f"{metric} {value:.1f}" for metric, (value, _) in list(scores.items())[:2])
    return Ended(facts["status"], "; ".join([numbers, *result["notes"]]))
