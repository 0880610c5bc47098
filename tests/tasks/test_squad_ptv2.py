"""P-tuning v2's recipe: its values reach the cells, and its number is of the best epoch on dev, by F1."""

import pytest

from tasks.bench import golden, suite
from tasks.bench.run import run
from tasks.bench.store import Store


def test_the_suite_has_the_published_values():
    runs = suite.plan(suite.read("squad_ptv2"), {"device": "cpu"}, {})
    assert {r.choice.method for r in runs} == {"prefix", "zero_init"}
    found = {(r.dataset, r.choice.seed, r.training.epochs, r.method.length) for r in runs if r.method is not None}
    assert found == {("v1.1", 11, 30, 16), ("v2.0", 11, 10, 8)}
    for each in runs:
        t, f = each.training, each.task
        assert (t.batch_size, t.learning_rate, t.dropout, t.warmup, t.weight_decay) == (8, 5e-3, 0.2, 0.0, 0.0)
        assert (f.max_length, f.doc_stride, f.n_best, f.max_answer_length, f.tune_share) == (384, 128, 20, 30, 0.0)


def test_the_best_epoch_is_chosen_by_f1_and_says_so(small_run, tmp_path, monkeypatch):
    from tasks.squad import Squad

    looks = iter([(10.0, 30.0), (50.0, 40.0), (90.0, 20.0)])
    real = Squad.metrics

    def metrics(self, records, dataset):
        scores = real(self, records, dataset)
        exact, f1 = next(looks, (None, None))
        return (
            scores
            if f1 is None
            else {"exact_match": scores["f1"]._replace(value=exact), "f1": scores["f1"]._replace(value=f1)}
        )

    assert golden.verified("squad", "v1.1")  # known from here on: a run would test the ones below, which are made up
    monkeypatch.setattr(Squad, "metrics", metrics)
    config = small_run("head", {"epochs": 3, "selection": "best-dev-epoch", "learning_rate": 0.1})
    cell = run(config, Store(tmp_path / "r"))
    assert [tuple(look) for look in cell.log["peeks"]] == [(1, 30.0), (2, 40.0), (3, 20.0)]
    assert cell.result["facts"]["selection"].startswith("DEV-SELECTED")
    assert cell.result["facts"]["protocol"] == "squad v1.1, version 1, best dev epoch"


@pytest.mark.parametrize("selection", ["last-epoch", "best-dev-epoch"])
def test_only_the_recipe_looks_at_dev(small_run, selection):
    from tasks.bench import task as tasks

    rules = tasks.get("squad").rules(small_run("head", {"selection": selection}))
    assert (rules.peek_epochs, rules.peek_metric) == ((0, None) if selection == "last-epoch" else (1, "f1"))
