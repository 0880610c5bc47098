"""The ScienceQA task: its prompt to the letter, who fits and who reports, and what answers become."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks import scienceqa
from tasks._scienceqa_files import Problem
from tasks.bench import task as tasks
from tasks.bench.config import Choice, Run
from tasks.bench.errors import InputError
from tasks.bench.report import tables
from tasks.bench.run import build, run
from tasks.bench.store import Store
from tasks.bench.suite import single
from tasks.metrics.scienceqa_rules import Labels
from tasks.mini import scienceqa as mini
from tasks.outputs.lm import Said
from tests.tasks.conftest import SMALL
from tests.tasks.test_commands import refused, tasks_command
from tests.tasks.test_scienceqa_files import PROBLEM, SHOWN, lay

words = st.lists(st.sampled_from(["heat", " ", "  ", "N/A", "\n", "(B)", "Answer:"]), max_size=5).map("".join)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROINIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def sciences(tmp_path: Path) -> Callable[..., Run]:
    """A tiny cell, with flags and settings of one's own."""

    def make(method: str = "zero_init", settings: dict[str, Any] | None = None, **flags: Any) -> Run:
        usual = SMALL | {"scoring": "both"}  # the mini suite scores by likelihood alone
        return single(Choice("scienceqa", "llama", method, **{"device": "cpu"} | flags), usual | (settings or {}))

    return make


def many(folder: Path, **counts: int) -> Path:
    """The official layout with so many problems of each split, a third of them about pictures."""
    problems = {}
    for split, count in counts.items():
        for number in range(count):
            shown = number % 3 == 0
            pid = f"{split}{number}"
            problems[pid] = (SHOWN if shown else PROBLEM) | {"split": split, "question": f"{pid}?"}
    folder.mkdir(parents=True, exist_ok=True)
    path = lay(folder, problems)
    for place, picture in enumerate(sorted(folder.rglob("*.png"))):
        Image.new("RGB", (8, 8), (place % 256, place // 256, 0)).save(picture)
    return path


def transcribed(problem: Problem, captions: bool, letter: str) -> str:
    """`create_one_example` with the format QCM-A, from its description, of the answer too."""
    context = f"{problem.hint} {problem.caption if captions else ''}".strip()
    lines = [
        "Question: " + problem.question,
        "Context: " + (context if context != "" else "N/A"),
        "Options: " + " ".join("(" + "ABCDE"[i] + ") " + problem.choices[i] for i in range(len(problem.choices))),
        f"Answer: The answer is {letter}.",
    ]
    return "\n".join(lines).replace("  ", " ").strip()


@given(words, words, words, st.lists(words, min_size=2, max_size=5), st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_prompt_is_the_official_one(question, hint, caption, choices, captions):
    problem = Problem("1", "test", question, tuple(choices), 1, hint, caption, None, Labels())
    for style in ("(A)", "A"):
        asked = scienceqa._put(problem, scienceqa.Fields(answer_format=style, captions=captions))
        assert asked.prompt + asked.target == transcribed(problem, captions, style.replace("A", "B"))
        assert [text.strip() for text in asked.options] == [
            f"The answer is {style.replace('A', letter)}." for letter in "ABCDE"[: len(choices)]
        ]


def test_the_prompt_word_by_word():
    problem = Problem("1", "test", "Which  is it?", ("a goat", "a newt"), 0, "Look.", "Hairy.", None, Labels())
    asked = scienceqa._put(problem, scienceqa.Fields(captions=True))
    assert asked.prompt == ("Question: Which is it?\nContext: Look. Hairy.\nOptions: (A) a goat (B) a newt\nAnswer:")
    assert asked.target == " The answer is (A)."


def ids(part: Any) -> set[str]:
    return {asked.id for asked in part}


@pytest.mark.parametrize(("dataset", "counts"), [("text", (8, 4, 6)), ("image", (4, 2, 3)), ("all", (12, 6, 9))])
def test_official_files_keep_their_splits(sciences, tmp_path, dataset, counts):
    many(tmp_path, train=12, val=6, test=9)
    data = tasks.get("scienceqa").load(sciences(data=tmp_path, dataset=dataset))
    assert (len(data.fit), len(data.tune), len(data.report)) == counts
    assert all(name.startswith("train") for name in ids(data.fit))
    assert all(name.startswith("val") for name in ids(data.tune))
    assert all(name.startswith("test") for name in ids(data.report))
    assert (data.expected, data.whole) == (scienceqa.OFFICIAL[dataset][2], False)


def test_questions_without_train_are_divided_by_picture(sciences, tmp_path):
    path = many(tmp_path, test=60)
    twin = (tmp_path / "images/test/test0/image.png").read_bytes()
    (tmp_path / "images/test/test3/image.png").write_bytes(twin)
    loaded = {
        (method, pictures): tasks.get("scienceqa").load(
            sciences(method, {"pictures": pictures}, data=tmp_path, dataset="image")
        )
        for method in ("zero_init", "frozen")
        for pictures in (True, False)
    }
    first = loaded["zero_init", True]
    parts = [ids(part) for part in (first.fit, first.tune, first.report)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 20
    assert all(parts)
    assert sum({"test0", "test3"} <= part for part in parts) == 1
    assert all([ids(part) for part in (data.fit, data.tune, data.report)] == parts for data in loaded.values())
    assert first.expected == 2017
    assert all(asked.image for asked in first.report)
    assert not any(asked.image for asked in loaded["zero_init", False].report)
    whole = tasks.get("scienceqa").load(sciences("frozen", eval=path, dataset="image"))
    assert (len(whole.report), len(whole.fit), whole.expected) == (20, 0, 20)


def test_two_files_fit_and_report(sciences, tmp_path):
    one, other = many(tmp_path / "a", train=9, test=9), many(tmp_path / "b", test=12)
    data = tasks.get("scienceqa").load(sciences(train=one, eval=other))
    assert ids(data.fit) | ids(data.tune) == {f"train{n}" for n in range(9) if n % 3}
    assert data.tune
    assert ids(data.report) == {f"test{n}" for n in range(12) if n % 3}
    assert data.expected == 8
    limited = tasks.get("scienceqa").load(sciences(settings={"report_limit": 3}, train=one, eval=other))
    assert (len(limited.report), len(limited.fit), limited.whole) == (3, len(data.fit), True)
    assert not tasks.get("scienceqa").load(sciences(limit=4, train=one, eval=other)).whole
    assert ids(limited.report) <= ids(data.report)


def test_what_is_not_marked_train_is_divided_so_that_none_is_in_two_parts(sciences, tmp_path):
    one, other = many(tmp_path / "a", val=12, test=12), many(tmp_path / "b", test=12)
    data = tasks.get("scienceqa").load(sciences(settings={"tune_share": 0.5}, train=one, eval=other))
    assert not ids(data.fit) & ids(data.tune)
    assert len(ids(data.fit) | ids(data.tune)) == 16


def test_pictures_that_are_not_wanted_need_not_be_there(sciences, tmp_path):
    path = many(tmp_path, train=6, val=6, test=9)
    problems = json.loads(path.read_text())
    same = {pid: problem | {"question": "Which one?"} for pid, problem in problems.items()}
    path.write_text(json.dumps(same))
    shutil.rmtree(tmp_path / "images")
    data = tasks.get("scienceqa").load(sciences(settings={"pictures": False}, data=tmp_path, dataset="all"))
    assert [len(part) for part in (data.fit, data.tune, data.report)] == [6, 6, 9]
    only = many(tmp_path / "c", test=60)
    shutil.rmtree(tmp_path / "c/images")
    data = tasks.get("scienceqa").load(sciences(settings={"pictures": False}, eval=only, dataset="all"))
    assert sum(len(part) for part in (data.fit, data.tune, data.report)) == 60


def test_captions_are_part_of_the_prompt_and_of_the_cell(sciences, tmp_path):
    many(tmp_path, train=3, val=3, test=6)
    cells = set()
    for caption in ("A goat.", "A newt."):
        (tmp_path / "captions.json").write_text(json.dumps({"captions": {"test0": caption}}))
        config = sciences(settings={"captions": True}, data=tmp_path, dataset="image")
        asked = next(asked for asked in tasks.get("scienceqa").load(config).report if asked.id == "test0")
        assert f"\nContext: {caption}\n" in asked.prompt
        cells.add(config.cell)
    assert len(cells) == 2
    without = sciences(data=tmp_path, dataset="image")
    assert all("\nContext: N/A\n" in asked.prompt for asked in tasks.get("scienceqa").load(without).report)


def test_questions_that_are_trained_on_and_reported_are_counted(sciences, tmp_path):
    path = lay(tmp_path, {"1": PROBLEM, "2": PROBLEM | {"question": "Why?"}, "3": PROBLEM | {"split": "test"}})
    notes = tasks.get("scienceqa").load(sciences(eval=path, settings={"tune_share": 0.5})).notes
    assert notes[0] == "1 questions of the report split are trained on too"


def test_baselines_are_noted(sciences, tmp_path):
    many(tmp_path, train=3, val=3, test=3)
    notes = tasks.get("scienceqa").load(sciences(data=tmp_path)).notes
    assert notes == ["guessing scores 33.3", "the most frequent answer of fit scores 100.0"]


@pytest.mark.parametrize(
    ("settings", "flags", "sentence"),
    [
        ({"dialect": "official"}, {}, "dialect=official cannot read 'The answer is .A..': set answer_format=A too"),
        ({"dialect": "fuzzy"}, {}, "task.dialect is 'fuzzy'"),
        ({"max_new_tokens": 0}, {}, "max_new_tokens is 0: give 1 or more"),
        ({"report_share": 1}, {}, "report_share is 1.0: give a share from 0 up to 1"),
        ({"captions": True}, {"dataset": "image"}, "captions=true, but there are none: put captions.json"),
        ({}, {"data": "."}, "holds no problems.json or problems_text_only.jsonl, packed or not"),
        ({}, {"data": ".", "dataset": "all"}, "holds no problems.json, packed or not: add it"),
    ],
)
def test_what_does_not_fit_is_refused(sciences, tmp_path, monkeypatch, settings, flags, sentence):
    monkeypatch.chdir(tmp_path)
    given = {key: Path(value) if key == "data" else value for key, value in flags.items()}
    with pytest.raises(InputError, match=sentence):
        tasks.get("scienceqa").load(sciences(settings=settings, **given))


def test_a_set_without_such_questions_is_refused(sciences, tmp_path):
    path = lay(tmp_path, {"1": PROBLEM, "2": PROBLEM})
    with pytest.raises(InputError, match=r"none of its questions is of --dataset image"):
        tasks.get("scienceqa").load(sciences(eval=path, dataset="image"))


def answered(text: str, options: tuple[float, ...] = (-1.0, -2.0, -3.0), *, truncated: bool = False) -> Said:
    return Said(text, 0.0, 0, options, truncated, 3)


def test_records_keep_everything_and_metrics_come_from_them_alone(sciences, tmp_path):
    many(tmp_path, train=3, val=3, test=6)
    config, task = sciences(data=tmp_path, dataset="all"), tasks.get("scienceqa")
    report = task.load(config).report
    said = [
        answered("The answer is (B)."),
        answered("The answer is (C).", (-3.0, -0.5, -2.0)),
        answered("The answer is (D)."),
        answered(""),
        answered("The answer is", truncated=True),
        answered("The answer is B because"),
    ]
    records = json.loads(json.dumps(task.records(report, said, config)))
    assert [r["extracted"] for r in records] == [1, 2, None, None, None, 1]
    assert [r["correct"] for r in records] == [True, False, False, False, False, True]
    assert [r["correct_likelihood"] for r in records] == [False, True, False, False, False, False]
    assert [(r["extract_fail"], r["empty"], r["truncated"]) for r in records[2:5]] == [
        (True, False, False),
        (True, True, False),
        (True, False, True),
    ]
    assert records[1]["log_probabilities"] == [-3.0, -0.5, -2.0]
    assert "question" not in json.dumps(records)
    scores = {name: score.value for name, score in task.metrics(records, "all").items()}
    assert scores["accuracy"] == scores["Avg"] == pytest.approx(100 / 3)
    assert scores["accuracy_likelihood"] == pytest.approx(100 / 6)
    assert scores["extract_fail"] == 50.0
    assert (scores["IMG"], scores["TXT"], scores["G1-6_likelihood"]) == (50.0, 25.0, pytest.approx(100 / 6))
    assert "NO" not in scores  # every one has a hint or a picture
    assert task.metrics(records, "all")["accuracy"].stderr == pytest.approx(100 * (8 / 36 * 6 / 5 / 6) ** 0.5)


@pytest.mark.parametrize("scoring", ["generate", "likelihood", "both"])
def test_a_cell_runs_and_its_table_shows_what_was_scored(sciences, tmp_path, scoring):
    config = sciences(settings={"scoring": scoring, "method.length": 2, "report_limit": 6})
    store = Store(tmp_path / "r")
    cell = run(config, store)
    header = tables(store, [cell.name]).splitlines()[2]
    assert " accuracy ↑" in header
    assert ("accuracy_likelihood ↑" in header) == (scoring == "both")  # alone, it is the accuracy
    facts = cell.result["facts"]
    assert facts["protocol"].endswith("likeliest answer" if scoring == "likelihood" else "dialect strict")
    assert (facts["status"], facts["step0_distance"]) == ("partial", 0.0)
    assert (cell.result["splits"]["report"]["extract_fail"] is None) == (scoring == "likelihood")


def test_pictures_condition_their_own_rows_and_can_be_left_out(sciences, tmp_path):
    task = tasks.get("scienceqa")
    fast = {"scoring": "likelihood", "method.length": 2, "report_limit": 6}
    shown, told = (sciences(settings=fast | {"pictures": pictures}, dataset="all") for pictures in (True, False))
    data, tokenizer = task.load(shown), build(shown, "lm").tokenizer
    reader = task.reader(tokenizer, shown)
    batch = reader.collate(reader.ask(data.report))
    features, mask = batch["prompt_condition"]
    assert mask.tolist() == [asked.problem.image is not None for asked in data.report]
    assert mask.any()
    assert not mask.all()
    assert (features.abs().sum((1, 2)) > 0).tolist() == mask.tolist()
    cells = {config: run(config, Store(tmp_path / "r")) for config in (shown, told)}
    trained = {config.task.pictures: cell.result["facts"]["trainable_params"] for config, cell in cells.items()}
    projection = 4 * features.shape[2] * 64 + 64 + 64 * 64 + 64  # to the width of the tiny host, which is 64 too
    assert trained[True] - trained[False] == projection
    assert all(cell.result["facts"]["step0_distance"] == 0.0 for cell in cells.values())
    assert [r["id"] for r in cells[shown].records["report"]] == [r["id"] for r in cells[told].records["report"]]


def test_the_mini_world_has_the_splits_and_columns_of_the_real_one(sciences):
    data = tasks.get("scienceqa").load(sciences(dataset="all"))
    sizes = [len(data.fit), len(data.tune), len(data.report)]
    assert [*sizes, len(data.shift)] == [size for _, size in mini.SIZES.values()]
    assert data.expected == len(data.report)
    labels = [asked.problem.labels for asked in data.report]
    from tasks.metrics.scienceqa_rules import COLUMNS, columns

    assert set(COLUMNS) <= set(columns(labels))
    for asked in [*data.fit, *data.report]:
        problem = asked.problem
        if problem.labels.topic == "geography":
            assert problem.choices[problem.answer] in problem.hint + problem.question
        elif problem.image is not None:
            with Image.open(problem.image) as picture:
                assert picture.size == (64, 64)


def score(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[dict[str, float], str]:
    assert tasks_command("score", "scienceqa", *arguments) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out.splitlines()[-1]), captured.err


def test_score_reads_texts_and_numbers_of_the_test_split(capsys, tmp_path):
    path = many(tmp_path, train=3, test=4)
    said = tmp_path / "said.json"
    said.write_text(json.dumps({"test0": 1, "test1": "The answer is B.", "test2": "The answer is (B)."}))
    arguments = ["--predictions", said, "--references", path]
    scores, told = score(capsys, *arguments)
    assert scores["accuracy"] == scores["Avg"] == 75.0
    assert (scores["IMG"], scores["TXT"], scores["NAT"], scores["extract_fail"]) == (50.0, 100.0, 75.0, 25.0)
    assert told == "1 of 4 questions have no prediction and count as wrong, first 'test3'\n"
    assert score(capsys, *arguments, "--dialect", "llava")[0]["accuracy"] == 50.0
    official = score(capsys, *arguments, "--dialect", "official")[0]
    assert official["extract_fail"] == 50.0
    assert official == score(capsys, *arguments, "--dialect", "official")[0]
    assert score(capsys, *arguments, "--split", "all")[0]["accuracy"] == pytest.approx(300 / 7)


def test_score_takes_json_lines_and_keeps_to_what_they_say(capsys, tmp_path):
    references, said = tmp_path / "x.jsonl", tmp_path / "said.json"
    references.write_text('{"pid": "4", "question": "Is it?", "choices": ["no", "yes"], "answer": 1}\n')
    said.write_text('{"4": "The answer is (B)."}')
    scores, told = score(capsys, "--predictions", said, "--references", references)
    assert (scores, told) == ({"accuracy": 100.0, "Avg": 100.0, "extract_fail": 0.0}, "")


@pytest.mark.parametrize(
    ("said", "options", "sentence"),
    [
        ('{"test9": 1}', [], "the question 'test9' is in no reference: leave it out"),
        ('{"train0": 1}', [], "the question 'train0' is of train, not test: leave it out, or choose --split"),
        ('{"test0": null}', [], "'test0' is null; give a string"),
        ('{"test0": 1, "test0": 2}', [], "the key 'test0' occurs twice"),
        ("[]", [], "this is a list; give an object"),
        ("{}", ["--dialect", "lavin"], "--dialect 'lavin' does not exist: choose one of strict, official, llava"),
        ("{}", ["--split", "val"], "no question is of --split val: choose one of test, train, all"),
    ],
)
def test_score_refuses_what_it_cannot_count(capsys, tmp_path, said, options, sentence):
    path, predictions = many(tmp_path, train=3, test=4), tmp_path / "said.json"
    predictions.write_text(said)
    code = tasks_command("score", "scienceqa", "--predictions", predictions, "--references", path, *options)
    assert sentence in refused(capsys, code)


@pytest.mark.shared
def test_guessing_on_the_real_questions_is_near_the_published_draw(shared, capsys, tmp_path):
    """The paper's "Random" row is one draw: 39.83 over all test questions, 40.08 over those with a picture."""
    folder = shared / "data/scienceqa"
    lines = {}
    for name in ("problems_text_only", "problems_image_test"):
        from tasks._scienceqa_files import problems

        lines[name] = [p for p in problems(folder / f"{name}.jsonl.gz")[0] if p.split == "test"]
    everything = [len(p.choices) for found in lines.values() for p in found]
    from tasks.metrics.scienceqa_rules import chance

    assert len(everything) == 4241
    assert chance(everything) == pytest.approx(39.83, abs=2 * 0.75)
    # The official dialect draws where nothing is said, and so lands there too.
    said = tmp_path / "said.json"
    said.write_text(json.dumps({p.id: "" for p in lines["problems_image_test"]}))
    arguments = ["--predictions", said, "--references", folder / "problems_image_test.jsonl.gz"]
    scores, _ = score(capsys, *arguments, "--dialect", "official")
    assert (
        scores["accuracy"]
        == scores["IMG"]
        == pytest.approx(chance([len(p.choices) for p in lines["problems_image_test"]]), abs=3.2)
    )
    assert scores["extract_fail"] == 100.0
