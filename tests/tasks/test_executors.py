"""Cells in processes of their own: some die, some are another suite's, some find the disk full; the suite goes on."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from tasks.bench import attempt, progress
from tasks.bench.attempt import Ended
from tasks.bench.board import Board
from tasks.bench.cell import cancelled, failed
from tasks.bench.config import Run
from tasks.bench.errors import CellError, InputError
from tasks.bench.executors import local
from tasks.bench.executors._agenda import Agenda
from tasks.bench.store import Store
from tests.tasks.test_store import cell


@pytest.fixture
def runs(small_run) -> list[Run]:
    first = small_run("head")
    return [replace(first, choice=replace(first.choice, seed=seed)) for seed in range(4)]


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "r")


@pytest.fixture
def computing(monkeypatch):
    """Forks that do something quick for a cell, under its lock."""

    def instead(compute: Callable[[Run, Store], Ended]) -> None:
        monkeypatch.setattr(local, "_context", lambda runs: multiprocessing.get_context("fork"))
        monkeypatch.setattr(attempt, "_computed", compute)

    return instead


def keep(run: Run, store: Store) -> Ended:
    store.write(cell(run.cell))
    return Ended("done", "f1 50.0")


def board(runs: list[Run]) -> Board:
    return Board({run.cell: 1.0 for run in runs})


def test_one_that_dies_is_failed_and_the_others_are_done(runs, store, computing, capsys):
    def compute(run: Run, store: Store) -> Ended:
        if run.choice.seed == 1:
            os._exit(9)
        if run.choice.seed == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return keep(run, store)

    computing(compute)
    assert sorted(local.run_all(runs, store, 2, board(runs))) == sorted(run.cell for run in runs[1:3])
    assert [store.status(run.cell) for run in runs] == ["done", "failed", "failed", "done"]
    said = capsys.readouterr().err
    assert "the process of this cell ended with exit code 9" in said
    assert "the process of this cell was killed by signal 9: the system does so when memory runs out" in said
    assert not any(store.running(run.cell) for run in runs)


def test_never_more_than_so_many_at_a_time_and_each_tells_how_far_it_is(runs, store, computing):
    def compute(run: Run, store: Store) -> Ended:
        begun = time.monotonic()
        for _ in progress.progress(range(3), "train"):
            time.sleep(0.3)
        (store.root / f"time-{run.choice.seed}").write_text(f"{begun} {time.monotonic()}")
        return keep(run, store)

    told: list[tuple[str, str, int, int]] = []

    class Listening(Board):
        def moved(self, cell: str, what: str, done: int, total: int) -> None:
            told.append((cell, what, done, total))

    computing(compute)
    assert local.run_all(runs, store, 2, Listening({run.cell: 1.0 for run in runs})) == []
    assert {run.cell for run in runs} == {cell for cell, *_ in told}
    assert {(what, total) for _, what, _, total in told} == {("train", 3)}
    assert {done for _, _, done, _ in told} == {0, 2}
    times = [tuple(map(float, path.read_text().split())) for path in store.root.glob("time-*")]
    assert max(sum(begun <= each < ended for begun, ended in times) for each, _ in times) == 2


def _end_with_one_if_cuda_is_spoilt() -> None:
    sys.exit(int(torch._C._cuda_isInBadFork()))


def test_what_cells_are_forked_from_has_not_asked_for_a_gpu(runs):
    """CUDA refuses to begin in a fork of a process that has asked for it: each cell on a GPU would fail."""
    process = local._context(runs).Process(target=_end_with_one_if_cuda_is_spoilt)
    process.start()
    process.join()
    assert process.exitcode == 0


def test_two_suites_in_one_folder_share_the_work(runs, store, computing):
    def compute(run: Run, store: Store) -> Ended:
        time.sleep(0.5)
        (store.root / f"computed-{run.choice.seed}-{os.getpid()}").touch()
        return keep(run, store)

    computing(compute)
    ends: list[list[str]] = []

    def suite(order: list[Run]) -> None:
        ends.append(local.run_all(order, Store(store.root), 1, board(order)))

    both = [threading.Thread(target=suite, args=(order,)) for order in (runs, runs[::-1])]
    for each in both:
        each.start()
    for each in both:
        each.join(60)
    assert ends == [[], []]
    assert len(list(store.root.glob("computed-*"))) == len(runs)
    assert store.names() == sorted(run.cell for run in runs)


def _elsewhere(store: Store, name: str, ready, end: Callable[[], None]) -> None:
    with store.lock(name):
        ready.set()
        time.sleep(1)
        end()


@pytest.mark.parametrize(
    ("end", "computed", "failures"),
    [
        (lambda store, run: store.write(cell(run.cell)), 0, 0),
        (lambda store, run: store.write(failed(run, CellError("no"))), 0, 1),
        (lambda store, run: store.write(cancelled(run, 1.0)), 1, 0),
        (lambda store, run: os._exit(9), 1, 0),
    ],
)
def test_what_becomes_of_a_cell_elsewhere(end, computed, failures, runs, store, computing):
    def compute(run: Run, store: Store) -> Ended:
        (store.root / "computed").touch()
        return keep(run, store)

    computing(compute)
    context, run = multiprocessing.get_context("fork"), runs[0]
    ready = context.Event()
    other = context.Process(target=_elsewhere, args=(store, run.cell, ready, lambda: end(store, run)))
    other.start()
    ready.wait()
    assert len(local.run_all([run], store, 1, board([run]))) == failures
    other.join()
    assert (store.root / "computed").exists() == bool(computed)
    assert store.has(run.cell) != bool(failures)


def test_a_disk_that_is_full_begins_nothing_and_waits_for_what_runs(runs, store, computing, monkeypatch):
    def probe(self: Store) -> None:
        if began:
            raise InputError("there is no room")
        began.append(1)

    def compute(run: Run, store: Store) -> Ended:
        time.sleep(0.5)
        return keep(run, store)

    began: list[int] = []
    monkeypatch.setattr(Store, "probe", probe)
    computing(compute)
    with pytest.raises(InputError, match="there is no room"):
        local.run_all(runs, store, 2, board(runs))
    assert store.names() == [runs[0].cell]
    assert store.has(runs[0].cell)


def test_what_was_finished_elsewhere_meanwhile_is_not_computed_again(runs, store):
    agenda = Agenda(runs[:1], store, board(runs))
    run = agenda.take()
    store.write(cell(run.cell))
    agenda.end(run, Ended(attempt.ELSEWHERE, "another process computes it"))
    assert agenda.take() is None
    assert not agenda
    assert agenda.board.over == 1


def test_what_ran_when_the_user_stopped_is_cancelled_and_nothing_runs_on(runs, store, computing, monkeypatch):
    def compute(run: Run, store: Store) -> Ended:
        time.sleep(60)
        return keep(run, store)

    class Impatient(Board):
        def tick(self) -> None:
            raise KeyboardInterrupt

    computing(compute)
    with pytest.raises(KeyboardInterrupt):
        local.run_all(runs, store, 2, Impatient({run.cell: 1.0 for run in runs}))
    assert [store.status(run.cell) for run in runs] == ["cancelled", "cancelled", "missing", "missing"]
    assert "stopped after" in store.result(runs[0].cell)["facts"]["error"]
    assert not any(store.running(run.cell) for run in runs)


def test_an_error_is_its_cells_alone_with_its_traceback(runs, store, monkeypatch):
    def broken(run: Run, store: Store) -> None:
        raise RuntimeError("out of ideas")

    monkeypatch.setattr("tasks.bench.run.run", broken)
    end = attempt.attempt(runs[0], store, None)
    assert (end.status, end.told) == ("failed", "failed: RuntimeError: out of ideas")
    log = (store.cells / runs[0].cell / "log.json").read_text()
    assert "Traceback" in log
    assert "in broken" in log


def test_a_cell_that_changed_since_is_not_computed_again(runs, store, monkeypatch):
    monkeypatch.setattr("tasks.bench.run.run", lambda run, store: pytest.fail("computed again"))
    store.write(cell(runs[0].cell))
    assert attempt.attempt(runs[0], store, None).told == "f1 50.0"
