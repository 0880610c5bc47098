"""SQuAD files: what is read is right, and what is wrong is refused in one sentence with its place."""

import gzip
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import _squad_files as files
from tasks.bench.documents import Entry, read_json
from tasks.bench.errors import InputError
from tasks.mini import squad

scalars = st.none() | st.booleans() | st.integers(-3, 40) | st.floats(allow_nan=False) | st.text(max_size=6)
json_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "title", "paragraphs", "context", "qas", "answers", "id", "text", "answer_start"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def read(document: Any, dataset: str = "v1.1", skip_bad: int = 0) -> list[files.Question]:
    return files.questions(Entry(document, "f.json"), dataset, skip_bad)[0]


def refusal(read_it: Callable[[], object]) -> str | None:
    """The sentence of a refusal, None where it was read; any other error passes."""
    try:
        read_it()
    except InputError as error:
        return str(error)
    return None


@given(json_values, st.sampled_from([0, 1, 99]))
@settings(max_examples=200, deadline=None)
def test_any_json_is_read_or_refused(value, skip_bad):
    for document in (value, {"data": value}, {"data": [{"paragraphs": value}]}):
        for read_it in (partial(files.questions, dataset="v2.0", skip_bad=skip_bad), files.golds):
            sentence = refusal(partial(read_it, Entry(document, "f.json")))
            assert sentence is None or (sentence.startswith("f.json") and "\n" not in sentence)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_one_damaged_value_is_refused_or_skipped_but_never_crashes(data):
    document = json.loads(json.dumps(squad.document("fit", 4, seed=3)))
    spot: Any = document
    while True:
        keys = sorted(spot) if isinstance(spot, dict) else range(len(spot))
        key = data.draw(st.sampled_from(list(keys)))
        if not isinstance(spot[key], dict | list) or not spot[key] or data.draw(st.booleans()):
            break
        spot = spot[key]
    spot[key] = data.draw(json_values)
    for skip_bad in (0, 1, 99):
        try:
            found = read(document, "v2.0", skip_bad)
        except InputError:
            continue
        for q in found:
            for text, start in zip(q.answers, q.starts, strict=True):
                assert q.context[start : start + len(text)] == text


@given(st.binary(max_size=200), st.sampled_from(["x.json", "x.json.gz"]))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path_factory, content, name):
    path = tmp_path_factory.mktemp("bytes") / name
    path.write_bytes(content)
    sentence = refusal(lambda: read_json(path))
    assert sentence is None or str(path) in sentence


def test_packed_and_marked_files_read_the_same(tmp_path: Path, document):
    text = json.dumps(document)
    (tmp_path / "plain.json").write_text(text)
    (tmp_path / "packed.json.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "marked.json").write_text("\ufeff" + text)
    read_all = [read(read_json(tmp_path / name).value) for name in ("plain.json", "packed.json.gz", "marked.json")]
    assert len(read_all[0]) == 30
    assert read_all[0] == read_all[1] == read_all[2]


def broken(document: dict[str, Any], what: str) -> None:
    paragraph = document["data"][1]["paragraphs"][0]
    question = paragraph["qas"][2]
    match what:
        case "moved":
            question["answers"][0]["answer_start"] += 1
        case "negative":
            question["answers"][0]["answer_start"] = -1
        case "empty":
            question["answers"][0]["text"] = ""
        case "twice":
            question["id"] = document["data"][0]["paragraphs"][0]["qas"][0]["id"]
        case "no answer":
            question["answers"] = []
        case "no context":
            del paragraph["context"]
        case "number":
            question["id"] = 7
        case "half":
            question["question"] = "\ud800"


@pytest.mark.parametrize(
    ("what", "place", "lost"),
    [
        ("moved", "data[1].paragraphs[0].qas[2].answers[0]: ", 1),
        ("negative", "data[1].paragraphs[0].qas[2].answers[0]: ", 1),
        ("empty", "data[1].paragraphs[0].qas[2].answers[0]: ", 1),
        ("twice", "data[1].paragraphs[0].qas[2]: the id ", 1),
        (
            "no answer",
            "data[1].paragraphs[0].qas[2]: there is no answer, which v1.1 does not know; pass --dataset v2.0",
            1,
        ),
        ("no context", "data[1].paragraphs[0]: there is no 'context'; give a string", 5),
        ("number", "data[1].paragraphs[0].qas[2]: 'id' is a number; give a string", 1),
        ("half", "data[1].paragraphs[0].qas[2]: 'question' holds half a character", 1),
    ],
)
def test_a_bad_record_is_named_or_left_out(document, what, place, lost):
    broken(document, what)
    with pytest.raises(InputError) as caught:
        read(document)
    assert str(caught.value).startswith(f"f.json: {place}")
    assert str(caught.value).endswith("or pass --skip-bad N to leave up to N bad records out")
    kept, bad = files.questions(Entry(document, "f.json"), "v1.1", skip_bad=1)
    assert len(kept) == 30 - lost
    assert [sentence.startswith(f"f.json: {place}") for sentence in bad] == [True]


def test_no_more_bad_records_are_left_out_than_was_allowed(document):
    for article in document["data"]:
        del article["paragraphs"][0]["qas"][0]["id"]
    with pytest.raises(
        InputError, match=r"data\[2\].*'id'; give a string.*N bad records out \(2 were left out before it\)"
    ):
        read(document, skip_bad=2)
    assert len(read(document, skip_bad=3)) == 27


def test_v2_takes_questions_without_an_answer(document):
    broken(document, "no answer")
    assert sum(not q.answers for q in read(document, "v2.0")) == 1


def test_articles_without_a_title_are_groups_of_their_own(document):
    for article in document["data"]:
        del article["title"]
    assert {q.title for q in read(document)} == {"article 0", "article 1", "article 2"}


def test_references_say_their_version(document):
    assert files.golds(Entry(document, "f"))[1] == "v1.1"
    document["data"][0]["paragraphs"][0]["qas"][0]["is_impossible"] = False
    assert files.golds(Entry(document, "f"))[1] == "v2.0"


def test_the_hub_gives_the_same_questions_as_the_files(monkeypatch, document):
    import datasets

    rows = [
        {
            "id": q.id,
            "title": q.title,
            "context": q.context,
            "question": "  " + q.question,
            "answers": {"text": list(q.answers), "answer_start": list(q.starts)},
        }
        for q in read(document)
    ]
    asked = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name: asked.append(name) or {"train": rows, "validation": rows[:3]}
    )
    found = files.from_hub("v2.0")
    assert asked == ["rajpurkar/squad_v2"]
    assert found == {"train": read(document), "eval": read(document)[:3]}


@pytest.mark.parametrize("error", [ConnectionError("Couldn't reach it on the Hub\nmore"), TimeoutError()])
def test_without_the_hub_the_remedy_is_named(error, monkeypatch):
    import datasets

    def unreachable(name: str) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(InputError, match=r"SQuAD v1.1 is neither given .*: pass --train FILE --eval FILE"):
        files.from_hub("v1.1")


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "dataset", "count", "unanswerable"),
    [
        ("train_v1.1_44articles", "v1.1", 11877, 0),
        ("xquad.en", "v1.1", 1190, 0),
        ("dev_v2.0_cs224n", "v2.0", 6078, 3168),
    ],
)
def test_real_files_have_every_span_in_place(shared: Path, name, dataset, count, unanswerable):
    found, bad = files.questions(read_json(shared / f"data/squad/{name}.json.gz"), dataset)
    assert (len(found), sum(not q.answers for q in found), bad) == (count, unanswerable, [])


OWN = {"context": "Mira owns the red ball. Tobin owns the red box.", "question": "What does Mira own?"}


@pytest.mark.parametrize("name", ["own.jsonl", "own.csv", "own.jsonl.gz"])
def test_questions_of_your_own_are_found_in_their_context(name, tmp_path):
    rows = [OWN | {"answer": "the red ball"}, OWN | {"question": "Who owns the red box?", "answer": "Tobin"}]
    path = tmp_path / name
    made = pd.DataFrame(rows)
    made.to_csv(path, index=False) if ".csv" in name else made.to_json(path, orient="records", lines=True)
    found, _ = files.read(path, "v1.1")
    assert [(q.question, q.answers, q.starts) for q in found] == [
        ("What does Mira own?", ("the red ball",), (10,)),
        ("Who owns the red box?", ("Tobin",), (24,)),
    ]
    assert {q.title for q in found} == {OWN["context"]}  # one passage is never divided
    assert len({q.id for q in found}) == 2


def test_a_question_of_your_own_that_stands_twice_has_both_answers(tmp_path):
    path = tmp_path / "own.jsonl"
    answers = [("red", 39), ("red ball", None), ("red", None), ("red ball", 14)]
    rows = [OWN | {"answer": text} | ({} if start is None else {"answer_start": start}) for text, start in answers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ((found,), bad) = files.read(path, "v1.1")
    assert (found.answers, found.starts, bad) == (("red", "red ball", "red"), (39, 14, 14), [])
    path.write_text(2 * (json.dumps(OWN | {"answer": ""}) + "\n"))
    assert files.read(path, "v2.0")[0][0].answers == ()


def test_your_own_may_say_where_and_that_there_is_no_answer(tmp_path):
    path = tmp_path / "own.jsonl"
    rows = [
        OWN | {"answer": "red", "answer_start": 39, "id": "a", "title": "t"},
        OWN | {"question": "Who sleeps?", "answer": ""},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, _ = files.read(path, "v2.0")
    assert [(q.starts, q.title) for q in found] == [((39,), "t"), ((), OWN["context"])]
    with pytest.raises(InputError, match=r"line 2: there is no answer, which v1.1 does not know; pass --dataset v2.0"):
        files.read(path, "v1.1")


@pytest.mark.parametrize("name", ["own.csv", "own.jsonl"])
def test_a_blank_cell_of_your_own_says_nothing(name, tmp_path):
    path = tmp_path / name
    rows = [
        OWN | {"answer": "red", "answer_start": "39", "id": "a", "title": "t"},
        OWN | {"question": "Whose is the box?", "answer": "Tobin"},
        OWN | {"question": "Who owns the ball?", "answer": "Mira"},
    ]
    made = pd.DataFrame(rows)  # pandas writes blank cells, and null
    made.to_csv(path, index=False) if name == "own.csv" else made.to_json(path, orient="records", lines=True)
    found, _ = files.read(path, "v1.1")
    assert [(q.starts, q.title) for q in found] == [((39,), "t"), ((24,), OWN["context"]), ((0,), OWN["context"])]
    assert len({q.id for q in found}) == 3


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (OWN | {"answer": "the blue ball"}, "'the blue ball' does not stand in its context there"),
        (OWN | {"answer": "Mira", "answer_start": 3}, "'Mira' does not stand in its context there"),
        (OWN | {"answer": "Mira", "answer_start": "9" * 5000}, "'answer_start' is a string; give a whole number"),
        (OWN | {"answer": "Mira", "answer_start": -1}, "'Mira' does not stand in its context there"),
        (OWN, "there is no 'answer'"),
        ([], "there is no 'context'"),
    ],
)
def test_your_own_without_its_answer_is_refused_with_its_place(row, said, tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(OWN | {"answer": "Mira"}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(InputError, match=f"own.jsonl: line 2: {said}"):
        files.read(path, "v1.1")
    assert len(files.read(path, "v1.1", skip_bad=1)[0]) == 1
