"""A suite in its store: which cells run, what they will take, and what is said of stale ones."""

from dataclasses import replace

import pytest

from tasks.bench.attempt import Ended
from tasks.bench.cell import Cell, cancelled, failed
from tasks.bench.config import Run
from tasks.bench.errors import CellError
from tasks.bench.estimate import estimates
from tasks.bench.planned import Planned
from tasks.bench.sources import hash_of
from tasks.bench.store import Store
from tasks.bench.suite import plan, read, single
from tests.tasks.test_merge_verify import answered


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "r")


def made(run: Run, code=None, **facts) -> Cell:
    """A finished cell whose code is today's, unless said."""
    cell = answered(run, **facts)
    return replace(cell, result={**cell.result, "code": code or {"tasks": hash_of("tasks")}})


@pytest.fixture
def planned(store, small_run) -> Planned:
    """A cell in every state but `running`."""
    runs = [small_run("head", seed=seed) for seed in range(6)]
    store.write(made(runs[0]))
    store.write(made(runs[1], status="partial"))
    store.write(made(runs[2], code={"tasks.squad": "what it said before"}))
    store.write(failed(runs[3], CellError("no")))
    store.write(cancelled(runs[4], 1.0))
    return Planned("six", runs, store)


STATES = ["done", "partial", "stale", "failed", "cancelled", "missing"]


def test_the_overview_tells_states_and_time(planned):
    with planned.store.lock(planned.runs[5].cell):
        lines = planned.overview().splitlines()
    assert [line.split()[0] for line in lines[:6]] == [*STATES[:5], "running"]
    assert [line.split()[-1] for line in lines[:6]] == [run.cell for run in planned.runs]
    assert lines[7] == "6 cells: 1 cancelled, 1 done, 1 failed, 1 partial, 1 running, 1 stale; to do: 9 s for 3"


@pytest.mark.parametrize(("rerun", "again"), [("none", STATES[4:]), ("failed", STATES[3:]), ("stale", STATES[2:])])
def test_what_is_run_again(rerun, again, planned):
    ran: list[str] = []

    def run_all(runs, store, jobs, board):
        ran.extend(STATES[run.choice.seed] for run in runs)
        for run in runs:
            board.ended(run.cell, Ended("done", ""))
        return []

    planned.run(run_all, 1, rerun)
    assert ran == again


def test_stale_cells_are_used_and_named(planned, capsys):
    code = planned.run(lambda runs, store, jobs, board: [planned.runs[3].cell], 1, "failed")
    assert code == 1
    captured = capsys.readouterr()
    stale = planned.runs[2].cell
    assert f"Of other code than today's, to be run again by --rerun stale: {stale}\n" in captured.out
    assert "1 cells are stale, their code has changed since: tasks.squad" in captured.err
    assert f"1 of 6 cells failed: {planned.runs[3].cell}" in captured.err
    assert (planned.store.root / "six.md").read_text() == captured.out
    for run, why in zip(planned.runs[3:5], ("no", "stopped after 1 s"), strict=True):
        assert f"- {run.cell}: {why}" in captured.out
    assert (planned.store.root / "results.csv").is_file()


def test_what_cells_name_is_told_without_escapes(planned, capsys):
    run = planned.runs[5]
    planned.store.write(made(run, code={"\x1b[31mred": "x"}, fingerprint="\x1b[31mblue"))
    planned.run(lambda *_: [], 1, "failed")
    captured = capsys.readouterr()
    assert "changed since: \ufffd[31mred, tasks.squad\n" in captured.err
    assert captured.out.startswith("There are no tables: ")
    assert "\ufffd\\[31mblue" in captured.out


def test_a_suite_that_is_stopped_leaves_its_table(planned):
    def run_all(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        planned.run(run_all, 1, "failed")
    assert (planned.store.root / "results.csv").is_file()


def test_a_cell_takes_as_long_as_those_like_it_by_examples(store, small_run):
    short = small_run("head", settings={"steps": 10, "batch_size": 4})
    long = small_run("head", seed=1, settings={"steps": 30, "batch_size": 8})
    other = small_run("zero_init")
    assert estimates([long], store) == {long.cell: None}
    # 8 s in all, of which 2 s trained 40 examples: 240 take 12 s, and the other 6 s stay.
    store.write(answered(short, seconds=8.0, train_seconds=2.0, n_fit=40))
    assert estimates([long, other], store) == {long.cell: pytest.approx(18.0), other.cell: None}
    epochs = small_run("head", settings={"epochs": 3, "batch_size": 4})
    assert estimates([epochs], store) == {epochs.cell: pytest.approx(6 + 120 * 0.05)}
    grid = small_run("head", settings={"steps": 10, "batch_size": 4, "grid": [0.1, 0.2]})
    assert estimates([grid], store) == {grid.cell: pytest.approx(6 + 3 * 2.0)}


def test_a_data_set_is_estimated_by_its_own_cells_first(store, small_run):
    one, other = small_run("head"), small_run("head", dataset="v2.0")
    store.write(answered(one, seconds=8.0, train_seconds=0.0, n_fit=40))
    assert estimates([other], store) == {other.cell: 8.0}
    wider = replace(answered(one), name=other.cell, config=other.identity)
    store.write(replace(wider, result={**wider.result, "facts": {**wider.result["facts"], "seconds": 99.0}}))
    assert estimates([other], store) == {other.cell: pytest.approx(99.0, abs=2)}


def test_a_plan_names_each_seed_as_its_own_command_does():
    for run in plan(read("mini"), {}, {}, {"task": "vtab", "method": "lora"}):
        assert run.identity == single(run.choice, {}).identity
