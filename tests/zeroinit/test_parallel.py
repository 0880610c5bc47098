"""Two processes train an adapter as one does: DDP through Trainer, and FSDP2."""

from functools import partial
from pathlib import Path

import torch

import zeroinit
from tests.tasks.several import together
from tests.zeroinit.opened import llama, opened
from tests.zeroinit.parallel import ddp, fsdp


def test_ddp_equals_one_process(tmp_path: Path) -> None:
    found, _ = together(partial(ddp.both, tmp_path), ACCELERATE_USE_CPU="true")
    torch.testing.assert_close(found, ddp.train(tmp_path, processes=1), rtol=1e-5, atol=1e-5)
    started = zeroinit.trainable(opened(llama))
    assert all(not torch.equal(found[name], parameter) for name, parameter in started.items())


def test_fsdp_equals_one_process() -> None:
    assert together(fsdp.both) == [2, 2]
