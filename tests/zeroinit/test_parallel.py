"""Two processes train an adapter as one does: DDP through Trainer, and FSDP2."""

import os
import subprocess
import sys
from pathlib import Path

import torch

import zeroinit
from tests.zeroinit.opened import llama, opened
from tests.zeroinit.parallel import ddp

ROOT = Path(__file__).parents[2]


def torchrun(script: str, *arguments: object) -> None:
    """Run a script of ``parallel/`` in two processes, on a free port."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, "-m", f"tests.zeroinit.parallel.{script}", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]


def test_ddp_equals_one_process(tmp_path: Path) -> None:
    torchrun("ddp", tmp_path)
    found = torch.load(tmp_path / "trained.pt")
    torch.testing.assert_close(found, ddp.train(tmp_path, processes=1), rtol=1e-5, atol=1e-5)
    started = zeroinit.trainable(opened(llama))
    assert all(not torch.equal(found[name], parameter) for name, parameter in started.items())


def test_fsdp_equals_one_process() -> None:
    torchrun("fsdp")
