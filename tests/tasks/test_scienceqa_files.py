"""ScienceQA's files: every form gives the same problems, and what is wrong is refused with its place."""

import gzip
import json
import tarfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks import _scienceqa_files as files
from tasks.bench.errors import InputError
from tasks.metrics.scienceqa_rules import Labels
from tests.tasks.test_squad_files import json_values, refusal

PROBLEM = {
    "question": "Which is a mammal?",
    "choices": ["trout", "goat", "newt"],
    "answer": 1,
    "hint": "Mammals have hair.",
    "image": None,
    "grade": "grade3",
    "subject": "natural science",
    "topic": "biology",
    "split": "train",
}
SHOWN = PROBLEM | {"hint": "", "image": "image.png", "split": "test"}


def lay(folder: Path, problems: dict[str, Any], **others: Any) -> Path:
    """The official layout; pictures are empty files."""
    for pid, problem in problems.items():
        if isinstance(problem, dict) and problem.get("image"):
            picture = folder / "images" / problem["split"] / pid / "image.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.touch()
    for name, document in {"problems": problems, **others}.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    return folder / "problems.json"


def test_the_official_layout_is_read_whole(tmp_path):
    path = lay(
        tmp_path,
        {"1": PROBLEM, "7": SHOWN},
        pid_splits={"train": ["1"], "test": ["7"], "minitest": ["7"]},
        captions={"captions": {"7": "A goat."}},
    )
    (told, shown), bad = files.problems(path, pictures=True, captions=True)
    assert bad == []
    assert (told.id, told.split, told.choices, told.answer) == ("1", "train", ("trout", "goat", "newt"), 1)
    assert (told.image, told.caption, told.hint) == (None, "", "Mammals have hair.")
    assert told.labels == Labels("natural science", "grade3", "biology", text=True, image=False)
    assert (shown.image, shown.caption) == (tmp_path / "images/test/7/image.png", "A goat.")
    assert shown.labels == Labels("natural science", "grade3", "biology", text=False, image=True)


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_json_lines_give_the_same_problems(tmp_path, name):
    path = lay(tmp_path, {"1": PROBLEM, "7": SHOWN})
    lines = [PROBLEM | {"pid": "1"}, SHOWN | {"pid": "7", "image": "images/test/7/image.png"}]
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert files.problems(tmp_path / name, pictures=True) == files.problems(path, pictures=True)


def test_pictures_in_a_tar_are_unpacked_once(tmp_path, monkeypatch):
    monkeypatch.setenv("ZEROINIT_CACHE", str(tmp_path / "cache"))
    lay(tmp_path / "whole", {"7": SHOWN})
    folder = tmp_path / "packed"
    folder.mkdir()
    (folder / "x.jsonl").write_text(json.dumps(SHOWN | {"pid": "7", "image": "images/test/7/image.png"}))
    with tarfile.open(folder / "images_test.tar", "w") as tar:
        tar.add(tmp_path / "whole/images", "images")
    for _ in range(2):
        (problem,), _ = files.problems(folder / "x.jsonl", pictures=True)
        assert problem.image is not None
        assert problem.image.is_relative_to(tmp_path / "cache")
    (folder / "images_test.tar").write_bytes(b"no tar")
    with pytest.raises(InputError, match=r"images_test.tar: this cannot be unpacked .*; give it whole, or unpacked"):
        files.problems(folder / "x.jsonl", pictures=True)


def test_labels_that_no_file_gives_are_unknown(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"pid": "4", "question": "Is it?", "choices": ["no", "yes"], "answer": 0}')
    (problem,), _ = files.problems(path)
    assert problem.labels == Labels()
    assert (problem.split, problem.hint, problem.image) == ("test", "", None)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"answer": 3}, "the answer is 3; give the number of an option, 0 to 2"),
        ({"answer": -1}, "the answer is -1; give the number of an option"),
        ({"answer": "B"}, "'answer' is a string; give a whole number"),
        ({"answer": True}, "'answer' is true; give a whole number"),
        ({"choices": ["only"], "answer": 0}, "1 options; give 2 to 5"),
        ({"choices": list("abcdef")}, "6 options; give 2 to 5"),
        ({"choices": ["a", 2]}, "'choices' holds a number; give strings alone"),
        ({"question": " "}, "the question is empty; give its text"),
        ({"split": "dev"}, "the split 'dev' is not known; give one of train, val, test"),
        ({"grade": "grade13"}, "the grade 'grade13' is not known"),
        ({"subject": "art"}, "the subject 'art' is not known"),
        ({"split": "val"}, "its split is 'val', but pid_splits.json says 'train'; correct one"),
        ({"image": 3}, "'image' is a number; give a string"),
        ({"image": "lost.png"}, "images/train/2/lost.png is not there; add it"),
    ],
)
def test_a_bad_problem_is_named_or_left_out(tmp_path, change, sentence):
    path = lay(tmp_path, {"1": PROBLEM}, pid_splits={"train": ["1", "2"]})
    path.write_text(json.dumps({"1": PROBLEM, "2": PROBLEM | change, "3": PROBLEM | {"split": "test"}}))
    with pytest.raises(InputError) as caught:
        files.problems(path, pictures=True)
    assert str(caught.value).startswith(f"{path}: 2: ")
    assert sentence in str(caught.value)
    assert "pass --skip-bad N" in str(caught.value)
    kept, bad = files.problems(path, skip_bad=1, pictures=True)
    assert ([problem.id for problem in kept], len(bad)) == (["1", "3"], 1)


def test_a_damaged_picture_is_left_out_with_its_problem(tmp_path):
    path = lay(tmp_path, {"7": SHOWN, "8": SHOWN})
    Image.new("RGB", (8, 8)).save(tmp_path / "images/test/8/image.png")
    kept, bad = files.problems(path, skip_bad=1, pictures=True)
    assert [problem.id for problem in kept] == ["8"]
    assert bad[0].startswith(str(tmp_path / "images/test/7/image.png"))
    assert len(files.problems(path, skip_bad=1)[0]) == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[]", "this is a list; give an object"),
        ("{}", "there is no usable problem; give ScienceQA's problems.json"),
        ('{"1": 3}', "1: this is a number; give an object"),
        ('{"1": {}, "1": {}}', "the key '1' occurs twice"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, text, sentence):
    path = tmp_path / "problems.json"
    path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        files.problems(path)


def test_a_pid_twice_is_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(2 * (json.dumps(PROBLEM | {"pid": "1"}) + "\n"))
    with pytest.raises(InputError, match=r"x.jsonl: line 2: the pid '1' occurs twice; keep one of them"):
        files.problems(path)


def test_whole_splits_have_the_official_sizes(tmp_path):
    numbers = iter(range(100_000))
    lists = {name: [str(next(numbers)) for _ in range(files.SIZES[name])] for name in files.SPLITS}
    path = lay(tmp_path, {"0": PROBLEM}, pid_splits=lists | {"minitest": lists["test"][:424]})
    assert len(files.problems(path)[0]) == 1
    lay(tmp_path, {"0": PROBLEM}, pid_splits=lists | {"minitest": lists["test"][:425]})
    with pytest.raises(InputError, match="minitest has 425 problems, not 424; give the official file"):
        files.problems(path)
    lay(tmp_path, {"0": PROBLEM}, pid_splits={"train": ["0"], "test": ["0"]})
    with pytest.raises(InputError, match="the pid '0' is in train and in test; keep it in one of them"):
        files.problems(path)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_one_damaged_value_is_refused_or_skipped_but_never_crashes(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "problems.json"
    document: Any = {"1": PROBLEM, "2": dict(PROBLEM)}
    key = data.draw(st.sampled_from([None, *PROBLEM]))
    damage = data.draw(json_values)
    document["2"] = damage if key is None else PROBLEM | {key: damage}
    path.write_text(json.dumps(document))
    sentence = refusal(partial(files.problems, path))
    assert sentence is None or (sentence.startswith(str(path)) and "\n" not in sentence)
    kept, bad = files.problems(path, skip_bad=1)
    assert len(kept) + len(bad) == 2
    assert all(problem.answer in range(len(problem.choices)) for problem in kept)


def test_the_hub_gives_the_same_problems_as_the_files(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setenv("ZEROINIT_CACHE", str(tmp_path))
    rows = [
        {**PROBLEM, "image": None},
        {**SHOWN, "image": {"bytes": b"a picture", "path": "image.png"}},
    ]

    class Split(list):
        def cast_column(self, column: str, feature: datasets.Image) -> list:
            assert (column, feature.decode) == ("image", False)
            return self

    asked = []
    whole = {"train": Split(rows[:1]), "validation": Split(), "test": Split(rows[1:])}
    monkeypatch.setattr(datasets, "load_dataset", lambda name: asked.append(name) or whole)
    told, shown = files.from_hub(pictures=True)
    assert asked == ["derek-thomas/ScienceQA"]
    (expected, _), _ = files.problems(lay(tmp_path, {"train-0": PROBLEM, "test-0": SHOWN}))
    assert told == expected
    assert shown.image is not None
    assert shown.image.read_bytes() == b"a picture"
    assert (shown.id, shown.labels.image, shown.labels.text) == ("test-0", True, False)


def test_a_cache_that_takes_no_picture_is_one_sentence(monkeypatch, tmp_path):
    import datasets

    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("ZEROINIT_CACHE", str(tmp_path / "cache"))
    rows = [{**PROBLEM, "image": {"bytes": b"a picture"}}]
    splits = {name: SimpleNamespace(cast_column=lambda *_: rows) for name in ("train", "validation", "test")}
    monkeypatch.setattr(datasets, "load_dataset", lambda name: splits)
    with pytest.raises(InputError, match=r"scienceqa-pictures cannot be written .*: make room there"):
        files.from_hub(pictures=True)


def test_without_the_hub_the_remedy_is_named(monkeypatch):
    import datasets

    def unreachable(name: str) -> None:
        raise ConnectionError(f"Couldn't reach {name!r} on the Hub\nmore")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(InputError, match=r"ScienceQA is neither given .*: pass --data FOLDER"):
        files.from_hub()


@pytest.mark.shared
def test_real_files_are_as_the_official_splits_say(shared: Path):
    folder = shared / "data/scienceqa"
    text, bad = files.problems(folder / "problems_text_only.jsonl.gz")
    shown, worse = files.problems(folder / "problems_image_test.jsonl.gz")
    assert (bad, worse) == ([], [])
    splits = json.loads((folder / "pid_splits.json").read_text())
    assert {name: len(pids) for name, pids in splits.items()} == files.SIZES
    for name, count in {"train": 6508, "val": 2144, "test": 2224}.items():
        mine = {problem.id for problem in text if problem.split == name}
        assert len(mine) == count
        assert mine <= set(splits[name])
    asked = [problem.id for problem in [*text, *shown] if problem.split == "test"]
    assert len(asked) == len(set(asked)) == 4241
    assert set(asked) == set(splits["test"])
    captions = json.loads(gzip.decompress((folder / "captions.json.gz").read_bytes()))["captions"]
    assert all(problem.caption == captions[problem.id] for problem in shown)
