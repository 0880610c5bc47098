"""How long a cell will take: as long as finished ones like it took, by the examples that it trains on."""

import contextlib
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.bench.config import Run
from tasks.bench.store import Store

ENOUGH = 20
"""Finished cells alike that are looked at."""


@dataclass(frozen=True)
class Took:
    """What a finished cell took: so much whatever it trains on, and so much for each example."""

    fixed: float
    each: float
    fit: int

    def estimate(self, training: Mapping[str, Any]) -> float:
        """The seconds of a cell with these settings of training."""
        return self.fixed + self.each * _examples(training, self.fit) * (1 + len(training["grid"]))


def estimates(runs: Sequence[Run], store: Store) -> dict[str, float | None]:
    """Seconds by cell; None where nothing like it is finished: the same task, tier, backbone, method and device.

    Cells of the same data set come first, since sets differ in size.
    """
    took = _took(store) if runs else {}
    found: dict[str, float | None] = {}
    for run in runs:
        identity = run.identity
        alike = next((took[kind] for kind in _kinds(identity) if kind in took), [])
        seconds = [each.estimate(identity["settings"]["training"]) for each in alike]
        found[run.cell] = statistics.median(seconds) if seconds else None
    return found


def _took(store: Store) -> dict[tuple[Any, ...], list[Took]]:
    found: dict[tuple[Any, ...], list[Took]] = defaultdict(list)
    for name in _some(store.names()):
        if store.has(name):
            config, result = store.config(name), store.result(name)
            with contextlib.suppress(
                KeyError, TypeError, ValueError, ArithmeticError, AttributeError
            ):  # what is no cell is told elsewhere
                measured = _measured(config["settings"]["training"], result)
                for kind in _kinds(config):
                    found[kind].append(measured)
    return found


def _some(names: Iterable[str]) -> list[str]:
    """Enough of each sort, which is a cell's name without its seed and hash."""
    seen: Counter[str] = Counter()
    some = []
    for name in names:
        sort = name.rsplit("-", 2)[0]
        seen[sort] += 1
        if seen[sort] <= ENOUGH:
            some.append(name)
    return some


def _kinds(config: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """What cells have in common that take about as long, the closest first."""
    shared = tuple(config[key] for key in ("task", "tier", "backbone", "method", "device"))
    return [(*shared, config["dataset"]), shared]


def _measured(training: Mapping[str, Any], result: Mapping[str, Any]) -> Took:
    facts = result["facts"]
    fit = facts["n_fit"]
    runs = 1 + (facts["trials"] if facts.get("grid") else 0)
    examples = runs * _examples(training, fit)
    scored = sum(part["eval_seconds"] for part in result["splits"].values())
    whole = facts.get("seconds", facts["train_seconds"] * runs + scored)
    trained = min(whole, facts["train_seconds"] * runs)  # a trial that is kept is not trained again
    return Took(whole - trained, trained / examples if examples else 0.0, fit)


def _examples(training: Mapping[str, Any], fit: int) -> int:
    """How many examples training looks at, repeats counted."""
    if training["epochs"] is not None:
        return int(training["epochs"]) * fit
    return int(training["steps"]) * int(training["batch_size"])
