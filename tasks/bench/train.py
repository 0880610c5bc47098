"""One loop for every method and task: AdamW, a linear warm-up and a decay, gradients clipped.

Several processes share each batch, and make of it the step that one would make. What a model drops in training, each
draws for its own rows.
"""

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import send_to_device, slice_tensors

from tasks.bench import parallel, processes
from tasks.bench.alive import Watch, exactly, finite
from tasks.bench.config import Training
from tasks.bench.errors import CellError
from tasks.bench.progress import progress
from tasks.bench.task import Reader
from zeroinit.checkpoint import whole

LOOKS = 20
"""How often a run's gates are looked at."""


@dataclass(frozen=True)
class History:
    """What training left behind.

    Attributes:
        losses: of each step.
        seconds: how long it took.
        peeks: looks at the report split, if any: the epoch and the score.
        gates: how far each gate stood open, by layer, after so many steps; none where a method has none.
    """

    losses: Sequence[float] = field(default=())
    seconds: float = 0.0
    peeks: Sequence[tuple[int, float]] = field(default=())
    gates: Sequence[tuple[int, Mapping[str, Sequence[float]]]] = field(default=())


def train(
    model: torch.nn.Module,
    parameters: Mapping[str, torch.nn.Parameter],
    reader: Reader,
    examples: Sequence[Any],
    training: Training,
    seed: int,
    after_epoch: Callable[[int], None] | None = None,
    planted: Mapping[str, torch.nn.Parameter] | None = None,
    look: Callable[[], Mapping[str, torch.Tensor]] = dict,
) -> History:
    """Train these parameters in place; `after_epoch` is told how many passes are over, off the clock.

    `planted` are those that must learn, `look` tells the gates.

    Raises:
        CellError: a loss or a parameter is not finite, there is nothing to learn from, or a factor of what was
            planted cannot learn.
    """
    watch = Watch(planted or {})
    with processes.agreed():
        rows = reader.fit(examples)
        if not rows:
            raise CellError("there is nothing to train on: the fit split is empty")
    exactly(model, parameters)
    if not processes.first():  # what is dropped of other rows, too
        torch.manual_seed(seed + processes.index())
    training, epoch = training.over(len(rows)), training.epoch(len(rows))
    began = time.perf_counter()
    optimizer = torch.optim.AdamW(parameters.values(), training.learning_rate, weight_decay=training.weight_decay)
    accelerator, model, optimizer = parallel.prepared(model, optimizer, training.precision)
    trained = list(parameters.values())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share_of_rate(step, training))
    losses: list[float] = []
    gates: list[tuple[int, Mapping[str, Sequence[float]]]] = []
    model.train()
    batches = batches_by_length([len(row) for row in rows], training.batch_size, seed)
    for step in progress(range(training.steps), "train"):
        batch, part = shared(reader, [rows[place] for place in next(batches)])
        with accelerator.autocast(), parallel.forward():
            loss = reader.loss(model, to_device(batch, accelerator.device)) * part
        losses.append(processes.total(loss.item()) / processes.count())
        if not math.isfinite(losses[-1]):
            raise CellError(f"the loss is {losses[-1]} at step {step + 1} of {training.steps}: lower learning_rate")
        accelerator.backward(loss)
        watch.look(step)
        accelerator.clip_grad_norm_(trained, training.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if (step + 1) % max(1, training.steps // LOOKS) == 0 and (opened := look()):
            gates.append((step + 1, {path: whole(each).tolist() for path, each in opened.items()}))
        if after_epoch and (step + 1) % epoch == 0:
            paused = time.perf_counter()
            with parallel.assembled(model):
                after_epoch((step + 1) // epoch)
            model.train()
            began += time.perf_counter() - paused
    parallel.assemble(model)
    finite(parameters)
    return History(losses, time.perf_counter() - began, gates=gates)


def shared(reader: Reader, rows: Sequence[Any]) -> tuple[dict[str, Any], float]:
    """This process's rows of a batch, and how much their mean loss counts in the mean of all processes' losses.

    The batch is padded as a whole, since a loss may depend on padding. Who gets no row computes the first one for
    nothing, since each step is taken together.
    """
    with processes.agreed():
        batch = reader.collate(rows)
    idle = processes.index() >= len(rows)
    mine: Any = slice_tensors(batch, slice(1) if idle else slice(processes.index(), None, processes.count()))
    return mine, 0.0 if idle else processes.count() * reader.weight(mine) / reader.weight(batch)


def share_of_rate(step: int, training: Training) -> float:
    """What part of the learning rate a step uses: a line up, then a line or half a cosine down to zero."""
    warm = round(training.warmup * training.steps)
    if step < warm:
        return (step + 1) / warm
    left = (training.steps - step) / max(1, training.steps - warm)
    return left if training.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2


def batches_by_length(lengths: Sequence[int], size: int, seed: int) -> Iterator[list[int]]:
    """Batches without end; each pass sees every row once, in batches of like length, so little is padded.

    A pass is shuffled, cut into pools of 50 batches, sorted by length within a pool, and its batches shuffled.
    """
    draw = random.Random(seed)
    while True:
        order = list(range(len(lengths)))
        draw.shuffle(order)
        pool = 50 * size
        batches = []
        for first in range(0, len(order), pool):
            alike = sorted(order[first : first + pool], key=lambda place: lengths[place])
            batches += [alike[at : at + size] for at in range(0, len(alike), size)]
        draw.shuffle(batches)
        yield from batches


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch where the model is, a pair of tensors too."""
    moved: Any = send_to_device(batch, device)
    return moved
