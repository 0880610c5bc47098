"""Stores of several machines become one; a number that does not follow from its records is found."""

import csv
import gzip
import json
import shutil
from pathlib import Path

import pytest

from tasks.bench.cell import Cell, cancelled, failed
from tasks.bench.config import Run
from tasks.bench.errors import CellError, InputError
from tasks.bench.merge import merge
from tasks.bench.store import Store
from tasks.bench.verify import discrepancies
from tests.tasks.test_commands import refused, tasks_command


def answered(config: Run, right: int = 2, **facts) -> Cell:
    """A cell as `run` makes it, with answers made up here: three, of which so many are right."""
    from tasks.bench import task as tasks
    from tasks.bench.task import faults

    task = tasks.get("squad")
    records = [
        {"id": f"q{n}", "prediction": "x", "answerable": True, "exact": float(hit), "f1": 0.5 + hit / 2, "empty": False}
        for n, hit in enumerate([True] * right + [False] * (3 - right))
    ]
    scores = {name: list(score) for name, score in task.metrics(records, config.dataset).items()}
    part = {"n": 3, "n_expected": 3, "eval_seconds": 1.0, **faults(records), "scores": scores}
    known = {
        **{"status": "done", "checkpoint": "tiny", "trainable_params": 3, "head_params": 1, "total_params": 100},
        **{"train_seconds": 1.0, "peak_memory_mb": 300.0, "selection": "last step", "protocol": "squad v1.1"},
        **{"task_version": 1, "commit": "c", "dirty": False, "device": "cpu", "versions": "python 3", "n_fit": 9},
        **{"weights_sha256": "w", "fingerprint": "f", "step0_distance": 0.0, "grid": None, "trials": 1},
        **{"blind": False, **facts},
    }
    result = {"facts": known, "splits": {"report": part, "fit": part}, "notes": [], "code": {"x": "y"}}
    return Cell(config.cell, config.identity, result, {"report": records, "fit": records}, {"loss": [1.0]})


@pytest.fixture
def two(tmp_path, small_run):
    """Two stores, each with a cell of its own and one that both have."""
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    mine, shared, theirs = (small_run("head", seed=seed) for seed in range(3))
    one.write(answered(mine))
    one.write(answered(shared, train_seconds=3.0, commit="a"))
    other.write(answered(shared, train_seconds=9.0, commit="b"))
    other.write(answered(theirs))
    for store in (one, other):
        store.export()
    return one, other


def snapshot(store: Store) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}


def test_stores_are_joined_and_sources_are_left_alone(two, tmp_path, capsys):
    before = [snapshot(store) for store in two]
    target = Store(tmp_path / "all")
    assert tasks_command("merge", target.root, *(store.root for store in two)) == 0
    assert capsys.readouterr().out == f"{target.root}: 3 cells, 3 of them new\n"
    assert [snapshot(store) for store in two] == before
    assert target.names() == sorted({*two[0].names(), *two[1].names()})
    with (target.root / "results.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 3 * 2 * 2
    assert list(discrepancies(target)) == []
    assert merge(target, two) == []
    assert not list(target.root.glob(".unfinished-*"))


def test_equal_numbers_of_two_machines_are_one_cell(two, small_run):
    one, other = two
    shared, theirs = (small_run("head", seed=seed).cell for seed in (1, 2))
    assert merge(one, [other]) == [theirs]
    assert one.result(shared)["facts"]["commit"] == "a"


def test_different_numbers_of_one_cell_are_refused_by_name(two, small_run, capsys):
    one, other = two
    config = small_run("head", seed=1)
    shutil.rmtree(other.cells / config.cell)
    other.write(answered(config, right=1))
    before = snapshot(one)
    line = refused(capsys, tasks_command("merge", one.root, other.root))
    assert f"{one.cells / config.cell} and {other.cells / config.cell} differ in fit exact_match (66.6" in line
    assert snapshot(one) == before  # the other cell was not brought either


@pytest.mark.parametrize("end", [lambda run: cancelled(run, 2.0), lambda run: failed(run, CellError("no"))])
def test_what_has_no_numbers_gives_way(end, tmp_path, small_run):
    config = small_run("head")
    without, with_numbers = Store(tmp_path / "one"), Store(tmp_path / "other")
    without.write(end(config))
    with_numbers.write(answered(config))
    assert merge(without, [with_numbers]) == [config.cell]
    assert without.has(config.cell)
    third = Store(tmp_path / "third")
    third.write(end(config))
    assert merge(without, [third]) == []
    assert without.has(config.cell)


def test_what_is_no_store_is_refused(two, tmp_path, capsys):
    for command in ("merge", "verify"):
        line = refused(capsys, tasks_command(command, *([two[0].root] * (command == "merge")), tmp_path / "none"))
        assert "none holds no cells: give the folder that --results named" in line


def test_the_files_of_a_cell_alone_are_copied(two):
    one, other = two
    name = next(name for name in other.names() if name not in one.names())
    before = {path.name for path in (other.cells / name).iterdir()} | {"adapter"}
    (other.cells / name / "adapter").mkdir()
    for file in ("sitecustomize.py", "adapter/model.safetensors"):
        (other.cells / name / file).touch()
    merge(one, [other])
    assert {path.name for path in (one.cells / name).iterdir()} == before
    assert (one.cells / name / "adapter/model.safetensors").exists()


def tampered_records(store: Store, name: str) -> str:
    """A wrong answer is declared right."""
    path = store.cells / name / "report.jsonl.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    lines[2] = json.dumps(json.loads(lines[2]) | {"exact": 1.0})
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    return "report: exact_match is 66.6"


def another_answer(store: Store, name: str) -> str:
    path = store.cells / name / "fit.jsonl.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b'"x"', b'"y"', 1)))
    return "fit.jsonl.gz is not what was written: its hash is another"


def a_record_less(store: Store, name: str) -> str:
    path = store.cells / name / "report.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(gzip.decompress(path.read_bytes()).splitlines()[:2]) + b"\n"))
    return "report: n is 3, and 2 from the records"


def half_a_file(store: Store, name: str) -> str:
    path = store.cells / name / "report.jsonl.gz"
    path.write_bytes(path.read_bytes()[:40])
    return "report.jsonl.gz cannot be read"


def no_file(store: Store, name: str) -> str:
    (store.cells / name / "report.jsonl.gz").unlink()
    return "report.jsonl.gz cannot be read"


def edited(file: str, old: str, new: str, sentence: str):
    def edit(store: Store, name: str) -> str:
        path = store.cells / name / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        return sentence

    return edit


@pytest.mark.parametrize(
    "tamper",
    [
        tampered_records,
        another_answer,
        a_record_less,
        half_a_file,
        no_file,
        edited("result.json", "66.66666666666667", "77.0", "report: exact_match is 77.0, and 66.6"),
        edited("result.json", '"empty": 0', '"empty": 1', "report: empty is 1, and 0 from the records"),
        edited("result.json", '"n_expected": 3', '"n_expected": 9', "said to be done, with 3 of 9"),
        edited("result.json", '"fit": {', '"../../fit": {', "'../../fit' is no split"),
        edited("result.json", '"report": {', '"shown": {', "makes no cell (KeyError('report'))"),
        edited("config.json", '"steps": 2', '"steps": 3', "config.json is that of squad-v1.1-roberta-head-s0-"),
        edited("config.json", '"task": "squad"', '"task": "../x"', "config.json is that of ../x"),
        edited("config.json", '"squad"', '"\\u001b[31m"', "config.json is that of \ufffd[31m-v1.1-roberta"),
        edited("result.json", "{", "", "result.json cannot be read"),
    ],
)
def test_whatever_was_tampered_with_is_found(tamper, tmp_path, small_run, capsys):
    store, config = Store(tmp_path), small_run("head")
    store.write(answered(config))
    store.export()
    assert tasks_command("verify", tmp_path) == 0
    assert capsys.readouterr().out == f"{tmp_path}: 1 cells, 0 discrepancies\n"
    sentence = tamper(store, config.cell)
    assert tasks_command("verify", tmp_path) == 1
    captured = capsys.readouterr()
    assert sentence in captured.out
    assert str(store.cells / config.cell) in captured.out
    assert captured.err == ""


def test_a_table_that_its_cells_do_not_give_is_told_by_its_lines(two, small_run):
    one, _ = two
    path = one.root / "results.csv"
    name = small_run("head", seed=0).cell
    lines = path.read_text().splitlines()
    place = next(n for n, line in enumerate(lines) if line.startswith(name) and ",report," in line and ",f1," in line)
    changed = [*lines[:place], lines[place].replace("83.33333333333333", "99.0"), *lines[place + 1 : -1]]
    path.write_text("\n".join([*changed, lines[1].replace(name, "squad-of-nobody")]) + "\n")
    told = list(discrepancies(one))
    assert f"{path}: value of {name} report f1 is 99.0, and 83.33333333333333 in its cell" in told
    assert any(line.startswith(f"{path}: there is no line of squad-") for line in told)
    assert any(line.startswith(f"{path}: no cell gives the line of squad-of-nobody") for line in told)
    assert len(told) == 3
    path.unlink()
    assert list(discrepancies(one)) == []


def test_cells_of_before_records_were_hashed_are_told(two, capsys):
    one, _ = two
    for name in one.names():
        edited("result.json", '"sha256"', '"sha"', "")(one, name)
    assert tasks_command("verify", one.root) == 0
    assert "2 cells are from before records were hashed" in capsys.readouterr().out


def test_an_older_version_of_a_task_cannot_be_recomputed(two, monkeypatch):
    from tasks.bench import task as tasks

    monkeypatch.setattr(type(tasks.get("squad")), "version", 2)
    assert all("version 2 of squad cannot recompute what version 1 found" in line for line in discrepancies(two[0]))
    assert len(list(discrepancies(two[0]))) == 2


def test_a_broken_cell_stops_a_merge_in_one_sentence(two):
    one, other = two
    edited("result.json", "{", "", "")(other, other.names()[0])
    with pytest.raises(InputError, match=r"result\.json cannot be read"):
        merge(one, [other])


def a_link(store: Store, name: str) -> str:
    (store.cells / name / "adapter").mkdir()
    (store.cells / name / "adapter" / "link").symlink_to(store.root)
    return "link is a link"


def a_linked_cell(store: Store, name: str) -> str:
    moved = (store.cells / name).rename(store.root / "elsewhere")
    (store.cells / name).symlink_to(moved)
    return f"{name} is a link"


def half_a_letter_in_bytes(store: Store, name: str) -> str:
    path = store.cells / name / "result.json"
    path.write_bytes(path.read_bytes().replace(b'"last step"', b'"\xed\xa0\x80"'))
    return "result.json cannot be read ('utf-8' codec"


def half_a_letter(store: Store, name: str) -> str:
    edited("result.json", '"last step"', '"\\ud800"', "")(store, name)
    return "result.json cannot be read (it holds half a character)"


@pytest.mark.parametrize("seed", [1, 2])  # a cell that both have, and one that is new
@pytest.mark.parametrize(
    "spoil",
    [
        a_link,
        a_linked_cell,
        half_a_letter,
        half_a_letter_in_bytes,
        edited("result.json", '"splits"', '"splinters"', "is no cell (KeyError('splits'))"),
        edited("result.json", "66.66666666666667,", "66.66666666666667, 1,", "is no cell (ValueError("),
        edited("config.json", '"steps": 2', '"steps": 3', "holds the configuration of squad-v1.1-roberta-head-s"),
        edited("config.json", '"method": "head"', '"method": 3', "is no cell (TypeError("),
    ],
)
def test_what_would_spoil_the_target_is_refused_before_anything_is_copied(spoil, seed, two, small_run, capsys):
    one, other = two
    before = snapshot(one)
    sentence = spoil(other, small_run("head", seed=seed).cell)
    assert sentence in refused(capsys, tasks_command("merge", one.root, other.root))
    assert snapshot(one) == before


def test_a_target_that_is_spoilt_is_one_sentence(two, capsys):
    one, other = two
    edited("result.json", '"splits"', '"splinters"', "")(one, one.names()[0])
    assert "is no cell (KeyError('splits'))" in refused(capsys, tasks_command("merge", one.root, other.root))


def test_a_cell_without_a_number_is_refused(two, small_run, capsys):
    one, other = two
    edited("result.json", "66.66666666666667", "NaN", "")(other, small_run("head", seed=1).cell)
    assert "cannot be read (it holds NaN" in refused(capsys, tasks_command("merge", one.root, other.root))
