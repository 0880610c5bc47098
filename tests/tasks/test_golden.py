"""Golden cases: there are some for every task, data set and metric, and their numbers are the official ones."""

import importlib
import inspect
import math
import re
import statistics
from pathlib import Path

import pytest
from sklearn.metrics import accuracy_score

from tasks.bench import discover, golden
from tasks.bench import task as tasks
from tasks.bench.errors import CellError
from tasks.bench.run import run
from tasks.bench.store import Store
from tasks.golden import coco_caption, instruct, scienceqa, squad, vtab
from tasks.metrics import squad_rules
from tests.tasks.oracles import scienceqa_official, squad_official
from tests.tasks.test_caption_metric import official as official_captions

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _anew():
    """Every test tests the metrics for itself."""
    golden.verified.cache_clear()
    yield
    golden.verified.cache_clear()


@pytest.mark.parametrize("name", discover.names("task"))
def test_every_data_set_has_a_case_and_is_right(name):
    cases = golden.cases(name)
    for dataset in tasks.get(name).datasets:
        assert any(dataset in case.cells for case in cases), f"no golden case tests the metrics of {name}, {dataset}"
    assert not [trouble for case in cases if not case.slow and (trouble := case.trouble())]


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for name in discover.names("task") for case in golden.cases(name) if case.slow])
def test_what_takes_long_is_right_too(case):
    assert case.trouble() is None


def test_every_metric_is_computed_by_a_case(monkeypatch):
    import evaluate

    found = {
        kind
        for path in (ROOT / "tasks/metrics").glob("*.py")
        for kind in vars(importlib.import_module(f"tasks.metrics.{path.stem}")).values()
        if inspect.isclass(kind) and issubclass(kind, evaluate.Metric) and kind.__module__.startswith("tasks.")
    }
    computed = set()
    for kind in found:
        monkeypatch.setattr(kind, "_compute", lambda self, **_: computed.add(type(self)))
    for name in discover.names("task"):
        for case in golden.cases(name):
            if not case.cells and not case.slow:
                case.found()
    assert len(found) >= 7
    assert {kind.__name__ for kind in found - computed} == set()


# The numbers themselves, by others


def test_squad_by_a_second_writing():
    golds = {name: list(answers) for name, (answers, _) in squad.ANSWERED.items()}
    assert pytest.approx(squad_official.v1(golds, {n: t for n, (_, t) in squad.ANSWERED.items()})) == squad.OFFICIAL_V1
    golds = {name: list(answers) for name, (answers, _, _) in squad.DOUBTED.items()}
    said, leads = ({name: each[part] for name, each in squad.DOUBTED.items()} for part in (1, 2))
    theirs = squad_official.v2(golds, said, leads, 0.0)
    assert {key: squad.OFFICIAL_V2[key] for key in theirs} == pytest.approx(theirs)
    assert set(squad.OFFICIAL_V2) - set(theirs) == {"best_exact_thresh", "best_f1_thresh"}


def _columns(predicted: list[int]) -> list[float]:
    problems = [
        {
            "subject": labels.subject,
            "grade": labels.grade,
            "hint": "h" if labels.text else "",
            "image": "image.png" if labels.image else None,
            "topic": labels.topic,
            "answer": answer,
        }
        for _, answer, labels in scienceqa.PROBLEMS.values()
    ]
    found = scienceqa_official.columns(problems, predicted)
    return [found["Avg"], *(found[column] for column in scienceqa.COLUMNS[1:])]


@pytest.mark.parametrize("dialect", ["strict", "official", "llava"])
def test_scienceqa_by_a_second_writing(dialect):
    options = [options for options, _, _ in scienceqa.PROBLEMS.values()]
    read = {
        "strict": lambda: list(scienceqa.READ),
        "official": lambda: [*map(scienceqa_official.official, scienceqa.OFFICIAL, options)],
        "llava": lambda: [*map(scienceqa_official.llava, scienceqa.LLAVA, options)],
    }[dialect]()
    assert dialect != "official" or read == list(scienceqa.LIKELIEST)
    (case,) = [case for case in scienceqa.CASES if case.name == f"dialect {dialect}"]
    assert [case.official[column] for column in scienceqa.COLUMNS] == pytest.approx(_columns(read))
    assert case.official["extract_fail"] == 100 * read.count(-1) / len(read)


def test_captions_by_the_official_scorers():
    theirs = official_captions([list(each) for each in coco_caption.REFERENCES], list(coco_caption.CAPTIONS))
    assert theirs == pytest.approx(coco_caption.OFFICIAL, abs=1e-12)


def test_ifeval_by_lm_eval():
    from tasks.metrics import ifeval_rules

    ifeval_rules.checkers()  # which lets lm_eval find the sentence model too
    import langdetect
    from lm_eval.tasks.ifeval import utils

    langdetect.DetectorFactory.seed = 0
    found = [
        utils.process_results(
            {"key": 0, "prompt": "", "instruction_id_list": [*checks], "kwargs": [*map(dict, checks.values())]}, [said]
        )
        for checks, said in instruct.CHECKED
    ]
    for name in ("strict", "loose"):
        prompts = [each[f"prompt_level_{name}_acc"] for each in found]
        single = [one for each in found for one in each[f"inst_level_{name}_acc"]]
        assert instruct.IFEVAL[f"prompt_{name}"] == pytest.approx(100 * statistics.mean(prompts))
        assert instruct.IFEVAL[f"instruction_{name}"] == pytest.approx(100 * statistics.mean(single))


def test_rouge_by_its_definition():
    from nltk.stem import PorterStemmer

    def words(text: str) -> list[str]:
        kept = "".join(c if c.isalnum() else " " for c in text.lower()).split()
        return [PorterStemmer().stem(word) if len(word) > 3 else word for word in kept]

    def common(one: list[str], other: list[str]) -> int:
        if not one or not other:
            return 0
        if one[0] == other[0]:
            return 1 + common(one[1:], other[1:])
        return max(common(one[1:], other), common(one, other[1:]))

    found = []
    for said, wanted in instruct.COMPARED:
        shared = common(words(said), words(wanted))
        found.append(200 * shared / (len(words(said)) + len(words(wanted))))
    assert found[:2] == [50, 50]  # which the paper prints
    assert statistics.mean(found) == pytest.approx(instruct.ROUGE_L["rouge_l"])


def test_the_rest_by_hand():
    assert vtab.OFFICIAL["accuracy"] == 100 * accuracy_score(vtab.LABELS, vtab.SAID)
    bits = sum(bits for _, bits in instruct.WEIGHED)
    size = sum(len(text.encode()) for text, _ in instruct.WEIGHED)
    assert {
        "nll": pytest.approx(bits * math.log(2) / (4 * len(instruct.WEIGHED))),
        "perplexity": pytest.approx(2 ** (bits / (4 * len(instruct.WEIGHED)))),
        "bits_per_byte": bits / size,
    } == instruct.LIKELIHOODS
    letters = [[re.findall(r"\[\[(.)\]\]", said) for said in pair] for pair in instruct.JUDGED]
    read = [first + second for first, second in letters if first and second]
    wins, losses = read.count(["A", "B"]), read.count(["B", "A"])
    ties = len(read) - wins - losses
    rate = pytest.approx(100 * (wins + ties / 2) / len(read))
    assert instruct.FASTCHAT | {"win_rate": rate} == {"win": wins, "loss": losses, "tie": ties, "win_rate": rate}
    assert instruct.FASTCHAT["win_rate"] == rate


# In a cell


def test_a_cell_says_that_its_metrics_are_verified(small_run, tmp_path):
    facts = run(small_run("frozen"), Store(tmp_path)).result["facts"]
    assert facts["metrics_verified"] is True
    assert facts["versions"].endswith(", metrics verified")
    (row,) = Store(tmp_path).rows()[:1]
    assert row["versions"] == facts["versions"]


def test_a_cell_that_nothing_verifies_says_so(small_run, tmp_path, monkeypatch):
    monkeypatch.setattr(golden, "cases", lambda _: ())
    facts = run(small_run("frozen"), Store(tmp_path)).result["facts"]
    assert facts["metrics_verified"] is False
    assert facts["versions"].endswith(", metrics NOT verified")


def test_a_cell_with_a_broken_metric_fails_before_it_trains(small_run, tmp_path, monkeypatch):
    kept = squad_rules.f1_v1
    monkeypatch.setattr(squad_rules, "f1_v1", lambda said, gold: min(1.0, 1.01 * kept(said, gold)))
    monkeypatch.setattr("tasks.bench.run.teach", lambda *_: pytest.fail("trained"))
    sentence = r"^the metrics of squad are not the official ones: v1.1: f1 is 6\d.* here, and 62.59.* by the official "
    with pytest.raises(CellError, match=sentence + r"evaluate-v1.1.py; see python -m tasks doctor$"):
        run(small_run("head"), Store(tmp_path))
    assert not Store(tmp_path).names()


def test_a_metric_that_fails_is_not_verified(monkeypatch):
    monkeypatch.setattr(squad_rules, "normalize", lambda _: 1 / 0)
    with pytest.raises(CellError, match=r"v2.0 ends in ZeroDivisionError: division by zero"):
        golden.verified("squad", "v2.0")


def test_metrics_are_tested_once_in_a_process(monkeypatch):
    assert golden.verified("squad", "v1.1")
    monkeypatch.setattr(golden, "cases", lambda _: pytest.fail("once more"))
    assert golden.verified("squad", "v1.1")
