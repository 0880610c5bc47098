"""The cells that a suite has still to run, and how they end, whichever process computes them.

Suites that run in one folder share the work: a cell that another process computes is looked at again later, and how it
ended there is how it ended.
"""

from collections import deque
from collections.abc import Sequence

from tasks.bench.attempt import ELSEWHERE, Ended, ended
from tasks.bench.board import Board
from tasks.bench.config import Run
from tasks.bench.store import Stamp, Store


class Agenda:
    """Who asks is given a cell to run; `failures` are the names of those that ended without numbers."""

    def __init__(self, runs: Sequence[Run], store: Store, board: Board) -> None:
        self.store, self.board = store, board
        self.waiting = deque(runs)
        self.before: dict[str, Stamp] = {run.cell: store.stamp(run.cell) for run in runs}
        self.failures: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.waiting)

    def take(self) -> Run | None:
        """The next cell that nobody computes; None while there is none."""
        for _ in range(len(self.waiting)):
            run = self.waiting.popleft()
            if self.store.stamp(run.cell) != self.before[run.cell]:
                self.end(run, ended(self.store, run.cell))
            elif self.store.running(run.cell):
                self.waiting.append(run)
            else:
                return run
        return None

    def end(self, run: Run, how: Ended) -> None:
        """A cell that was taken is over, or it comes up again: it is computed elsewhere, or was given up there."""
        if how.status in (ELSEWHERE, "cancelled"):
            if how.status == "cancelled":  # what is done elsewhere may have been finished meanwhile
                self.before[run.cell] = self.store.stamp(run.cell)
            self.waiting.append(run)
            return
        if not how.well:
            self.failures.append(run.cell)
        self.board.ended(run.cell, how)
