"""Each example's part in a metric: the parts of a real cell's records add up to every metric that is a mean."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.bench import task as tasks
from tasks.bench.config import Choice
from tasks.bench.run import run
from tasks.bench.store import Store
from tasks.bench.suite import single
from tests.tasks.conftest import SMALL

CELLS = [
    (task, dataset)
    for task in ("squad", "scienceqa", "instruct", "coco_caption")
    for dataset in tasks.get(task).datasets
] + [("vtab", "svhn")]
SETTINGS = {
    "instruct": {"max_new_tokens": 4},
    "scienceqa": {"max_new_tokens": 4},
    "coco_caption": {"max_new_tokens": 4},
}
BACKBONES = {"lm": "llama", "span": "roberta", "class": "vit"}
NO_MEANS = ("bleu", "perplexity", "total", "best_")


@pytest.fixture(scope="module", params=CELLS, ids="-".join)
def cell(request, tmp_path_factory) -> tuple[tasks.Task, str, list[tasks.Record]]:
    """A task, a data set, and the records of its mini world's first pictures or questions."""
    name, dataset = request.param
    folder: Path = tmp_path_factory.mktemp(name)
    task, method = tasks.get(name), "zero_init" if name == "coco_caption" else "frozen"
    choice = Choice(name, BACKBONES[task.output], method, dataset=dataset, device="cpu", limit=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZEROINIT_CACHE", str(folder / "cache"))
        made = run(single(choice, SMALL | SETTINGS.get(name, {})), Store(folder / "store"))
    return task, dataset, list(made.records["report"])


def shaken(record: tasks.Record, rng: random.Random) -> tasks.Record:
    """The same with other scores, for an untrained model's are nearly all 0."""

    def other(key: str, value: Any) -> Any:
        if isinstance(value, bool):
            return rng.random() < 0.6
        if isinstance(value, float) or key == "cider":  # which a part of a set has none of
            return rng.choice([0.0, 1.0, rng.random()])
        if isinstance(value, list | tuple) and value and isinstance(value[0], bool):
            return [rng.random() < 0.6 for _ in value]
        return rng.randrange(1, 9) if key == "tokens" and isinstance(value, int) else value

    return {key: other(key, value) for key, value in record.items()}


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_the_parts_add_up_to_every_mean(cell, seed):
    task, dataset, records = cell
    if seed is not None:
        rng = random.Random(seed)
        records = [shaken(record, rng) for record in records]
    scores = task.metrics(records, dataset)
    assert {*task.headline[dataset]} <= {*scores} or seed is None
    for metric, score in scores.items():
        terms = task.terms(records, metric)
        assert (terms is None) == any(word in metric for word in NO_MEANS), metric
        if terms is None:
            assert score.stderr is None
            continue
        assert len(terms) == len(records)
        values, weights = np.array(terms).T
        assert np.average(values, weights=weights) == pytest.approx(score.value, abs=1e-9)
        assert score.stderr == pytest.approx(linearized(values, weights), abs=1e-9)


def linearized(values, weights) -> float | None:
    """The textbook standard error of a ratio of sums (Cochran 1977, section 2.11)."""
    values, weights = values[weights > 0], weights[weights > 0]
    n, ratio = len(values), (values * weights).sum() / weights.sum()
    if n < 2:
        return None
    squares = ((values * weights - ratio * weights) ** 2).sum() / (n - 1)
    return squares**0.5 / n**0.5 / weights.mean()


def test_what_is_no_metric_has_no_parts(cell):
    task, _, records = cell
    assert task.terms(records, "no_such_number") is None
