"""The cells of a suite, each in a process of its own: one that fails or dies never stops the others."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import wait
from typing import Any

from tasks.bench.config import Run
from tasks.bench.store import Store


def run_all(runs: Sequence[Run], store: Store, jobs: int) -> list[str]:
    """Run these cells, so many at a time; the names of those that failed."""
    context = _context(runs)
    waiting, working, failures = list(runs), {}, []
    began = time.monotonic()
    try:
        while waiting or working:
            while waiting and len(working) < jobs:
                run = waiting.pop(0)
                process = context.Process(target=_work, args=(run, store, jobs > 1), name=run.cell)
                process.start()
                working[process.sentinel] = (process, run)
            for sentinel in wait(list(working)):
                process, run = working.pop(sentinel)
                process.join()
                if not store.has(run.cell):
                    failures.append(run.cell)
                    _note_death(store, run, process.exitcode)
                finished = len(runs) - len(waiting) - len(working)
                left = (time.monotonic() - began) / finished * (len(runs) - finished)
                note = f", about {left:.0f} s left" if finished < len(runs) else ""
                print(f"[{finished}/{len(runs)}] {run.cell}: {outcome(store, run.cell)}{note}", file=sys.stderr)
    finally:
        for process, _ in working.values():
            process.terminate()
    return failures


def _context(runs: Sequence[Run]) -> Any:
    """How processes start: what takes seconds to import is imported once, and each cell is a fork of that."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tasks.bench.run", *{f"tasks.backbones.{run.choice.backbone}" for run in runs}])
    return context


def outcome(store: Store, name: str) -> str:
    """A cell's headline numbers, or why there are none."""
    result = store.result(name)
    if result["facts"]["status"] == "failed":
        return f"failed: {result['facts']['error']}"
    scores = result["splits"]["report"]["scores"]
    numbers = ", ".join(f"{metric} {value:.1f}" for metric, (value, _) in list(scores.items())[:2])
    return "; ".join([numbers, *result["notes"]])


def _work(run: Run, store: Store, quiet: bool) -> None:
    _end_with_the_suite()
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"
    from tasks.bench.cell import failed
    from tasks.bench.run import run as run_cell

    try:
        run_cell(run, store)
    except Exception as error:  # whatever it is, it belongs to this cell alone
        store.write(failed(run, error))


def _end_with_the_suite() -> None:
    """A cell whose suite is gone must not compute on: the suite that is run again computes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the suite decides
    suite = multiprocessing.parent_process()
    if suite is not None:
        threading.Thread(target=lambda: (suite.join(), os._exit(1)), daemon=True).start()


def _note_death(store: Store, run: Run, code: int | None) -> None:
    """A process that was killed could not say so itself."""
    if store.state(run.cell) == "missing":
        from tasks.bench.cell import failed
        from tasks.bench.errors import CellError

        store.write(failed(run, CellError(f"the process of this cell ended with exit code {code}")))
