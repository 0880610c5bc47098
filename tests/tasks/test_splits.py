"""Splits never share a group, and stay where they are whatever the order."""

import json
import random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.bench import discover, splits
from tasks.bench import task as tasks
from tasks.bench.config import Choice
from tasks.bench.suite import single
from tasks.mini import coco_caption, instruct, scienceqa, squad, vtab

grouped = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers()), max_size=40, unique=True)


@given(grouped, st.floats(0, 0.99))
def test_no_group_is_divided(examples, share):
    part, rest = splits.divide(examples, lambda e: e[0], share)
    assert sorted(part + rest) == sorted(examples)
    assert not {e[0] for e in part} & {e[0] for e in rest}
    assert rest or not examples
    if share and len({e[0] for e in examples}) > 1:
        assert part


@given(grouped, st.integers(0, 9))
def test_the_order_of_examples_changes_nothing(examples, seed):
    shuffled = random.Random(seed).sample(examples, len(examples))
    assert sorted(splits.divide(examples, lambda e: e[0], 0.3)[0]) == sorted(
        splits.divide(shuffled, lambda e: e[0], 0.3)[0]
    )


def test_a_known_division_stays():
    titles = [f"article {n}" for n in range(20)]
    part, _ = splits.divide(titles, str, 0.1)
    assert part == ["article 0", "article 9"]


@given(st.integers(0, 30), st.integers(0, 30))
def test_a_smaller_sample_is_part_of_a_larger_one(one, other):
    examples = [SimpleNamespace(id=str(n)) for n in range(25)]
    small, large = ([e.id for e in splits.sample(examples, size)] for size in sorted((one, other)))
    assert set(small) <= set(large)
    assert large == sorted(large, key=int)
    assert len(large) == min(25, max(one, other))


def test_fit_tune_and_report_share_no_article(small_run):
    run = small_run(settings={"tune_share": 0.4})
    from tasks.squad import Squad

    data = Squad().load(run)
    titles = [{q.title for q in part} for part in (data.fit, data.tune, data.report)]
    assert all(titles)
    assert len(set.union(*titles)) == sum(map(len, titles))
    assert data.expected == 30 > len(data.report)


def test_an_eval_file_is_reported_whole(small_run, training_file):
    from tasks.squad import Squad

    data = Squad().load(small_run(train=training_file))
    assert len(data.report) == data.expected == 30
    assert {q.title for q in data.fit}.isdisjoint({q.title for q in data.tune})
    assert not data.notes
    limited = Squad().load(small_run(train=training_file, limit=5))
    assert [len(part) for part in (limited.fit, limited.tune, limited.report)] == [5, 5, 5]
    assert limited.expected == 30


def test_one_file_under_both_flags_is_divided_all_the_same(small_run, squad_file, tmp_path):
    from tasks.squad import Squad

    copy = tmp_path / "copy.json"
    copy.write_bytes(squad_file.read_bytes())
    assert Squad().load(small_run(train=copy)) == Squad().load(small_run())


def test_passages_on_both_sides_are_noted(small_run, squad_file, tmp_path):
    from tasks.squad import Squad

    other = tmp_path / "other.json"
    other.write_text(squad_file.read_text() + "\n")
    assert Squad().load(small_run(train=other)).notes == ["6 passages of the report split are trained on too"]


def test_a_frozen_model_is_judged_on_the_whole_of_one_file(small_run):
    from tasks.squad import Squad

    data = Squad().load(small_run("frozen"))
    assert (len(data.fit), len(data.report), data.expected) == (0, 30, 30)


def _one_file(task, folder):
    """A task's own kind of file, in which nothing is divided yet."""
    if task == "scienceqa":
        problems = json.loads((scienceqa.folder() / "problems.json").read_text())
        undivided = {key: problem | {"split": ""} for key, problem in problems.items() if problem["image"] is None}
        path = folder / "problems.json"
        path.write_text(json.dumps(undivided))
        return path
    return {
        "squad": lambda: squad.folder() / "dev-v1.1.json",
        "instruct": lambda: instruct.folder() / "alpaca_data_eval.json",
        "coco_caption": lambda: coco_caption.folder() / "captions_val2017.json",
        "vtab": lambda: vtab.pack("svhn") / "val200.txt",
    }[task]()


@pytest.mark.parametrize("task", discover.names("task"))
def test_one_file_is_divided_alike_for_what_trains_and_what_does_not(task, tmp_path):
    """Else their numbers, side by side in a table, would be of different examples."""
    path, backbone = _one_file(task, tmp_path), {"squad": "roberta", "vtab": "vit"}.get(task, "llama")
    dataset = "svhn" if task == "vtab" else None

    def load(method, **flags):
        run = single(Choice(task, backbone, method, "mini", dataset, **flags), {})
        data = tasks.get(task).load(run)
        return [example.id for example in data.report], data

    trained, data = load("zero_init", train=path)
    assert data.fit
    assert 0 < len(trained) < data.expected
    assert load("oracle", train=path)[0] == trained == load("zero_init", eval=path)[0]
    judged, data = load("oracle", eval=path)  # nothing is fitted: a saved adapter, a model as it is, on all of a file
    assert set(trained) < set(judged)
    assert not data.fit
