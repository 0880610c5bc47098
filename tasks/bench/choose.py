"""What may be chosen, and on which split: the learning rate on tune; never a model on report, but for comparison."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from tasks.bench.config import Run
from tasks.bench.errors import CellError, InputError
from tasks.bench.train import History


@dataclass(frozen=True)
class Trial:
    """A learning rate, and what it came to on the tune split; None where training failed."""

    learning_rate: float
    value: float | None


class Learned(NamedTuple):
    """What a training left behind, for the model to be put together again without it."""

    history: History
    tensors: Mapping[str, torch.Tensor]


class Chosen(NamedTuple):
    """The run as it is to be trained, the trials that led to it, and what the best of them learned."""

    run: Run
    trials: Sequence[Trial] = ()
    learned: Learned | None = None

    @property
    def note(self) -> str | None:
        """A warning, where the best of a grid is at its end: a wider one could have held a better one."""
        rates = sorted(self.run.training.rates) if self.trials else []
        if len(rates) < 2 or self.run.training.learning_rate not in (rates[0], rates[-1]):
            return None
        return f"the best learning rate, {self.run.training.learning_rate:g}, is at the end of its grid"


def learning_rate(config: Run, attempt: Callable[[Run], tuple[float, Learned | None]]) -> Chosen:
    """The run with the best learning rate of its grid, the smaller one of equals; without a grid, the run as it is.

    Raises:
        CellError: training failed with each of them.
    """
    if not config.training.rates or not config.trains:
        return Chosen(config)
    runs = {
        rate: replace(config, training=replace(config.training, learning_rate=rate)) for rate in config.training.rates
    }
    trials: list[Trial] = []
    best, chosen = -math.inf, None
    for rate in sorted(runs):
        try:
            value, learned = attempt(runs[rate])
        except CellError:
            trials.append(Trial(rate, None))
            continue
        trials.append(Trial(rate, value))
        if chosen is None or value > best:  # what the others learned need not be kept
            best, chosen = value, Chosen(runs[rate], trials, learned)
    if chosen is None:
        raise CellError(f"training fails with each learning rate of {sorted(runs)}: give a grid of lower ones")
    return chosen


@torch.no_grad()
def put(parameters: Mapping[str, torch.nn.Parameter], tensors: Mapping[str, torch.Tensor]) -> None:
    """Give parameters these values."""
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])


@dataclass
class Peeks:
    """Looks at a score every so many epochs, and keeps the parameters as they were at the best one.

    Attributes:
        every: epochs between two looks.
        score: of the model as it is.
        parameters: what trains.
        seen: the epoch and the score of each look.
    """

    every: int
    score: Callable[[], float]
    parameters: Mapping[str, torch.nn.Parameter]
    seen: list[tuple[int, float]] = field(default_factory=list)
    best: dict[str, torch.Tensor] = field(default_factory=dict)

    def __call__(self, epoch: int) -> None:
        """After each epoch."""
        if epoch % self.every:
            return
        value = self.score()
        if all(value > earlier for _, earlier in self.seen):
            self.best = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.seen.append((epoch, value))

    def restore(self) -> None:
        """Put the best parameters back.

        Raises:
            InputError: training was too short for a single look.
        """
        if not self.seen:
            raise InputError(f"this protocol looks every {self.every} epochs: train for epochs={self.every} or more")
        put(self.parameters, self.best)
