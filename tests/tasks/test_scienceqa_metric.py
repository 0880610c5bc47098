"""The ScienceQA metric is the official one: dialects case by case, and both against a second writing."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.metrics import scienceqa_rules as rules
from tests.tasks.oracles import scienceqa_official as oracle

pieces = st.sampled_from(
    [
        "The answer is ",
        "the answer is ",
        "A",
        "B",
        "C",
        "E",
        "F",
        "a",
        "(A)",
        "(B).",
        ".",
        ". ",
        " ",
        "\n",
        "BECAUSE: ",
        ")",
    ]
)
texts = st.lists(pieces, max_size=7).map("".join) | st.sampled_from(list("ABCDEFab"))
labels = st.fixed_dictionaries(
    {
        "subject": st.sampled_from([oracle.NATURAL, oracle.SOCIAL, oracle.LANGUAGE]),
        "grade": st.integers(1, 12).map(lambda n: f"grade{n}"),
        "topic": st.sampled_from(["biology", "verbs"]),
        "hint": st.sampled_from(["", "Look."]),
        "image": st.sampled_from([None, "image.png"]),
        "answer": st.integers(0, 3),
    }
)


@pytest.mark.parametrize(
    ("said", "strict", "official", "llava"),
    [  # the option's index among three, None for none
        ("The answer is (A).", 0, None, None),
        ("The answer is A.", 0, 0, 0),
        ("The answer is B", 1, None, None),  # the dot is missing, and may be any character but must be one
        ("The answer is B\n", 1, None, None),
        ("The answer is B because", 1, 1, 1),
        ("The answer is Because", None, 1, 1),  # "e" stands for the dot
        ("Answer: The answer is C. BECAUSE: The answer is short", 2, 2, 2),
        ("The answer is A. The answer is A.", 0, None, None),
        ("The answer is A. The answer is B.", None, None, None),
        ("The answer is D.", None, None, None),  # there is no such option
        ("The answer is (D). The answer is (A).", None, None, None),
        ("the answer is A.", None, None, None),
        ("A", None, None, 0),
        ("(A)", None, None, None),
        ("B. A mammal", None, None, 1),
        ("B.A mammal", None, None, None),
        ("D", None, None, None),
        ("", None, None, None),
    ],
)
def test_dialects_case_by_case(said, strict, official, llava):
    assert rules.extract(said, 3, "strict") == (strict, strict is None)
    assert rules.extract(said, 3, "llava") == (llava, llava is None)
    found = rules.extract(said, 3, "official", "pid 4")
    assert found.failed == (official is None)
    assert found.option == official or (found.failed and found.option in range(3))


@given(texts, st.integers(2, 5))
@settings(max_examples=300, deadline=None)
def test_dialects_equal_a_second_writing(said, options):
    official, llava = rules.extract(said, options, "official"), rules.extract(said, options, "llava")
    assert (None if official.failed else official.option) == oracle.official(said, options)
    assert (-1 if llava.option is None else llava.option) == oracle.llava(said, options)
    assert llava.failed == (llava.option is None)


@given(texts, st.integers(2, 5))
@settings(max_examples=300, deadline=None)
def test_strict_agrees_with_official_where_a_lone_letter_is_named(said, options):
    found = rules.extract(said, options)
    assert found.failed == (found.option is None)
    assert found.failed or found.option < options
    official = oracle.official(said, options)
    if re.search(r"The answer is [A-Z]\w", said):  # where the official one takes a word's first letter
        return
    if not found.failed and official is not None:
        assert found.option == official


def test_the_official_draw_is_fixed_by_the_question_and_fair():
    drawn = [rules.extract("", 4, "official", str(pid)).option for pid in range(4000)]
    assert drawn == [rules.extract("who knows", 4, "official", str(pid)).option for pid in range(4000)]
    assert all(drawn.count(option) == pytest.approx(1000, abs=110) for option in range(4))  # four standard deviations


def test_a_number_is_an_answer_that_was_extracted_before():
    assert [rules.numbered(option, 3) for option in range(3)] == [(0, False), (1, False), (2, False)]
    assert rules.numbered(-1, 3) == rules.numbered(3, 3) == (None, True)


@given(st.lists(st.tuples(labels, st.integers(-1, 3)), min_size=1, max_size=12))
@settings(max_examples=150, deadline=None)
def test_columns_equal_a_second_writing(answered):
    problems, predicted = [p for p, _ in answered], [said for _, said in answered]
    correct = [p["answer"] == said for p, said in answered]
    scores = rules.score([_labels(p) for p in problems], correct, [said < 0 for said in predicted])
    expected = {column: value for column, value in oracle.columns(problems, predicted).items() if value >= 0}
    assert {column: scores[column] for column in scores if column in rules.COLUMNS} == pytest.approx(expected)
    assert scores["accuracy"] == scores["Avg"]
    assert scores["extract_fail"] == pytest.approx(100 * predicted.count(-1) / len(predicted))
    for topic in ("biology", "verbs"):
        right = [c for p, c in zip(problems, correct, strict=True) if p["topic"] == topic]
        assert scores.get(topic) == (pytest.approx(100 * sum(right) / len(right)) if right else None)


def test_a_column_is_absent_where_its_label_is_unknown_somewhere():
    full = rules.Labels(oracle.NATURAL, "grade7", "physics", text=True, image=True)
    assert list(rules.columns([full])) == ["NAT", "TXT", "IMG", "G7-12", "Avg", "physics"]
    for kind, lost in {
        "subject": {"NAT"},
        "grade": {"G7-12"},
        "topic": {"physics"},
        "text": {"TXT"},
        "image": {"IMG"},
    }.items():
        assert set(rules.columns([full])) - set(rules.columns([full, full._replace(**{kind: None})])) == lost
    assert list(rules.columns([rules.Labels()])) == ["Avg"]
    assert list(rules.columns([rules.Labels(image=False)])) == ["Avg"]
    assert list(rules.columns([rules.Labels(text=False, image=False)])) == ["NO", "Avg"]


def test_a_question_with_hint_and_picture_is_in_both_columns():
    both = rules.Labels(text=True, image=True)
    assert rules.columns([both, rules.Labels(text=False, image=False)]) == {
        "TXT": [0],
        "IMG": [0],
        "NO": [1],
        "Avg": [0, 1],
    }


def test_baselines():
    assert rules.chance([2, 4]) == pytest.approx(37.5)
    seen = [(2, 1), (2, 1), (2, 0), (4, 3), (3, 2), (3, 1)]
    asked = [(2, 1), (2, 0), (4, 3), (3, 1), (5, 0)]  # among equals the first; of five none was seen
    assert rules.majority(seen, asked) == pytest.approx(80.0)
    assert rules.majority([(2, 0), (2, 1), (2, 1), (2, 1), (2, 0)], [(2, 1)]) == 100.0


def test_the_metric_is_imported_and_equals_the_rules():
    from tasks.metrics.scienceqa import ScienceQA

    references = [
        {"id": "4", "choices": ["no", "yes"], "answer": 1},
        {"id": "6", "choices": ["a", "b", "c"], "answer": 0},
    ]
    said = [
        {"id": "6", "prediction_text": "The answer is (A)."},
        {"id": "4", "prediction_text": "The answer is (C)."},
    ]
    scores = ScienceQA().compute(predictions=said, references=references)
    assert scores == {"accuracy": 50.0, "Avg": 50.0, "extract_fail": 50.0}
    llava = ScienceQA().compute(predictions=said, references=references, dialect="llava")
    assert llava == {"accuracy": 0.0, "Avg": 0.0, "extract_fail": 100.0}
    silent = [{"id": str(n), "prediction_text": "?"} for n in range(300)]
    asked = [{"id": str(n), "choices": ["a", "b"], "answer": 0} for n in range(300)]
    drawn = ScienceQA().compute(predictions=silent, references=asked, dialect="official")["accuracy"]
    assert drawn == pytest.approx(50, abs=12)  # by each question's name: one draw for all would be 0 or 100
    labels = [rules.Labels(grade="grade2"), rules.Labels(grade="grade8")]
    assert ScienceQA().compute(predictions=said, references=references, labels=labels)["G7-12"] == 100.0
    with pytest.raises(ValueError, match="1 of 2 questions have no prediction, first 4"):
        ScienceQA().compute(predictions=[said[0], said[0]], references=references)


def _labels(problem: dict) -> rules.Labels:
    return rules.Labels(
        problem["subject"],
        problem["grade"],
        problem["topic"],
        text=bool(problem["hint"]),
        image=problem["image"] is not None,
    )
