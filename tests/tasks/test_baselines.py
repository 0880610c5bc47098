"""What needs no model: the oracle is right about everything, the majority is blind, and neither is compared."""

import math
from collections import Counter

import pytest

from tasks.bench import task as tasks
from tasks.bench.config import BASELINES, Choice
from tasks.bench.errors import InputError
from tasks.bench.report.found import read
from tasks.bench.report.gathered import gather
from tasks.bench.run import run
from tasks.bench.store import Store
from tasks.bench.suite import single
from tasks.bench.verify import discrepancies
from tests.tasks.fabricated import cell, squad_records, stored

EXACT = {
    ("squad", "v1.1", "roberta"): {"exact_match": 100.0, "f1": 100.0},
    ("squad", "v2.0", "roberta"): {"exact": 100.0, "f1": 100.0},
    ("scienceqa", "all", "llama"): {"accuracy": 100.0, "IMG": 100.0},
    ("vtab", "clevr_count", "vit"): {"accuracy": 100.0},
    ("instruct", "alpaca", "llama"): {"nll": 0.0, "perplexity": 1.0},
    ("instruct", "self_instruct", "llama"): {"rouge_l": 100.0, "nll": 0.0},
}
"""What an oracle scores, by task, data set and backbone."""


def judged(task: str, dataset: str, backbone: str, method: str, store: Store, **settings):
    config = single(Choice(task, backbone, method, dataset=dataset, device="cpu"), {"fit_sample": 10, **settings})
    return config, run(config, store)


def score(made, metric: str, split: str = "report") -> float:
    return made.result["splits"][split]["scores"][metric][0]


@pytest.mark.parametrize("where", EXACT)
def test_the_oracle_is_right_about_everything_also_where_it_differs_from_training(where, tmp_path):
    store = Store(tmp_path)
    _, made = judged(*where, "oracle", store)
    for split, (metric, value) in [(s, pair) for s in made.result["splits"] for pair in EXACT[where].items()]:
        if metric in made.result["splits"][split]["scores"]:
            assert score(made, metric, split) == pytest.approx(value), (split, metric)
    assert made.result["facts"]["trainable_params"] == 0
    assert not list(discrepancies(store))


def test_the_majority_names_the_most_frequent_class(tmp_path):
    config, made = judged("vtab", "eurosat", "vit", "majority", Store(tmp_path))
    data = tasks.get("vtab").load(config)
    counts = Counter(picture.label for picture in [*data.fit, *data.tune])
    assert {record["prediction"] for record in made.records["report"]} == {counts.most_common(1)[0][0]}


def test_the_majority_of_options_is_counted_apart_for_each_number_of_them(tmp_path):
    from tasks.metrics import scienceqa_rules as rules

    config, made = judged("scienceqa", "all", "llama", "majority", Store(tmp_path))
    data = tasks.get("scienceqa").load(config)
    pairs = [[(len(one.problem.choices), one.problem.answer) for one in part] for part in (data.fit, data.report)]
    assert score(made, "accuracy") == pytest.approx(rules.majority(*pairs))


def test_the_majority_answers_nothing_where_most_questions_have_no_answer(tmp_path):
    _, made = judged("squad", "v2.0", "roberta", "majority", Store(tmp_path))
    note = next(note for note in made.result["notes"] if "nothing" in note)
    assert note == f"answering nothing anywhere scores {score(made, 'exact'):.1f}"


def test_the_majority_of_tokens_is_a_distribution_and_no_better_than_the_entropy(tmp_path):
    config, made = judged("instruct", "alpaca", "llama", "majority", Store(tmp_path))
    task = tasks.get("instruct")
    host = __import__("tasks.backbones.llama", fromlist=["lm"]).lm(config)
    reader = task.reader(host.tokenizer, config)
    data = task.load(config)
    asked = Counter(t for row in reader.ask(data.report) for t in row.continuations[0].tolist())
    entropy = -sum(n * math.log(n / asked.total()) for n in asked.values()) / asked.total()
    assert entropy < score(made, "nll") < 1.3 * entropy
    assert score(made, "nll") < math.log(len(host.tokenizer))


@pytest.mark.parametrize(("method", "least"), [("oracle", 50.0), ("majority", 0.5)])
def test_captions_have_a_ceiling_and_a_floor_too(method, least, tmp_path):
    _, made = judged("coco_caption", "coco", "llama", method, Store(tmp_path))
    assert score(made, "cider") > least
    if method == "majority":
        assert len({record["prediction"] for record in made.records["report"]}) == 1


@pytest.mark.parametrize("method", BASELINES)
def test_a_task_without_right_answers_says_so(method, tmp_path):
    with pytest.raises(InputError, match=f"--method {method}: instruct vicuna has no .*, choose another"):
        judged("instruct", "vicuna", "llama", method, Store(tmp_path), max_new_tokens=4)


def test_no_method_is_compared_with_the_oracle(tmp_path):
    rivals = [cell("lora", records=squad_records([0.1, 0.3])), cell("full", records=squad_records([1.0, 0.5]))]
    plain = gather(read(store := stored(tmp_path / "plain", *rivals)), store)
    told = [cell(name, records=squad_records([1.0, 1.0])) for name in BASELINES]
    beside = gather(read(store := stored(tmp_path / "beside", *rivals, *told)), store)
    (table,), (other,) = plain.tables, beside.tables
    assert [line.label for line in other.lines] == ["majority", "oracle", "full", "lora"]
    for metric, verdict in plain.verdicts[table].items():
        held = beside.verdicts[other][metric]
        assert {line.label for line in held.held} == {line.label for line in verdict.held} == {"full", "lora"}
        assert (held.test, held.detectable) == (verdict.test, verdict.detectable)


def test_a_table_of_these_alone_is_shown_and_calls_nothing_best(tmp_path):
    store = stored(tmp_path, *(cell(name, records=squad_records([1.0, 1.0])) for name in BASELINES))
    found = gather(read(store), store)
    assert not any(verdict.held for verdict in found.verdicts[found.tables[0]].values())
    assert [figures[0].text for figures in found.sheets[0].lines] == ["majority", "oracle"]
