"""The SQuAD metric is the official one: on known numbers, on its traps, and against a second writing of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.metrics import squad_rules as rules
from tests.tasks.oracles import squad_official as oracle

words = st.lists(
    st.sampled_from(["a", "The", "rome", "Rome.", "an", "red-hot", "“quoted”", "1900", "...", ""]), max_size=4
)
texts = words.map(" ".join)


@st.composite
def answered(draw: st.DrawFn, least: int = 0) -> tuple[dict[str, list[str]], dict[str, str], dict[str, float]]:
    size = draw(st.integers(1, 8))
    golds = {f"q{i}": draw(st.lists(texts, min_size=least, max_size=3)) for i in range(size)}
    predictions = {key: draw(texts) for key in golds}
    # Few distinct values, so that ties are the rule.
    na_probs = {key: draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])) for key in golds}
    return golds, predictions, na_probs


@given(answered(least=1), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_v1_equals_a_second_writing(case, dropped):
    golds, predictions, _ = case
    kept = dict(list(predictions.items())[dropped:])
    assert rules.score_v1(golds, kept) == pytest.approx(oracle.v1(golds, kept))


@given(answered(), st.sampled_from([0.0, 0.1, 0.7, 1.0]))
@settings(max_examples=150, deadline=None)
def test_v2_equals_a_second_writing_with_every_threshold_tried(case, threshold):
    golds, predictions, na_probs = case
    ours = rules.score_v2(golds, predictions, na_probs, threshold)
    theirs = oracle.v2(golds, predictions, na_probs, threshold)
    assert {key: ours[key] for key in theirs} == pytest.approx(theirs)
    assert set(ours) - set(theirs) == {"best_exact_thresh", "best_f1_thresh"}


@given(answered())
@settings(max_examples=100, deadline=None)
def test_the_best_threshold_reaches_the_best_score(case):
    golds, predictions, na_probs = case
    best = rules.score_v2(golds, predictions, na_probs)
    for name in ("exact", "f1"):
        column = {"exact": 0, "f1": 1}[name]
        threshold = best[f"best_{name}_thresh"]
        total = sum(
            (oracle.raw(golds[k], predictions[k])[column] if na_probs[k] <= threshold else 0.0)
            if golds[k]
            else float(na_probs[k] > threshold or not predictions[k])
            for k in golds
        )
        assert best[f"best_{name}"] == pytest.approx(100 * total / len(golds))


def test_equal_null_scores_leave_nothing_to_choose():
    # The official walk may stop inside the tie and report 100; no threshold does.
    golds = {"right": ["Rome"], "wrong": ["Oslo"], "none": []}
    predictions = {"right": "Rome", "wrong": "Bonn", "none": "Bonn"}
    scores = rules.score_v2(golds, predictions, dict.fromkeys(golds, 0.0))
    assert scores["best_exact"] == pytest.approx(100 / 3)
    assert scores["exact"] == pytest.approx(100 / 3)


def test_probabilities_above_zero_keep_the_official_start_at_zero():
    scores = rules.score_v2({"q": []}, {"q": "Bonn"}, {"q": 0.4})
    assert (scores["best_exact"], scores["best_exact_thresh"]) == (100.0, 0.0)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Cat!", "cat"),
        ("a.b", "ab"),  # punctuation goes before articles are looked for
        ("an-other", "another"),
        ("“the”", "“ ”"),  # only ASCII punctuation goes, and a quote mark is no letter
        ("theatre an", "theatre"),
        ("\u00a0x\ty", "x y"),
    ],
)
def test_normalization_step_by_step(text, normal):
    assert rules.normalize(text) == normal


def test_empty_against_empty_is_an_exact_match_whose_f1_depends_on_the_version():
    assert rules.question_v1("the", ["a"])[2:] == (1.0, 0.0)
    assert rules.question_v2("the", ["a"])[2:] == (1.0, 1.0)


def test_v2_drops_golds_that_normalize_to_nothing():
    assert rules.question_v2("", ["the", "Rome"]).f1 == 0.0
    assert rules.question_v2("", ["the"]).f1 == 1.0
    assert rules.question_v2("", ["the"]).answerable


def test_exact_match_and_f1_take_their_best_gold_apart():
    scored = rules.question_v1("red big cat", ["red big cat house", "Red, big cat"])
    assert scored.answerable
    assert (scored.exact, scored.f1) == (1.0, 1.0)
    assert rules.question_v1("red cat", ["red", "cat red dog"]).f1 == pytest.approx(0.8)


def test_v1_counts_a_missing_prediction_as_nothing():
    assert rules.score_v1({"a": ["x"], "b": ["y"]}, {"a": "x"}) == {"exact_match": 50.0, "f1": 50.0}


def test_v2_demands_every_prediction():
    with pytest.raises(KeyError):
        rules.score_v2({"a": ["x"], "b": []}, {"a": "x"})


def test_metrics_are_imported_and_equal_the_rules():
    from tasks.metrics.squad import SquadV1, SquadV2

    golds = {"a": ["Rome", "the city of Rome"], "b": ["1900"], "c": ["x"]}
    predictions = {"a": "city of rome", "b": "1901", "c": "x"}
    references = [{"id": k, "answers": {"text": v, "answer_start": [0] * len(v)}} for k, v in golds.items()]
    said = [{"id": k, "prediction_text": v} for k, v in predictions.items()]
    assert SquadV1().compute(predictions=said, references=references) == rules.score_v1(golds, predictions)
    golds["c"] = references[2]["answers"]["text"] = []
    na_probs = {"a": 0.1, "b": 0.2, "c": 0.9}
    said = [{**p, "no_answer_probability": na_probs[p["id"]]} for p in said]
    assert SquadV2().compute(predictions=said, references=references) == rules.score_v2(golds, predictions, na_probs)
    for probability, answered in ((1.0, 50.0), (1.5, 0.0)):  # officially 1.0 is not above the threshold
        sure = [{**p, "no_answer_probability": probability} for p in said]
        assert SquadV2().compute(predictions=sure, references=references)["HasAns_exact"] == answered
        refused = SquadV2().compute(predictions=sure, references=references, no_answer_threshold=0.5)
        assert (refused["HasAns_exact"], refused["NoAns_exact"]) == (0.0, 100.0)
    said[0]["id"] = "other"
    with pytest.raises(ValueError, match="1 of 3 questions have no prediction, first a"):
        SquadV2().compute(predictions=said, references=references)


@pytest.mark.shared
def test_the_leaderboard_baseline_scores_what_is_known_of_it(shared: Path):
    squad = shared / "data/squad"
    command = ["-m", "tasks", "score", "squad", "--predictions", squad / "pred_v1.1_logreg.json.gz"]
    done = subprocess.run(
        [sys.executable, *command, "--references", squad / "xquad.en.json.gz"],
        capture_output=True,
        text=True,
        check=True,
    )
    scores = json.loads(done.stdout.splitlines()[-1])
    assert {key: round(value, 2) for key, value in scores.items()} == {"exact_match": 34.54, "f1": 45.85}
    assert "2 of 1190 questions have no prediction and count 0" in done.stderr


@pytest.mark.shared
def test_the_baseline_over_answered_questions(shared: Path):
    from tasks._squad_files import golds
    from tasks.bench.documents import read_json

    accepted, version = golds(read_json(shared / "data/squad/xquad.en.json.gz"))
    texts = read_json(shared / "data/squad/pred_v1.1_logreg.json.gz").value
    answered_only = {key: value for key, value in accepted.items() if key in texts}
    scores = rules.score_v1(answered_only, texts)
    assert version == "v1.1"
    assert {key: round(value, 2) for key, value in scores.items()} == {"exact_match": 34.6, "f1": 45.93}
    assert scores == pytest.approx(oracle.v1(answered_only, texts))


@pytest.mark.shared
def test_answering_nothing_on_v2_scores_the_share_without_answers(shared: Path):
    from tasks._squad_files import golds
    from tasks.bench.documents import read_json

    accepted, version = golds(read_json(shared / "data/squad/dev_v2.0_cs224n.json.gz"))
    scores = rules.score_v2(accepted, dict.fromkeys(accepted, ""))
    assert version == "v2.0"
    assert (scores["total"], scores["NoAns_total"], scores["NoAns_exact"]) == (6078, 3168, 100.0)
    assert scores["exact"] == scores["f1"] == pytest.approx(100 * 3168 / 6078)
