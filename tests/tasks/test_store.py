"""The store: whole cells or none, one row each, and a table that can always be derived again."""

import csv
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import time
from pathlib import Path

import pytest

from tasks.bench import durable, sources
from tasks.bench.cell import Cell, cancelled, failed
from tasks.bench.errors import CellError, InputError
from tasks.bench.rows import COLUMNS
from tasks.bench.store import Store


def cell(name: str = "squad-v1.1-roberta-head-s0-0", value: float = 50.0, seed: int = 0) -> Cell:
    config = {
        **{"task": "squad", "dataset": "v1.1", "tier": "mini", "backbone": "roberta", "method": "head", "seed": seed},
        "settings": {"training": {"learning_rate": 0.1}, "task": {}, "method": {}},
    }
    part = {"n": 2, "n_expected": 2, "eval_seconds": 0.5, "empty": 1, "scores": {"f1": [value, None]}}
    facts = {"status": "done", "checkpoint": "c", "device": "cpu", "fingerprint": "f", "train_seconds": 1.0}
    facts |= {"trainable_params": 3}
    records = {"report": [{"id": "ä", "prediction": "x"}, {"id": "b", "prediction": ""}]}
    return Cell(name, config, {"facts": facts, "splits": {"report": part}, "notes": []}, records, {"loss": [1.0]})


def read_csv(store: Store) -> list[dict[str, str]]:
    store.export()
    with (store.root / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_is_derived_and_can_be_derived_again(tmp_path):
    store = Store(tmp_path)
    store.write(cell("b"))
    store.write(cell("a", 60.0))
    store.export()
    before = (tmp_path / "results.csv").read_bytes()
    (tmp_path / "results.csv").unlink()
    store.export()
    assert (tmp_path / "results.csv").read_bytes() == before
    rows = read_csv(store)
    assert [(row["cell"], row["metric"], row["value"], row["stderr"]) for row in rows] == [
        ("a", "f1", "60.0", ""),
        ("b", "f1", "50.0", ""),
    ]
    assert tuple(rows[0]) == COLUMNS
    assert store.records("a", "report")[0] == {"id": "ä", "prediction": "x"}


def test_the_columns_are_those_of_the_contract():
    assert ",".join(COLUMNS) == (
        "cell,task,dataset,split,n,n_expected,tier,backbone,checkpoint,method,seed,metric,value,stderr,"
        "trainable_params,head_params,total_params,train_seconds,eval_seconds,peak_memory_mb,status,selection,protocol,"
        "task_version,commit,dirty,device,versions,settings,learning_rate,grid,trials,n_fit,weights_sha256,fingerprint,"
        "step0_distance,extract_fail,empty,truncated"
    )


def test_equal_cells_are_equal_bytes(tmp_path):
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    for store in (one, other):
        store.write(cell())
        time.sleep(0.01)
    files = sorted(path.relative_to(one.root) for path in one.root.rglob("*") if path.is_file())
    assert len(files) == 4
    assert all((one.root / path).read_bytes() == (other.root / path).read_bytes() for path in files)


def test_a_finished_cell_is_never_replaced_and_a_failed_one_is(tmp_path, small_run):
    store = Store(tmp_path)
    config = small_run()
    store.write(failed(config, CellError("the loss is nan at step 3")))
    assert (store.state(config.cell), store.has(config.cell)) == ("failed", False)
    assert [(row["status"], row["metric"]) for row in read_csv(store)] == [("failed", "")]
    store.write(cell(config.cell, 70.0))
    store.write(cell(config.cell, 80.0))  # another process was faster
    assert [row["value"] for row in read_csv(store)] == ["70.0"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_a_killed_run_was_writing_is_no_cell_and_goes_away(tmp_path):
    store = Store(tmp_path)
    left = tmp_path / ".unfinished-x" / "cell"
    left.mkdir(parents=True)
    file = durable.beside(tmp_path / "results.csv")
    file.touch()
    store.write(cell("a"))
    assert left.exists()  # it could be alive
    for each in (left.parent, file):
        os.utime(each, (0, 0))
    store.write(cell("b"))
    assert not left.parent.exists()
    assert not file.exists()
    assert store.names() == ["a", "b"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_cell_whose_successor_does_not_arrive_comes_back(error, tmp_path, monkeypatch):
    store, rename = Store(tmp_path), Path.rename
    store.write(cell("a", 1.0))

    def moved(path, target):
        if path.name == "cell":
            raise error
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", moved)
        with pytest.raises((KeyboardInterrupt, InputError)):
            store.write(changed(cell("a", 2.0)))
    assert store.rows_of("a")[0]["value"] == 1.0
    assert list(tmp_path.glob(".unfinished-*")) == []
    store.write(changed(cell("a", 2.0)))
    assert store.rows_of("a")[0]["value"] == 2.0


def test_a_cell_that_a_killed_run_had_set_aside_comes_back(tmp_path):
    store = Store(tmp_path)
    for name, value in (("a", 1.0), ("b", 2.0)):
        store.write(cell(name, value))
    left = tmp_path / ".unfinished-x"
    (left / "before").mkdir(parents=True)
    (store.cells / "a").rename(left / "before" / "a")
    shutil.copytree(store.cells / "b", left / "before" / "b")
    (left / "before" / "b" / "result.json").write_text("what b said before")
    os.utime(left, (0, 0))
    store.write(cell("c"))
    assert [row["value"] for row in store.rows()] == [1.0, 2.0, 50.0]
    assert not left.exists()


def changed(made: Cell) -> Cell:
    """As other code makes it."""
    return Cell(made.name, made.config, {**made.result, "code": {"tasks.squad": "new"}}, made.records, made.log)


def test_an_end_gives_way_to_one_that_says_more(tmp_path, small_run):
    store, config = Store(tmp_path), small_run()
    for end in (cancelled(config, 3.0), failed(config, CellError("no"))):
        store.write(end)
        assert store.status(config.cell) == end.result["facts"]["status"]
    store.write(cancelled(config, 3.0))
    assert store.status(config.cell) == "failed"  # its traceback says more
    store.write(failed(config, CellError("no, again")))
    assert store.result(config.cell)["facts"]["error"] == "no, again"
    store.write(cell(config.cell))
    store.write(failed(config, CellError("too late")))
    assert store.status(config.cell) == "done"


def test_a_cell_of_other_code_is_stale_until_it_was_run_again(tmp_path, monkeypatch):
    store = Store(tmp_path)
    one, other = ({"tasks.squad": sources.hash_of("tasks.squad")}, {"tasks.squad": "what it said before"})

    def made_by(code, value):
        made = cell("a", value)
        return Cell(made.name, made.config, {**made.result, "code": code}, made.records, made.log)

    store.write(cell("b"))
    assert (store.state("b"), store.outdated("b")) == ("stale", ["unknown"])
    store.write(made_by(other, 1.0))
    assert (store.state("a"), store.has("a"), store.outdated("a")) == ("stale", True, ["tasks.squad"])
    store.write(made_by(one, 2.0))
    assert (store.state("a"), store.rows_of("a")[0]["value"]) == ("done", 2.0)
    store.write(made_by(one, 3.0))  # another process was slower
    assert store.rows_of("a")[0]["value"] == 2.0


def _hold(store, name, ready, let_go):
    with store.lock(name) as ours:
        ready.put(ours)
        let_go.wait()


def test_a_lock_goes_with_the_process_that_holds_it(tmp_path):
    store, context = Store(tmp_path), multiprocessing.get_context("fork")
    ready, let_go = context.SimpleQueue(), context.Event()
    assert not store.running("a")
    for killed in (False, True):
        let_go.clear()
        process = context.Process(target=_hold, args=(store, "a", ready, let_go))
        process.start()
        assert ready.get()
        assert store.running("a")
        assert store.state("a") == "running"
        with store.lock("a") as ours:
            assert not ours
        os.kill(process.pid, signal.SIGKILL) if killed else let_go.set()
        with store.lock("a", wait=True) as ours:
            assert ours
        process.join()
        assert not store.running("a")
    assert list((tmp_path / ".locks").iterdir()) == []


def test_without_locks_there_is_a_warning_and_one_cell(tmp_path, monkeypatch):
    import errno
    import fcntl

    def unheard(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unheard)
    with pytest.warns(UserWarning, match="without locks"), Store(tmp_path).lock("a") as ours:
        assert ours


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("result.json", "{", "cannot be read"),
        ("result.json", "[]", "holds no object"),
        ("result.json", "[" * 100_000, "cannot be read"),
        ("result.json", "{}", "says no status"),
        ("result.json", '{"facts": {"status": "splendid"}}', "says no status"),
        ("result.json", '{"facts": {"status": "done"}}', "is no cell"),
        ("result.json", '{"facts": {"status": "done"}, "splits": {"report": 3}}', "is no cell"),
        ("config.json", "\udcff", "cannot be read"),
        ("config.json", "{}", "is no cell"),
    ],
)
def test_what_is_no_cell_is_one_sentence(file, text, sentence, tmp_path):
    store = Store(tmp_path)
    store.write(cell("a"))
    (store.cells / "a" / file).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=sentence) as told:
        store.rows()
    assert str(store.cells / "a") in str(told.value)


def test_a_store_travels_without_what_it_has_read(tmp_path):
    store = Store(tmp_path)
    store.write(cell("a"))
    store.rows()
    again = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(again)) == len(pickle.dumps(store)) < 400
    assert again.rows() == store.rows()


def test_records_are_known_by_their_hash(tmp_path):
    import hashlib

    store = Store(tmp_path)
    store.write(cell("a"))
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in store.records("a", "report"))
    assert store.result("a")["sha256"] == {"report": hashlib.sha256(text.encode()).hexdigest()}


def test_stores_can_be_copied_together(tmp_path):
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    one.write(cell("a"))
    other.write(cell("b"))
    shutil.copytree(other.cells, one.cells, dirs_exist_ok=True)
    assert [row["cell"] for row in read_csv(one)] == ["a", "b"]


def test_nothing_is_there_before_the_first_cell(tmp_path):
    store = Store(Path(tmp_path / "none"))
    assert (store.names(), store.rows(), store.state("x")) == ([], [], "missing")
