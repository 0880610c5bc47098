"""What the model says about each example, and how far it is from the frozen host."""

from collections.abc import Sequence
from typing import Any

import torch

from tasks.bench import processes
from tasks.bench.progress import progress
from tasks.bench.task import Reader
from tasks.bench.train import to_device


@torch.no_grad()
def evaluate(model: torch.nn.Module, reader: Reader, examples: Sequence[Any], batch_size: int) -> list[Any]:
    """One prediction an example; several processes share the work, and each has all of the predictions."""
    model.eval()
    device = next(model.parameters()).device
    rows = reader.ask(examples)
    # The longest first: like lengths share a batch, and a lack of memory shows at once.
    order = sorted(range(len(rows)), key=lambda place: -len(rows[place]))
    batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    said: dict[int, Any] = {}
    with processes.agreed():
        # Whole batches are shared: each is computed as one process would compute it.
        for places in progress(processes.share(batches), "evaluate"):
            batch = to_device(reader.collate([rows[place] for place in places]), device)
            said |= zip(places, reader.predict(model, batch), strict=True)
    answers = {place: answer for part in processes.gathered(said) for place, answer in part.items()}
    return list(reader.decode(examples, rows, [answers[place] for place in range(len(rows))]))


@torch.no_grad()
def probe(model: torch.nn.Module, reader: Reader, examples: Sequence[Any]) -> list[torch.Tensor]:
    """What the model computes for a few examples."""
    model.eval()
    device = next(model.parameters()).device
    return [tensor.cpu() for tensor in reader.outputs(model, to_device(reader.collate(reader.fit(examples)), device))]


def distance(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """The largest difference between two probes."""
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))
