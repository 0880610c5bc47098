"""One cell as torchrun and `accelerate launch` start it: the numbers of one process, one voice, one end."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from tasks.bench.config import Run
from tasks.bench.run import run
from tasks.bench.store import Store
from tests.tasks.several import SHARDED, SMALL, cell, parts

ROOT = Path(__file__).parents[2]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
ACCELERATE = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1")


def launch(launcher: Sequence[str], *arguments: object, **environment: str) -> "subprocess.Popen[str]":
    """Start a command of squad on two processes."""
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "tasks.squad", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def launched(launcher: Sequence[str], *arguments: object, **environment: str) -> tuple[int, str, str]:
    """How a launch ended, what it printed, and what it told besides."""
    with launch(launcher, *arguments, **environment) as process:
        out, told = process.communicate(timeout=900)
        return process.returncode, out, told


def settings(config: Run) -> list[str]:
    """What makes a command's cell that of `cell`."""
    return ["--limit", str(config.choice.limit), *(f"--set={key}={value}" for key, value in SMALL.items())]


def test_torchrun_runs_one_cell_on_two_processes(tmp_path):
    config = cell("squad", "roberta")
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    run(config, one)
    code, out, told = launched(TORCHRUN, "--results", two.root, *settings(config))
    assert code == 0, told
    assert two.names() == [config.cell]
    alone, found = parts(one, config.cell), parts(two, config.cell)
    assert found["facts"]["device"] == f"2 × {alone['facts']['device']}"
    assert found["log"]["loss"] == pytest.approx(alone["log"]["loss"], abs=1e-4)
    assert (out.count("| zero_init |"), out.count(str(two.cells / config.cell))) == (1, 1)
    assert "Traceback" not in told
    assert not {line for line in told.splitlines() if "find_unused" in line}


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, SHARDED | {"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}])
def test_accelerate_launch_runs_it_too(environment, tmp_path):
    config = cell("squad", "roberta")
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    run(config, one)
    code, _, told = launched(ACCELERATE, "--results", two.root, *settings(config), **environment)
    assert code == 0, told
    alone, found = parts(one, config.cell), parts(two, config.cell)
    assert found["facts"]["device"].startswith("2 × ")
    assert found["log"]["loss"] == pytest.approx(alone["log"]["loss"], abs=1e-4)


REFUSED = {
    "a method that does not exist": (["--method", "nothing"], {}, 2, "error: there is no method 'nothing'"),
    "a flag that does not exist": (["--nothing"], {}, 2, "error: No such option: --nothing"),
    "layers that are not there": (["--set", "layers=99"], {}, 2, "error: --method zero_init does not fit"),
    "FSDP's first version": ([], SHARDED | {"FSDP_VERSION": "1"}, 2, "error: a cell is sharded by FSDP's second"),
    "DeepSpeed": ([], {"ACCELERATE_USE_DEEPSPEED": "true"}, 2, "error: a cell does not run by DeepSpeed"),
    "a loss that is no number": (
        ["--method", "full", "--set", "learning_rate=1e30", "--set", "clip=1e30"],
        {},
        1,
        "error: the loss is nan at step 2 of 3: lower learning_rate",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", REFUSED)
def test_a_refusal_is_told_once_and_ends_both(what, tmp_path):
    arguments, environment, exit_code, sentence = REFUSED[what]
    small = settings(cell("squad", "roberta"))
    code, out, told = launched(TORCHRUN, "--results", tmp_path, *small, *arguments, **environment)
    assert (code, out) == (1, "")  # torchrun's own, whatever those that it started ended with
    assert told.count("error: ") == 1
    assert sentence in told
    # Who says it a moment later may be ended by torchrun meanwhile.
    assert {str(exit_code)} <= set(re.findall(r"exitcode +: (-?\d+)", told)) <= {str(exit_code), str(-signal.SIGTERM)}
    assert "tasks/bench" not in told, "a traceback"
    assert [Store(tmp_path).state(name) for name in Store(tmp_path).names()] == ["failed"] * (exit_code == 1)


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_who_is_killed_takes_the_others_along_and_leaves_no_cell(rank, tmp_path):
    small = settings(cell("squad", "roberta"))
    with launch(TORCHRUN, "--results", tmp_path, *small, "--set", "steps=100000") as process:
        time.sleep(1)
        deadline = time.monotonic() + 600
        while not (training := _training(process.pid, rank)):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        time.sleep(5)
        training.kill()
        _, told = process.communicate(timeout=300)
    assert process.returncode != 0
    assert not psutil.pid_exists(training.pid)
    assert Store(tmp_path).names() == [], told


def _training(launcher: int, rank: str) -> psutil.Process | None:
    """The process of a rank, once it talks to the other."""
    for child in psutil.Process(launcher).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if child.environ().get("RANK") == rank and len(child.net_connections()) > 2:
                return child
    return None
