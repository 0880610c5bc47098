"""Golden cases: a metric is trusted where it says of made-up answers what the official script says of them.

`tasks/golden/<task>.py` holds the `CASES` of a task: a file's name is its registration. Each run tests the metrics of
its own data set before it trains, `python -m tasks doctor` all of them.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.bench import discover
from tasks.bench import task as tasks
from tasks.bench.errors import CellError, InputError

Numbers = Mapping[str, float | None]


@dataclass(frozen=True)
class Case:
    """One set of made-up answers.

    Attributes:
        name: what is tested.
        by: who says so, as "the official evaluate-v1.1.py".
        official: their numbers.
        found: computes ours; there may be more of them.
        cells: the data sets whose cells rest on it; none: it is not a cell that does.
        tolerance: how far apart they may be: half a unit of the last digit that was printed.
        slow: whether it takes more than a second or two.
    """

    name: str
    by: str
    official: Mapping[str, float]
    found: Callable[[], Numbers]
    cells: Sequence[str] = ()
    tolerance: float = 1e-9
    slow: bool = False

    def trouble(self) -> str | None:
        """What is wrong with the metric; None: nothing.

        Raises:
            InputError: an optional part that it needs is not installed.
        """
        try:
            found = self.found()
        except InputError:
            raise
        except Exception as error:  # whatever it is, such a metric is not to be trusted
            return f"{self.name} ends in {type(error).__name__}: {error}"
        for key, value in self.official.items():
            ours = found.get(key)
            if ours is None or not math.isclose(ours, value, rel_tol=0, abs_tol=self.tolerance):
                return f"{self.name}: {key} is {ours} here, and {value} by {self.by}"
        return None


def cases(task: str) -> Sequence[Case]:
    """Those of a task; none where it has no file of them."""
    return discover.load("golden", task).CASES if task in discover.names("golden") else ()


def scored(
    task: str, dataset: str, examples: Sequence[Any], predictions: Sequence[Any], **settings: Any
) -> dict[str, float]:
    """What a cell would make of these predictions: by the task's own records and metrics."""
    from tasks.bench.config import Choice
    from tasks.bench.suite import single

    bench = tasks.get(task)
    run = single(Choice(task, bench.backbone, "frozen", dataset=dataset, device="cpu"), settings)
    records = bench.records(examples, predictions, run)
    return {name: score.value for name, score in bench.metrics(records, dataset).items()}


@functools.cache
def verified(task: str, dataset: str) -> bool:
    """Whether a cell's metrics are the official ones; False where nothing says what those would give.

    Raises:
        CellError: they are not.
        InputError: an optional part that they need is not installed.
    """
    mine = [case for case in cases(task) if dataset in case.cells]
    for case in mine:
        if trouble := case.trouble():
            raise CellError(f"the metrics of {task} are not the official ones: {trouble}; see python -m tasks doctor")
    return bool(mine)
