"""A suite in its store: the state of each cell, what there is to do and how long it takes, and the tables so far."""

import contextlib
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tasks.bench import durable
from tasks.bench.board import Board
from tasks.bench.config import Run
from tasks.bench.errors import InputError
from tasks.bench.estimate import estimates
from tasks.bench.plain import say
from tasks.bench.store import FINISHED, Store

Rerun = Literal["failed", "stale", "none"]
TO_DO: Mapping[Rerun, Sequence[str]] = {
    "none": ("missing", "running", "cancelled"),
    "failed": ("missing", "running", "cancelled", "failed"),
    "stale": ("missing", "running", "cancelled", "failed", "stale"),
}
"""Which states are run, by what is to be run again; what another process runs is waited for."""


@dataclass(frozen=True)
class Planned:
    """A suite's name, its runs and the store they belong to."""

    name: str
    runs: Sequence[Run]
    store: Store

    def overview(self) -> str:
        """A line a cell, with its state and the time that it will take, and what that comes to."""
        states = self._states()
        left = estimates([run for run in self.runs if states[run.cell] not in (*FINISHED, "stale")], self.store)
        lines = [
            f"{state:<9} {_duration(left[cell]) if cell in left else '-':>8}  {cell}" for cell, state in states.items()
        ]
        return "\n".join([*lines, "", f"{len(lines)} cells: {_counted(states)}; {_to_do(left)}"])

    def run(self, run_all: Callable[..., list[str]], jobs: int | None, rerun: Rerun) -> int:
        """Run what is to be run, print the tables, and say what is not as it should be; 1 if a cell failed.

        Raises:
            InputError: the store does not take what is found.
        """
        self.store.probe()
        states = self._states()
        todo = [run for run in self.runs if states[run.cell] in TO_DO[rerun]]
        left = estimates(todo, self.store)
        pace = f", {jobs} at a time" if jobs else ""
        say(f"{self.name}: {len(states)} cells, {len(todo)} to run{pace}; {_to_do(left)}")
        if todo:
            say(f"{self.name}: {self.store.root / self.name}.md has the tables, and fills as cells finish")
        board = Board(_weights(left), self._fill)
        try:
            failures = run_all(todo, self.store, jobs, board)
        except BaseException:
            with contextlib.suppress(InputError):
                self.store.export()
            raise
        finally:
            board.close()
        self.store.export()
        print(self.write_tables(), end="")
        return self._sum_up(failures)

    def write_tables(self) -> str:
        """The tables of what is finished, which are kept beside the cells too.

        Raises:
            InputError: the store does not take them.
        """
        text = self._tables()
        if stale := self._stale():
            text += f"\nOf other code than today's, to be run again by --rerun stale: {', '.join(stale)}\n"
        with durable.told(self.store.root):
            durable.write(self.store.root / f"{self.name}.md", text.encode())
        return text

    def _tables(self) -> str:
        from tasks.bench.report import markdown, tables  # behind a second of imports

        try:
            return tables(self.store, [run.cell for run in self.runs])
        except InputError as error:  # what is finished stays finished
            return f"There are no tables: {markdown.escaped(str(error))}\n"

    def _fill(self) -> None:
        with contextlib.suppress(InputError):  # a store that takes nothing more is noticed by its cells
            self.write_tables()

    def _states(self) -> dict[str, str]:
        return {run.cell: self.store.state(run.cell) for run in self.runs}

    def _stale(self) -> list[str]:
        return [cell for cell, state in self._states().items() if state == "stale"]

    def _sum_up(self, failures: Sequence[str]) -> int:
        failed = sorted({*failures, *(cell for cell, state in self._states().items() if state == "failed")})
        changed = sorted({module for cell in self._stale() for module in self.store.outdated(cell)})
        if changed:
            say(f"{len(self._stale())} cells are stale, their code has changed since: {', '.join(changed)}")
        if failed:
            say(f"{len(failed)} of {len(self.runs)} cells failed: {', '.join(failed)}")
        return int(bool(failed))


def _weights(left: Mapping[str, float | None]) -> dict[str, float]:
    """The share of the time that each cell takes; one of unknown length is like the others."""
    known = [seconds for seconds in left.values() if seconds]
    usual = statistics.mean(known) if known else 1.0
    return {cell: seconds or usual for cell, seconds in left.items()}


def _counted(states: Mapping[str, str]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(Counter(states.values()).items())) or "none"


def _to_do(left: Mapping[str, Any]) -> str:
    """What all cells that are left come to, one after the other."""
    known = [seconds for seconds in left.values() if seconds is not None]
    unknown = f"{len(left) - len(known)} of unknown time" if len(known) < len(left) else ""
    parts = [f"{_duration(sum(known))} for {len(known)}" if known else "", unknown]
    return f"to do: {' and '.join(part for part in parts if part) or 'nothing'}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
