"""Trainer over two processes (DDP through accelerate) trains an adapted LLaMA as one does."""

from pathlib import Path

import torch
from torch import Tensor, distributed
from transformers import Trainer, TrainingArguments

import zeroinit
from tests.zeroinit.opened import llama, opened, tokens

ROWS, BATCH = 12, 4


def train(folder: Path, processes: int) -> dict[str, Tensor]:
    """Three steps of one global batch each; what was trained, by name."""
    model = opened(llama)
    rows = [{"input_ids": row, "labels": row} for row in tokens(ROWS)]
    arguments = TrainingArguments(
        str(folder),
        per_device_train_batch_size=BATCH // processes,
        num_train_epochs=1,
        learning_rate=0.01,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=rows)
    trainer.train()
    assert trainer.state.global_step == ROWS // BATCH
    return {name: p.detach().clone() for name, p in zeroinit.trainable(model).items()}


def both(folder: Path) -> dict[str, Tensor] | None:
    """What two processes trained, who must agree: the first one tells."""
    trained = train(folder, processes=2)
    assert distributed.get_world_size() == 2
    for parameter in trained.values():
        ranks = [torch.empty_like(parameter) for _ in range(2)]
        distributed.all_gather(ranks, parameter)
        assert torch.equal(*ranks), "the processes disagree"
    return trained if distributed.get_rank() == 0 else None
