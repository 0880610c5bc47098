"""One cell on several processes, as torchrun and `accelerate launch` start them: their shares, and what all agree on.

Every process runs the same program. Work is divided by `share`; what only one may do, the first does and tells the
others; a refusal of one is everybody's. A process that was started alone is the first of one, and talks to nobody.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from tasks.bench.errors import CellError, InputError

Item = TypeVar("Item")
PATIENCE = timedelta(hours=12)
"""How long one process waits for another that is busy; the launcher ends the others of one that died."""


@dataclass
class _Place:
    """Which process this is, of how many."""

    index: int = 0
    count: int = 1
    joined: bool = False


_here = _Place()


def join() -> None:
    """Meet the others, where a launcher started this process among several; all but the first fall silent."""
    if _here.joined or not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # data parallelism would warn that each parameter is used
    import torch

    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.distributed.init_process_group(backend, timeout=PATIENCE)
    _here.index, _here.count = torch.distributed.get_rank(), torch.distributed.get_world_size()
    _here.joined = True
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # or transformers would give the others empty weights
    if not first():
        _fall_silent()


def leave() -> None:
    """Part from the others, once all of them have come here."""
    if not _here.joined:
        return
    import torch

    _meet()
    torch.distributed.destroy_process_group()
    _here.index, _here.count, _here.joined = 0, 1, False


def alone(what: str) -> None:
    """Refuse several processes for what starts processes of its own.

    Raises:
        InputError: a launcher started several.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        join()
        raise InputError(f"{what} starts processes of its own: start it alone, or one cell as python -m tasks.TASK")


def index() -> int:
    """Which process this is, counted from 0."""
    return _here.index


def count() -> int:
    """How many processes run this cell."""
    return _here.count


def first() -> bool:
    """Whether this is the one that writes and speaks."""
    return _here.index == 0


def share(items: Sequence[Item]) -> Sequence[Item]:
    """This process's part of what is divided among all: every so many-th item; none where there are too few."""
    return items[_here.index :: _here.count]


def total(number: float) -> float:
    """The sum of every process's number."""
    return _meet(number)


def gathered(value: Item) -> list[Item]:
    """What each process has, in their order."""
    _meet()
    return _all(value)


def told(step: Callable[[], Item]) -> Item:
    """What a step gives on the first process, which alone takes it; all are told, of its refusal too."""
    value: Any = None
    with agreed():
        if first():
            value = step()
    return _all(value)[0]


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """Around what each process does by itself: a refusal of one is raised on all of them at the end of the block."""
    error = None
    try:
        yield
    except (InputError, CellError) as caught:
        if hasattr(caught, "agreed"):
            raise
        error = caught
    _meet(error=error)


def _meet(number: float = 0.0, error: Exception | None = None) -> float:
    """The sum of all numbers, unless one failed. All that is agreed on begins here, so who fails elsewhere comes here.

    Raises:
        Exception: what this process failed with, else the first of the others.
    """
    if _here.count == 1:
        if error is not None:
            raise error
        return number
    import torch

    summed = torch.tensor([number, float(error is not None)], dtype=torch.float64)
    torch.distributed.all_reduce(summed)
    if summed[1]:
        failures = _all(error)
        failure: Any = error or next(theirs for theirs in failures if theirs)
        failure.agreed = True
        raise failure
    return float(summed[0])


def _all(value: Item) -> list[Item]:
    """The value of each process."""
    if _here.count == 1:
        return [value]
    import torch

    found: list[Any] = [None] * _here.count
    torch.distributed.all_gather_object(found, value)
    return found


def _fall_silent() -> None:
    """The first process speaks for all; another tells only what it dies of."""
    sys.excepthook = lambda *error: traceback.print_exception(*error, file=sys.__stderr__)
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
