"""One cell on several processes: they agree, count each example once, and train as one process does."""

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor

import zeroinit
from tasks.bench import parallel, processes
from tasks.bench.config import Run, Training
from tasks.bench.errors import CellError, InputError
from tasks.bench.run import build, run
from tasks.bench.store import Store
from tasks.bench.train import train
from tests.tasks.several import SHARDED, cell, ids, parts, together
from zeroinit import methods

# What all agree on


def test_each_process_has_its_share_and_hears_of_the_others():
    def step() -> tuple[Any, ...]:
        mine = list(processes.share(range(7)))
        told = processes.told(lambda: f"said by {processes.index()}")
        return mine, told, processes.gathered(len(mine)), processes.total(processes.index() + 0.5)

    one, two, three = together(step, 3)
    assert [one[0], two[0], three[0]] == [[0, 3, 6], [1, 4], [2, 5]]
    assert one[1:] == two[1:] == three[1:] == ("said by 0", [3, 2, 2], 4.5)


def test_a_process_alone_is_the_first_of_one():
    assert (processes.first(), processes.count(), processes.share("abc"), processes.total(2)) == (True, 1, "abc", 2)
    with pytest.raises(InputError, match="alone"), processes.agreed():
        raise InputError("alone")


MEETINGS: dict[str, Callable[[], Any]] = {
    "agreed": lambda: _agree(),
    "told": lambda: processes.told(int),
    "gathered": lambda: processes.gathered(0),
    "total": lambda: processes.total(0.0),
}


def _agree() -> None:
    with processes.agreed():
        pass


def test_who_refuses_elsewhere_is_heard_at_the_next_meeting():
    """As where one machine lacks a file: the others wait for it somewhere else."""

    def go(failing: int, meeting: str) -> None:
        with processes.agreed():
            if processes.index() == failing:
                raise InputError(f"{failing} is not at {meeting}")
            MEETINGS[meeting]()
            raise AssertionError("went on alone")

    def step() -> list[str]:
        found = []
        for failing, meeting in itertools.product(range(2), MEETINGS):
            with pytest.raises(InputError) as caught:
                go(failing, meeting)
            found.append(str(caught.value))
        return found

    expected = [f"{failing} is not at {meeting}" for failing in range(2) for meeting in MEETINGS]
    assert together(step) == [expected, expected]


def test_the_firsts_refusal_is_everybodys():
    def step() -> None:
        def refuse() -> None:
            raise CellError(f"seen by {processes.index()}")

        processes.told(refuse)

    assert [str(error) for error in together(step)] == ["seen by 0"] * 2


def test_what_starts_processes_of_its_own_wants_to_be_alone():
    found = together(lambda: processes.alone("python -m tasks run"))
    expected = "python -m tasks run starts processes of its own: start it alone, or one cell as python -m tasks.TASK"
    assert [str(error) for error in found] == [expected] * 2


# Training


class Tokens:
    """Rows of numbers, whose loss is a mean over all numbers of a batch, so that rows weigh unequally."""

    def fit(self, examples):
        return [list(example) for example in examples]

    def collate(self, rows):
        longest = max(map(len, rows))
        x = torch.tensor([[*row, *[float("inf")] * (longest - len(row))] for row in rows])
        return {"x": x}

    def loss(self, model, batch):
        return model(batch["x"][batch["x"] != float("inf")])

    def weight(self, batch):
        return int((batch["x"] != float("inf")).sum())


class Line(torch.nn.Module):
    """The mean of (w x - 1)², with a parameter that nothing comes to."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.unused = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor):
        return (self.weight * x - 1).square().mean()


def trained(rows: list[list[float]], **settings: Any) -> tuple[list[float], float]:
    model = Line()
    training = Training(learning_rate=0.1, **{"epochs": 3, "batch_size": 4} | settings)
    history = train(model, dict(model.named_parameters()), Tokens(), rows, training, 0)
    return list(history.losses), model.weight.item()


@pytest.mark.parametrize("count", [2, 3])
def test_shares_of_a_batch_make_the_step_of_the_whole(count):
    """Batches of 4 among 3, rows of unequal weight, and last batches of 2, which leave one of 3 without a row."""
    rows = [[0.3], [0.5, -1.0, 2.0, 0.1, 0.7], [1.5, 0.2], [0.9], [-0.4, 0.8, 1.1], [2.5]]
    losses, weight = trained(rows)
    assert len(losses) == 6
    for found in together(lambda: trained(rows), count):
        assert found[0] == pytest.approx(losses, rel=1e-6)
        assert found[1] == pytest.approx(weight, rel=1e-5)


def test_a_loss_that_is_no_number_on_one_process_stops_all_of_them():
    rows = [[0.5], [0.6], [float("nan"), 0.7]]
    found = together(lambda: trained(rows, batch_size=2))
    assert {type(error) for error in found} == {CellError}
    assert len({str(error) for error in found}) == 1
    assert "the loss is nan at step" in str(found[0])


def test_a_model_is_sharded_but_while_it_is_assembled():
    config = cell("squad", "roberta")

    def step() -> list[bool]:
        model = zeroinit.attach(build(config, "span").model, config.method)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        trained = parallel.Parameters(model, zeroinit.trainable(model))
        optimizer = torch.optim.AdamW(trained.values())
        prepared = parallel.prepared(model, optimizer, "no")
        assert prepared.optimizer.param_groups[0]["params"] == list(trained.values())

        def parts() -> bool:
            return all(isinstance(p, DTensor) for p in [*model.parameters(), *trained.values()])

        found = [parts()]
        with parallel.assembled(prepared.model):
            assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
            assert not any(isinstance(p, DTensor) for p in trained.values())
        return [*found, parts()]

    assert together(step, **SHARDED) == [[True, True]] * 2


# Cells


def alone_and_together(config: Run, folder: Path, **environment: str) -> tuple[dict[str, Any], dict[str, Any]]:
    one, two = Store(folder / "one"), Store(folder / "two")
    run(config, one)
    assert [cell.name for cell in together(lambda: run(config, two), **environment)] == [config.cell] * 2
    assert two.names() == [config.cell]
    found = parts(two, config.cell)
    assert found["facts"]["device"] == f"2 × {parts(one, config.cell)['facts']['device']}"
    return parts(one, config.cell), found


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ZEROINIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


TRAINED = {
    "span": lambda: cell("squad", "roberta"),
    "tokens": lambda: cell("instruct", "llama", settings={"max_length": 256, "max_new_tokens": 6}),
    "classes": lambda: cell("vtab", "vit", dataset="clevr_count"),
    "pictures": lambda: cell("scienceqa", "llama", dataset="image", settings={"max_new_tokens": 3}),
    "grid": lambda: cell("squad", "roberta", "lora", {"grid": (1e-3, 1e30)}),
    "bf16": lambda: cell("squad", "roberta", settings={"precision": "bf16"}),
    **{method: partial(cell, "squad", "roberta", method) for method in methods.names() if method != "vpt"},
    "vpt": lambda: cell("vtab", "vit", "vpt", dataset="clevr_count"),
    "peeks": lambda: cell("squad", "roberta", "bitfit", {"epochs": 2, "selection": "best-dev-epoch"}),
}
"""Each kind of output, each method, and each way in which training talks to evaluation."""
LAUNCHES: dict[str, dict[str, str]] = {"copies": {}, "parts": SHARDED}
"""Data parallel, and FSDP2."""


ALWAYS = (("tokens", "copies"), ("span", "parts"))
"""A few that run each time; the others with --slow."""


@pytest.mark.parametrize(
    ("kind", "launch"),
    [
        pytest.param(kind, launch, marks=() if (kind, launch) in ALWAYS else pytest.mark.slow)
        for kind in TRAINED
        for launch in LAUNCHES
        if (kind, launch) != ("prompt", "parts")
    ],
)
def test_a_cell_trains_as_on_one_process(kind, launch, tmp_path, cache):
    config = TRAINED[kind]()
    one, two = alone_and_together(config, tmp_path, **LAUNCHES[launch])
    assert two["log"]["loss"][0] == pytest.approx(one["log"]["loss"][0], abs=2e-6)
    assert two["log"]["loss"] == pytest.approx(one["log"]["loss"], abs=1e-4)
    assert one["log"]["loss"][0] != one["log"]["loss"][-1]
    assert two["adapter"].keys() == one["adapter"].keys()
    apart = torch.cat([(two["adapter"][name] - tensor).abs().flatten() for name, tensor in one["adapter"].items()])
    # Where no direction is right, as of a bias before softmax, AdamW makes whole steps of what is left by rounding.
    assert (apart > 1e-3).float().mean() < 0.02
    facts = ("trainable_params", "head_params", "total_params", "n_fit", "fingerprint", "learning_rate")
    assert {key: two["facts"][key] for key in facts} == {key: one["facts"][key] for key in facts}
    for split, records in one["records"].items():
        assert ids(two["records"][split]) == ids(records)
    assert len(two["log"]["trials"]) == len(one["log"]["trials"])
    assert [epoch for epoch, _ in two["log"]["peeks"]] == [epoch for epoch, _ in one["log"]["peeks"]]


@pytest.mark.slow
def test_a_method_that_cannot_be_sharded_is_refused(tmp_path):
    """Its prompt lies in the token embedding, and is read before that runs."""
    config = cell("squad", "roberta", "prompt")
    found = together(lambda: run(config, Store(tmp_path)), **SHARDED)
    assert [str(error) for error in found] == [
        "FSDP cannot shard this method on this backbone: launch it data parallel"
    ] * 2


ANSWERED = {
    "span": lambda: cell("squad", "roberta", "frozen", dataset="v2.0", limit=None),
    "tokens": lambda: cell(
        "instruct", "llama", "frozen", {"max_length": 256, "max_new_tokens": 6, "temperature": 0.7}, dataset="ifeval"
    ),
}


@pytest.mark.parametrize("kind", ["tokens", pytest.param("span", marks=pytest.mark.slow)])
def test_each_example_is_answered_once_and_as_on_one_process(kind, tmp_path, cache):
    one, two = alone_and_together(ANSWERED[kind](), tmp_path)
    assert two["records"] == one["records"]
    assert two["scores"] == one["scores"]
    answered = ids(one["records"]["report.jsonl.gz"])
    assert len(set(answered)) == len(answered) > 4


@pytest.mark.slow
def test_a_saved_adapter_answers_as_on_one_process(tmp_path, cache):
    sharded = cell("squad", "roberta", "zero_init", {"steps": 6, "learning_rate": 0.05})
    together(lambda: run(sharded, Store(tmp_path)), **SHARDED)
    saved = cell("squad", "roberta", adapter=Store(tmp_path).cells / sharded.cell / "adapter")
    one, two = alone_and_together(saved, tmp_path)
    assert two["records"] == one["records"]
    trained = parts(Store(tmp_path), sharded.cell)["records"]
    assert trained["report.jsonl.gz"] == one["records"]["report.jsonl.gz"]
