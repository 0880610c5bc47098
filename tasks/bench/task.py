"""What the bench asks of a task, and what passes between the two."""

import abc
import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from tasks.bench import discover
from tasks.bench.errors import InputError
from tasks.bench.stats import standard_error

if TYPE_CHECKING:  # torch takes seconds to import, and tables need none
    import torch

Record = dict[str, Any]
"""One example as it was answered: its id, the prediction and its scores; never the input."""

FAULTS = ("extract_fail", "empty", "truncated")
"""What a record may say went wrong with its answer; it is counted, and never dropped."""


def faults(records: Sequence[Record]) -> dict[str, int | None]:
    """How many records say so of each fault; None where the task cannot tell."""
    told = {name: [record[name] for record in records if name in record] for name in FAULTS}
    return {name: sum(map(bool, said)) if said else None for name, said in told.items()}


class Term(NamedTuple):
    """One example's part in a metric: the metric is the mean of the values by their weights, in the metric's unit."""

    value: float
    weight: float = 1.0


class Score(NamedTuple):
    """A metric's value and its standard error over examples (None where it is not a mean)."""

    value: float
    stderr: float | None

    @classmethod
    def of(cls, value: float, terms: Sequence[Term] | None) -> "Score":
        """With the error that follows from the examples' parts; to first order where these weigh differently."""
        return cls(value, standard_error(*zip(*terms, strict=True)) if terms else None)


@dataclass(frozen=True)
class Data:
    """Splits by purpose: train on `fit`, choose on `tune`, report on `report`, and on `shift` where there is one.

    An example is whatever its task makes it, with an `id`.
    """

    fit: Sequence[Any]
    tune: Sequence[Any]
    report: Sequence[Any]
    expected: int
    """Examples in the whole report set; more than `len(report)` makes the run partial."""
    notes: Sequence[str] = field(default=())
    """What a reader of the numbers should know: records left out, passages shared."""
    whole: bool = True
    """Whether fit and tune are the whole sets, too; a run on less is partial."""
    shift: Sequence[Any] = field(default=())
    """Reported apart: what differs from all that is trained on; none where a data set has no such split."""


@dataclass(frozen=True)
class Rules:
    """How a task's literature comes to its numbers, beyond the settings of training."""

    name: str
    """The protocol, for people."""
    selection: str = "last step"
    """Which of the models seen in training the number is of."""
    retrain: bool = False
    """What is chosen on `tune` is then trained on `fit` and `tune` together."""
    peek_epochs: int = 0
    """Look at the report split every so many epochs and keep the best: only to compare with papers that did so."""
    peek_metric: str | None = None
    """By which metric; None: the first headline one."""


class Reader(Protocol):
    """Turns examples into rows of a batch, and what the model says about them into predictions."""

    pictures: Any
    """Gives the features of the examples' pictures (`tasks.bench.pictures`), where its method can be shown any."""

    def fit(self, examples: Sequence[Any]) -> Sequence[Any]:
        """Rows to learn from; `len(row)` is its number of tokens."""
        ...

    def ask(self, examples: Sequence[Any]) -> Sequence[Any]:
        """Rows to answer."""
        ...

    def collate(self, rows: Sequence[Any]) -> dict[str, "torch.Tensor"]:
        """One padded batch; of rows to learn from, each tensor has a first dimension of rows."""
        ...

    def loss(self, model: "torch.nn.Module", batch: Mapping[str, "torch.Tensor"]) -> "torch.Tensor":
        """What is minimized over a batch of rows to learn from, a mean.

        The model may be wrapped, as for data parallelism: it is called, and nothing in it is reached for.
        """
        ...

    def weight(self, batch: Mapping[str, "torch.Tensor"]) -> int:
        """How many terms that mean is over: several processes that share a batch weigh their parts by it."""
        ...

    def outputs(self, model: "torch.nn.Module", batch: Mapping[str, "torch.Tensor"]) -> Sequence["torch.Tensor"]:
        """What the model computes for such a batch; attaching a closed adapter must not change a bit of it."""
        ...

    def predict(self, model: "torch.nn.Module", batch: Mapping[str, "torch.Tensor"]) -> Sequence[Any]:
        """What the model says, one entry a row."""
        ...

    def decode(self, examples: Sequence[Any], rows: Sequence[Any], said: Sequence[Any]) -> Sequence[Any]:
        """One prediction an example."""
        ...


class Task(abc.ABC):
    """One benchmark; a file in `tasks/` holds exactly one."""

    version: ClassVar[int]
    """Raised whenever a number could change."""
    output: ClassVar[str]
    """What a backbone must be able to build: `lm`, `span` or `class`."""
    datasets: ClassVar[tuple[str, ...]]
    """What `--dataset` takes; the first is the default."""
    headline: ClassVar[Mapping[str, tuple[str, ...]]]
    """The metrics a comparison table shows, by dataset."""
    lower: ClassVar[frozenset[str]] = frozenset()
    """The metrics of which less is better."""
    neutral: ClassVar[frozenset[str]] = frozenset()
    """The metrics of which neither more nor less is better."""
    quotes: ClassVar[frozenset[str]] = frozenset()
    """The fields of records that hold words of the data: of real data, a snapshot has hashes in their place."""
    digits: ClassVar[Mapping[str, int]] = {}
    """Decimals that a table shows of a metric; 1 where nothing is said."""
    fields: ClassVar[type]
    """A frozen dataclass of whatever else its numbers depend on."""
    backbone: ClassVar[str] = "roberta"
    """The backbone of a command that names none."""
    aliases: ClassVar[Mapping[str, str]] = {}
    """What else a data set is called, and its name here."""
    apart: ClassVar[frozenset[str]] = frozenset()
    """Data sets that are no part of the summary."""

    def rules(self, run: Any) -> Rules:
        """The protocol."""
        return Rules(f"{run.choice.task} {run.dataset}, version {self.version}")

    def classes(self, run: Any) -> int:
        """How many classes there are; asked of tasks with the output `class` alone."""
        raise TypeError(f"{type(self).__name__} does not say how many classes there are")

    def summary(self, scores: Mapping[str, float]) -> Mapping[str, float | None]:
        """Numbers over several data sets, from the first headline metric of each; None: some that it needs are missing.

        A task whose data sets are never put together has none.
        """
        return {}

    def pictures(self, config: Mapping[str, Any], folder: Path | None) -> Mapping[str, Path]:
        """Pictures by example, for a report to show: of the generated world, or those in what was given as `--data`."""
        return {}

    @abc.abstractmethod
    def sources(self, run: Any) -> Mapping[str, Path]:
        """The files the numbers come from, by role; none where they are generated or from the hub."""

    @abc.abstractmethod
    def load(self, run: Any) -> Data:
        """The three splits."""

    @abc.abstractmethod
    def reader(self, tokenizer: Any, run: Any) -> Reader:
        """How this task's examples are read with that tokenizer."""

    @abc.abstractmethod
    def records(self, examples: Sequence[Any], predictions: Sequence[Any], run: Any) -> list[Record]:
        """One record an example, unrounded."""

    @abc.abstractmethod
    def metrics(self, records: Sequence[Record], dataset: str) -> dict[str, Score]:
        """Every number, from the records alone."""

    def terms(self, records: Sequence[Record], metric: str) -> list[Term] | None:
        """What each record gives to a metric that is a mean, so that two methods can be compared example by example.

        A record that has no part in it weighs 0. None for a metric that is no mean over examples, as BLEU or a
        perplexity.
        """
        return None

    def oracle(self, fit: Sequence[Any], examples: Sequence[Any], reader: Reader, run: Any) -> Sequence[Any]:
        """The predictions of who knows the answers.

        Raises:
            InputError: there are none to know.
        """
        raise InputError(f"--method oracle: {run.choice.task} {run.dataset} has no right answers, choose another")

    def majority(self, fit: Sequence[Any], examples: Sequence[Any], reader: Reader, run: Any) -> Sequence[Any]:
        """The predictions of who looks at no input: what is most frequent in the fit split.

        Raises:
            InputError: nothing is.
        """
        raise InputError(f"--method majority: {run.choice.task} {run.dataset} has no frequent answer, choose another")

    @abc.abstractmethod
    def score(self, predictions: Path, references: Path) -> dict[str, Any]:
        """The official metric alone; further keyword arguments are options of `score`."""


@functools.cache
def get(name: str) -> Task:
    """The task of a file in `tasks/`."""
    module = discover.load("task", name)
    found = [
        kind
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, Task) and kind.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise InputError(f"tasks/{name}.py holds {len(found)} tasks, where one belongs")
    return found[0]()
