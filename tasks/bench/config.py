"""Everything a number depends on, resolved before anything runs; its hash names the cell.

Settings come in three groups: `training` (below), `task` (the task's own fields) and `method` (the method's own).
Later ones win: the defaults of the dataclasses, the suite file of the tier, then `--set`.
"""

import dataclasses
import functools
import hashlib
import json
import math
import os
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tasks.bench import task as tasks
from tasks.bench.digests import digest, named
from tasks.bench.errors import InputError
from tasks.bench.settings import assign, check_finite, merged

BENCH_VERSION = 1
"""Raised where cells of before and after a change must not stand together; that their code has changed, they tell."""

BASELINES = ("oracle", "majority")
"""Methods that are none: a task says by itself, in a function of that name, what each predicts, to read rows by."""
FITTED = ("majority",)
"""Those of them that look at the fit split."""
UNTRAINED = ("frozen", *BASELINES)
"""What attaches nothing to the backbone."""

Tier = Literal["mini", "pocket", "paper"]
TIERS: tuple[str, ...] = typing.get_args(Tier)
GENERATED: Tier = "mini"
"""The tier whose data this project makes itself, every word and picture of them."""


@dataclass(frozen=True)
class Training:
    """How every method is trained and scored."""

    steps: int = 500
    epochs: int | None = None  # instead of steps: so often over all rows, the last batch of each pass may be smaller
    batch_size: int = 16  # of a step, over all processes
    learning_rate: float = 1e-3
    # Learning rates to choose from on the tune split, instead of the one above; "declared": the method's own three.
    grid: tuple[float, ...] | Literal["declared"] = ()
    warmup: float = 0.1  # share of the steps; then a decay to zero
    schedule: Literal["linear", "cosine"] = "linear"
    weight_decay: float = 0.01
    clip: float = 1.0
    dropout: float = 0.0
    precision: Literal["no", "bf16", "fp16"] = "no"
    threads: int = 1
    eval_batch_size: int = 32
    fit_limit: int | None = None  # learn from so many examples at most; the other splits stay whole
    tune_limit: int | None = None  # choose by so many examples of the tune split at most
    fit_sample: int = 200  # examples of the fit split that are scored too, to show the gap

    def __post_init__(self) -> None:
        self._need("a number above 0", lambda value: value > 0, *("batch_size", "eval_batch_size", "threads"))
        self._need("a number above 0", lambda value: value > 0, *("learning_rate", "clip"))
        self._need("1 or more", lambda value: value is None or value >= 1, *("fit_limit", "tune_limit"))
        self._need("0 or more", lambda value: value is None or value >= 0, *("epochs", "steps", "fit_sample"))
        self._need("0 or more", lambda value: value >= 0, "weight_decay")
        self._need("a share from 0 to 1", lambda value: 0 <= value <= 1, *("dropout", "warmup"))
        self._need("learning rates above 0", _are_rates, "grid")

    def _need(self, wanted: str, fine: Callable[[Any], bool], *names: str) -> None:
        for name in names:
            if not fine(value := getattr(self, name)):
                raise InputError(f"{name} is {value}: give {wanted}")

    @property
    def rates(self) -> tuple[float, ...]:
        """The grid, once it is known whose."""
        return () if isinstance(self.grid, str) else self.grid

    def over(self, rows: int) -> "Training":
        """The same with its steps counted, for so many rows to learn from."""
        if self.epochs is None:
            return self
        return dataclasses.replace(self, steps=self.epochs * self.epoch(rows), epochs=None)

    def epoch(self, rows: int) -> int:
        """Steps of one pass over so many rows."""
        return math.ceil(rows / self.batch_size)


def _are_rates(grid: Any) -> bool:
    return grid == "declared" or all(isinstance(rate, int | float) and rate > 0 for rate in grid)


@dataclass(frozen=True)
class Choice:
    """What the flags of a task command say: which cell is wanted."""

    task: str
    backbone: str
    method: str
    tier: str = "mini"
    dataset: str | None = None
    seed: int = 0
    checkpoint: str | None = None
    train: Path | None = None
    eval: Path | None = None
    data: Path | None = None
    adapter: Path | None = None
    limit: int | None = None
    device: str = "auto"
    skip_bad: int = 0

    @property
    def generated(self) -> bool:
        """Whether the data are made here, with none of the user's own."""
        return self.tier == GENERATED and not (self.train or self.eval or self.data)

    def folder(self, made: Callable[[], Path]) -> Path | None:
        """Where the data lie: `--data`, or the folder made here; None for files given alone and for a hub."""
        return self.data or (made() if self.generated else None)

    @property
    def given(self) -> dict[str, Path]:
        """The files of `--train` and `--eval` by role; one that is both stands as `eval` alone, to be divided."""
        found = {role: path for role, path in (("train", self.train), ("eval", self.eval)) if path}
        if len(found) == 2 and digest(found["train"]) == digest(found["eval"]):
            del found["train"]  # nobody is to be judged on what it was trained on
        return found


@dataclass(frozen=True)
class Run:
    """A cell, resolved: the choice and every setting."""

    choice: Choice
    device: str
    training: Training
    task: Any
    method: Any | None
    """The method's dataclass; None attaches nothing and trains nothing."""

    @property
    def dataset(self) -> str:
        """The data set among the task's."""
        return str(self.choice.dataset)

    @property
    def is_told(self) -> bool:
        """Whether the task itself says what is predicted, and the model is not asked."""
        return self.choice.method in BASELINES

    @property
    def trains(self) -> bool:
        """Whether anything is learned: not by a frozen model, nor by an adapter that was saved."""
        training = self.training
        long = training.steps if training.epochs is None else training.epochs
        return self.method is not None and self.choice.adapter is None and long > 0

    @property
    def fits(self) -> bool:
        """Whether the fit split is looked at: to train on, or for what is frequent in it."""
        return self.trains or self.choice.method in FITTED

    def divides(self, role: str) -> bool:
        """Whether one file alone becomes fit, tune and report; `--eval` stays whole where nothing is fitted."""
        return self.fits or role != "eval"

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What the cell's hash is taken of: files by content, no paths."""
        choice, task = self.choice, tasks.get(self.choice.task)
        return {
            "task": choice.task,
            "dataset": self.dataset,
            "tier": choice.tier,
            "backbone": choice.backbone,
            "checkpoint": named(choice.checkpoint),
            "method": named(choice.method) if choice.method.endswith(".py") else choice.method,
            "seed": choice.seed,
            "sources": {role: named(str(path)) for role, path in sorted(task.sources(self).items())},
            "adapter": named(choice.adapter and str(choice.adapter)),
            "limit": choice.limit,
            "skip_bad": choice.skip_bad,
            "device": self.device,
            "settings": self.settings,
            "versions": {"bench": BENCH_VERSION, "task": task.version},
        }

    def seeded(self, seed: int) -> "Run":
        """The same run of another seed, by which alone the identity differs: no file is looked at again."""
        run = dataclasses.replace(self, choice=dataclasses.replace(self.choice, seed=seed))
        vars(run)["identity"] = {**self.identity, "seed": seed}
        return run

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Every field of the three groups."""
        groups = {"training": self.training, "task": self.task, "method": self.method}
        return {name: _plain(group) if group is not None else {} for name, group in groups.items()}

    @functools.cached_property
    def cell(self) -> str:
        """The cell's name."""
        return name_of(self.identity)


def _plain(group: Any) -> dict[str, Any]:
    """A dataclass's fields, as `asdict` gives them, which copies every value and takes most of a plan's time."""
    values = {field.name: getattr(group, field.name) for field in dataclasses.fields(group)}
    return {name: _plain(value) if dataclasses.is_dataclass(value) else value for name, value in values.items()}


def name_of(identity: Mapping[str, Any]) -> str:
    """A cell's name: readable, then a hash of its identity."""
    text = json.dumps(identity, sort_keys=True, default=str)
    names = (identity["task"], identity["dataset"], identity["backbone"], Path(identity["method"]).stem)
    return "-".join((*names, f"s{identity['seed']}", hashlib.sha256(text.encode()).hexdigest()[:10]))


def is_generated(identity: Mapping[str, Any]) -> bool:
    """Whether a cell's data are those that are made here: it is of their tier, and names no other file."""
    sources = identity["sources"]
    return identity["tier"] == GENERATED and (not sources or sources == _made(identity["task"], identity["dataset"]))


@functools.cache
def _made(task: str, dataset: str) -> dict[str, str | None]:
    """What a cell of generated data names as its sources."""
    return resolve(Choice(task, "", "frozen", dataset=dataset, device="cpu")).identity["sources"]


def settle(choice: Choice) -> Choice:
    """The choice with its defaults in place: the task's first dataset, and a saved adapter's own method.

    Raises:
        InputError: a name or file that is not there, or a number out of range.
    """
    task = tasks.get(choice.task)
    if choice.tier not in TIERS:
        raise InputError(f"--tier {choice.tier!r} does not exist: choose one of {', '.join(TIERS)}")
    dataset = task.aliases.get(choice.dataset or "", choice.dataset) or task.datasets[0]
    if dataset not in task.datasets:
        raise InputError(f"--dataset {dataset!r} does not exist: choose one of {', '.join(task.datasets)}")
    if choice.limit is not None and choice.limit < 1:
        raise InputError(f"--limit is {choice.limit}: give 1 or more")
    if not 0 <= choice.seed < 2**32:
        raise InputError(f"--seed is {choice.seed}: give a whole number from 0 to {2**32 - 1}")
    for flag in ("train", "eval", "data", "adapter"):
        path = getattr(choice, flag)
        if path is not None and not path.exists():
            raise InputError(f"--{flag} {path} does not exist: give one that does")
    method = _adapted(choice, choice.adapter) if choice.adapter else choice.method
    return dataclasses.replace(choice, dataset=dataset, method=method)


def _adapted(choice: Choice, adapter: Path) -> str:
    """The method of a saved adapter; one of a user's own file is read by that file alone, as `--method` gives it."""
    own = choice.method.endswith(".py")
    if own:
        _method(choice.method)  # runs it, so that it is known
    saved = _saved(adapter)[0]
    if (own or saved.endswith(".py")) and Path(choice.method).name != saved:
        raise InputError(f"--adapter {adapter} was trained by {saved}, not by {choice.method}: give that as --method")
    return choice.method if own else saved


def resolve(choice: Choice, *settings: Mapping[str, Any]) -> Run:
    """The run of a settled choice; later settings win.

    Raises:
        InputError: a key or value that does not fit, with those that do.
    """
    method = _method(choice.method)
    kinds = {"training": Training, "task": tasks.get(choice.task).fields} | ({"method": method} if method else {})
    values = assign(kinds, merged(settings))
    if choice.adapter:
        values["method"] = _saved(choice.adapter)[1]
    if values["training"].get("grid") == "declared":
        values["training"]["grid"] = method.rates if method else ()
    try:
        groups = {name: kind(**values[name]) for name, kind in kinds.items()}
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"--method {choice.method}: {error}") from error
    check_finite(groups)
    return Run(choice, _device(choice.device), groups["training"], groups["task"], groups.get("method"))


def _saved(folder: Path) -> tuple[str, dict[str, Any]]:
    """The method of a saved adapter, and its fields."""
    from zeroinit import methods
    from zeroinit.checkpoint import saved_method

    try:
        method = saved_method(folder)
    except ValueError as error:
        raise InputError(f"--adapter {error}") from None
    return methods.name_of(method), vars(method)


def _method(name: str) -> type | None:
    if name in UNTRAINED:
        return None
    from zeroinit import methods

    if name.endswith(".py"):
        try:
            return methods.from_file(Path(name).resolve(strict=True))
        except (OSError, ValueError, ImportError, SyntaxError) as error:
            raise InputError(f"--method {name} cannot be used: {error}") from error
    if name not in methods.names():
        raise InputError(
            f"there is no method {name!r}: choose one of {', '.join(sorted([*methods.names(), *UNTRAINED]))}"
        )
    return methods.get(name)


def _device(name: str) -> str:
    import torch

    # The launch of several processes may keep them on the CPU by this variable, which accelerate obeys.
    cuda = torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "").lower() not in ("true", "1", "yes")
    if name == "auto":
        return "cuda" if cuda else "cpu"
    available = {"cpu": True, "cuda": cuda, "mps": torch.backends.mps.is_available()}
    if not available.get(name):
        raise InputError(
            f"--device {name} is not available: choose one of auto, "
            + ", ".join(device for device, there in available.items() if there)
        )
    return name
