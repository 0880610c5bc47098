"""What a backbone file hands to the bench: a model, its tokenizer, and where they are from."""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Host:
    """A backbone with the output a task asked for."""

    model: torch.nn.Module
    tokenizer: Any
    head: str | None
    """The name of the task head in the model, new and untrained; None: it speaks through its language model's."""
    checkpoint: str
    """Its weights by name."""
    weights_sha256: str
