"""The loop: its schedule, its batches, and that it stops where it must."""

import pytest
import torch

from tasks.bench.config import Training
from tasks.bench.errors import CellError
from tasks.bench.train import batches_by_length, share_of_rate, train


def test_the_rate_rises_for_a_tenth_and_falls_to_zero():
    training = Training(steps=100)
    shares = [share_of_rate(step, training) for step in range(100)]
    assert shares[0] == 0.1
    assert shares[9] == shares[10] == 1.0
    assert shares[55] == pytest.approx(0.5)
    assert shares[99] == pytest.approx(1 / 90)
    assert share_of_rate(0, Training(steps=1)) == 1.0
    assert share_of_rate(0, Training(steps=4, warmup=1.0)) == 0.25


def test_a_pass_sees_every_row_once_and_pads_little():
    lengths = [(7 * n) % 50 + 10 for n in range(100)]
    batches = batches_by_length(lengths, 8, seed=0)
    passed = [next(batches) for _ in range(13)]
    assert sorted(place for batch in passed for place in batch) == list(range(100))
    padding = sum(max(lengths[p] for p in batch) * len(batch) for batch in passed) - sum(lengths)
    assert padding < 0.15 * sum(lengths)
    assert [next(batches) for _ in range(13)] != passed


def test_the_order_follows_the_seed_alone():
    one, same, other = (batches_by_length([5] * 40, 4, seed) for seed in (1, 1, 2))
    first = [next(one) for _ in range(25)]
    assert first == [next(same) for _ in range(25)]
    assert first != [next(other) for _ in range(25)]


class Line(torch.nn.Module):
    """The mean of (w x)²."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.frozen = torch.nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, x: torch.Tensor):
        return (self.weight * x).square().mean()


class Rows:
    """A reader of numbers."""

    def fit(self, examples):
        return [[example] for example in examples]

    def collate(self, rows):
        return {"x": torch.tensor([row[0] for row in rows])}

    def loss(self, model, batch):
        return model(**batch)

    def weight(self, batch):
        return len(batch["x"])


def test_what_was_not_named_does_not_move():
    model = Line()
    history = train(model, {"weight": model.weight}, Rows(), [1.0, 2.0], Training(steps=5, learning_rate=0.1), 0)
    assert model.weight.item() < 1.0 == model.frozen.item()
    assert len(history.losses) == 5
    assert history.losses[-1] < history.losses[0]


def test_a_loss_that_is_no_number_stops_the_cell_and_says_when():
    model = Line()
    rows = [1.0] * 6 + [float("nan")]
    with pytest.raises(CellError, match=r"the loss is nan at step \d of 7: lower learning_rate"):
        train(model, {"weight": model.weight}, Rows(), rows, Training(steps=7, batch_size=1), 0)
    assert model.weight.isfinite()


def test_an_empty_fit_split_is_said():
    with pytest.raises(CellError, match="the fit split is empty"):
        train(Line(), {}, Rows(), [], Training(), 0)


def test_a_factor_that_cannot_learn_stops_the_cell():
    """As the adapter baseline whose two maps both start at zero."""
    down, up = (torch.nn.Parameter(torch.zeros(())) for _ in range(2))

    class Dead(Line):
        def forward(self, x: torch.Tensor):
            return (self.weight * x + up * down * x).square().mean()

    model = Dead()
    model.down, model.up = down, up
    parameters = dict(model.named_parameters())
    del parameters["frozen"]
    training = Training(steps=6, learning_rate=0.1)
    with pytest.raises(CellError, match="no gradient reached down, up in 5 steps"):
        train(model, parameters, Rows(), [1.0, 2.0], training, 0, planted=parameters)
    with torch.no_grad():
        down.fill_(1)
    assert len(train(model, parameters, Rows(), [1.0, 2.0], training, 0, planted=parameters).losses) == 6
