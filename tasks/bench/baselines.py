"""What needs no model: a task's own predictions, as rows beside those of models, and judged by the same metrics.

`oracle` gives the right answers, and shows what is to be reached. `majority` looks at the fit split and at no input,
and shows what is to be beaten. Neither takes part in the comparison: no method is called worse than the oracle.
"""

from collections.abc import Sequence
from typing import Any

from tasks.bench.config import BASELINES, Run
from tasks.bench.task import Data, Reader, Task


def predictions(config: Run, task: Task, data: Data, reader: Reader, examples: Sequence[Any]) -> Sequence[Any] | None:
    """One an example; None where the run's method is none of these.

    Raises:
        InputError: the task cannot say.
    """
    match config.choice.method:
        case "oracle":
            return task.oracle(examples, reader, config)
        case "majority":
            return task.majority(data.fit, examples, reader, config)
    assert config.choice.method not in BASELINES
    return None
