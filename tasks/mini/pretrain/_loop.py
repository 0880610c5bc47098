"""How a tiny backbone comes to be: its recipe, and the loop that follows it."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tasks.bench.digests import digest
from tasks.bench.progress import progress
from tasks.mini import world

Loss = Callable[[Any], Tensor]
"""Of a model, over one batch."""


@dataclass(frozen=True)
class Recipe:
    """How one of the three comes to be.

    Attributes:
        build: the model before training, drawn from torch's generator.
        losses: the loss of each batch, without end, from a seed and a size.
        save: what is kept of it, into a folder.
        steps: so many, of `batch` documents or pictures each.
        batch: see there.
        rate: the highest learning rate.
        warmup: share of the steps until there.
    """

    build: Callable[[], nn.Module]
    losses: Callable[[int, int], Iterator[Loss]]
    save: Callable[[Any, Path], None]
    steps: int
    batch: int
    rate: float
    warmup: float = 0.08


def pretrain(recipe: Recipe, folder: Path, steps: int, seed: int = 0) -> dict[str, Any]:
    """Train, and write the weights and what is to be known about them; the same numbers on the same machine."""
    torch.manual_seed(seed)
    model = recipe.build().train()
    optimizer = torch.optim.AdamW(model.parameters(), recipe.rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, max(1, steps), pct_start=recipe.warmup)
    began, losses = time.process_time(), []
    for loss in progress(itertools.islice(recipe.losses(seed, recipe.batch), steps), "pretrain"):
        value = loss(model)
        losses.append(value.item())
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    folder.mkdir(parents=True, exist_ok=True)
    recipe.save(model.eval(), folder)
    told = {
        "world": world.VERSION,
        "seed": seed,
        "steps": steps,
        "batch": recipe.batch,
        "rate": recipe.rate,
        "cpu_seconds": round(time.process_time() - began),
        "loss": [round(float(part.mean()), 4) for part in np.array_split(losses, 20) if len(part)],
        "sha256": digest(folder / "model.safetensors"),
    }
    (folder / "pretrained.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return told
