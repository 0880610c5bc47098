"""The cells of a suite, each in a process of its own: one that fails or dies never stops the others."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from tasks.bench import attempt, progress
from tasks.bench.attempt import Ended
from tasks.bench.board import Board
from tasks.bench.config import Run
from tasks.bench.errors import CellError, InputError
from tasks.bench.executors._agenda import Agenda
from tasks.bench.store import Stamp, Store

GRACE = 10
"""Seconds that a process has to end when told to."""


def run_all(runs: Sequence[Run], store: Store, jobs: int, board: Board) -> list[str]:
    """Run these cells, so many at a time; the names of those that failed.

    Raises:
        InputError: the store takes no more; what runs by then is waited for.
    """
    context, agenda = _context(runs), Agenda(runs, store, board)
    working: list[Worker] = []
    full: InputError | None = None
    try:
        while working or (agenda and not full):
            while not full and len(working) < jobs and (run := agenda.take()):
                try:
                    store.probe()
                    working.append(Worker.start(context, run, store, agenda.before[run.cell]))
                except InputError as error:
                    full = error
            for worker in _heard(working, board):
                working.remove(worker)
                agenda.end(worker.run, worker.end(store))
    finally:
        for worker in working:
            worker.stop(store)
    if full:
        raise full
    return agenda.failures


@dataclass(eq=False)
class Worker:
    """A process that computes one cell, and what it last said of it."""

    run: Run
    process: Any
    line: Connection
    began: float = field(default_factory=time.monotonic)
    said: Ended | None = None

    @classmethod
    def start(cls, context: Any, run: Run, store: Store, before: Stamp) -> "Worker":
        """Begin to compute a cell."""
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(run, store, before, there), name=run.cell)
        process.start()
        there.close()
        return cls(run, process, here)

    def listen(self, board: Board) -> bool:
        """Take one word from the process; whether there may be more."""
        try:
            word = self.line.recv()
        except (EOFError, OSError):
            return False
        if isinstance(word, Ended):
            self.said = word
        else:
            board.moved(self.run.cell, *word)
        return True

    def end(self, store: Store) -> Ended:
        """How the cell ended; a process that was killed could not say so itself."""
        self.process.join()
        self.line.close()
        if self.said is not None:
            return self.said
        from tasks.bench.cell import failed

        return attempt.given_up(store, failed(self.run, _death(self.process.exitcode)))

    def stop(self, store: Store) -> None:
        """End the process before its cell is finished."""
        from tasks.bench.cell import cancelled

        self.process.terminate()
        self.process.join(GRACE)
        self.process.kill()
        self.process.join()
        attempt.given_up(store, cancelled(self.run, time.monotonic() - self.began))


def _heard(working: Sequence[Worker], board: Board) -> list[Worker]:
    """Pass on what the processes say, for a second; those that will say no more."""
    if not working:
        time.sleep(1)  # until another process has finished what is left
        return []
    ready = wait([end for worker in working for end in (worker.line, worker.process.sentinel)], timeout=1)
    over = [worker for worker in working if _is_over(worker, ready, board)]
    board.tick()
    return over


def _is_over(worker: Worker, ready: Sequence[Any], board: Board) -> bool:
    """A process that died may have spoken before; one that has nothing to say is not over."""
    if worker.line in ready:
        return not worker.listen(board)
    return worker.process.sentinel in ready


def _death(code: int) -> CellError:
    if code >= 0:
        return CellError(f"the process of this cell ended with exit code {code}")
    why = ": the system does so when memory runs out" if code == -9 else ""
    return CellError(f"the process of this cell was killed by signal {-code}{why}")


def _context(runs: Sequence[Run]) -> Any:
    """How processes start: what takes seconds to import is imported once, and each cell is a fork of that."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    backbones = {f"tasks.backbones.{run.choice.backbone}" for run in runs}
    context.set_forkserver_preload([*sorted(backbones), "tasks.bench.executors._ready"])
    return context


def _work(run: Run, store: Store, before: Stamp, line: Connection) -> None:
    _end_with_the_suite()
    progress.send_to(lambda *word: _say(line, word))
    _say(line, attempt.attempt(run, store, before))


def _say(line: Connection, word: Any) -> None:
    try:
        line.send(word)
    except OSError:  # the suite is gone
        os._exit(1)


def _end_with_the_suite() -> None:
    """A cell whose suite is gone must not compute on: the suite that is run again computes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the suite decides
    suite = multiprocessing.parent_process()
    if suite is not None:
        threading.Thread(target=lambda: (suite.join(), os._exit(1)), daemon=True).start()
