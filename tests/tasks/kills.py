"""Kill a running suite at random moments until so many kills have hit, and run it again after each.

    python -m tests.tasks.kills FOLDER KILLS SEED

Importing takes longer than these cells do, so it is done once, and suites and cells are forks of this process. The last
line says what was killed; an assertion that fails is exit code 1.
"""

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import psutil

import tasks.backbones.roberta  # noqa: F401  (as the server that cells are forked from, with _ready)
from tasks.bench.executors import _ready, local  # noqa: F401
from tasks.bench.planned import Planned
from tasks.bench.report import tables
from tasks.bench.rows import COLUMNS
from tasks.bench.store import FINISHED, Stamp, Store
from tasks.bench.suite import plan, read

SUITE = """
[[grid]]
tasks = ["squad"]
backbones = ["roberta"]
methods = ["head", "zero_init"]
seeds = [0, 1]

[[set]]
steps = 2
batch_size = 4
fit_sample = 4
"""
MEASURED = ("train_seconds", "eval_seconds", "peak_memory_mb")
"""What two runs of one cell may differ in."""
HOW = ("suite and cells", "suite alone", "one cell")


def main(folder: Path, kills: int, seed: int) -> None:
    local._context = lambda runs: multiprocessing.get_context("fork")
    (folder / "four.toml").write_text(SUITE)
    runs = plan(read(str(folder / "four.toml")), {"limit": 8, "device": "cpu"}, {})
    whole = Planned("four", runs, Store(folder / "whole"))
    began = time.monotonic()
    assert os.waitpid(begin(whole, jobs=1), 0)[1] == 0
    length = time.monotonic() - began
    draw, hits, rounds, spared = random.Random(seed), Counter[str](), 0, 0
    broken = Planned("four", runs, Store(folder / "killed"))
    while sum(hits.values()) < kills:
        how = HOW[sum(hits.values()) % len(HOW)]
        before = finished(broken.store)
        hit = killed(begin(broken, jobs=2), how, draw.uniform(0, 0.6 * length))  # two cells at a time
        hits.update([how] if hit else [])
        spared += len(before)
        after = finished(broken.store)
        assert before.items() <= after.items(), "a finished cell was lost, or computed again"
        if len(after) == len(runs):
            compare(broken, whole)
            shutil.rmtree(broken.store.root)
            rounds += 1
    assert os.waitpid(begin(broken, jobs=2), 0)[1] == 0
    compare(broken, whole)
    print(json.dumps({"kills": dict(hits), "rounds": rounds + 1, "cells kept over a kill": spared}))


def begin(planned: Planned, jobs: int) -> int:
    """Run a suite in a process of its own, which leads a group."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    log = os.open(planned.store.root.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 70
    try:
        code = planned.run(local.run_all, jobs, "failed")
    finally:
        os._exit(code)


def killed(suite: int, how: str, after: float) -> bool:
    """Kill a suite, or a part of it, some time after it began; whether there was still something to kill."""
    time.sleep(after)
    cells = psutil.Process(suite).children()
    running = psutil.Process(suite).status() != psutil.STATUS_ZOMBIE
    hit = running and (how != "one cell" or bool(cells))
    if hit and how == "suite and cells":
        os.killpg(suite, signal.SIGKILL)
    elif hit:
        os.kill(suite if how == "suite alone" else cells[0].pid, signal.SIGKILL)
    os.waitpid(suite, 0)
    wait_for_all_of(suite)
    return hit


def wait_for_all_of(group: int) -> None:
    """Cells whose suite is gone end by themselves."""
    deadline = time.monotonic() + 60
    while any(alive_in(group, process) for process in psutil.process_iter()):
        assert time.monotonic() < deadline, "a cell computes on without its suite"
        time.sleep(0.02)


def alive_in(group: int, process: psutil.Process) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ProcessLookupError):
        return False


def finished(store: Store) -> dict[str, Stamp]:
    return {name: store.stamp(name) for name in store.names() if store.status(name) in FINISHED}


def compare(one: Planned, other: Planned) -> None:
    """Equal to the byte, but for seconds and megabytes."""
    for each in (one, other):
        each.store.export()
        assert each.store.names() == sorted(run.cell for run in each.runs)
    cells = [store.cells for store in (one.store, other.store)]
    for run in one.runs:
        for name in ("config.json", "log.json", "report.jsonl.gz", "fit.jsonl.gz", "adapter/adapter_model.safetensors"):
            assert len({(folder / run.cell / name).read_bytes() for folder in cells}) == 1, (run.cell, name)
    rows = [[row | dict.fromkeys(MEASURED, 0) for row in each.store.rows()] for each in (one, other)]
    assert rows[0] == rows[1]
    assert shown(one) == shown(other)
    assert len(rows[0]) == len({(row["cell"], row["split"], row["metric"]) for row in rows[0]})
    assert set(MEASURED) < set(COLUMNS)


def shown(planned: Planned) -> list[list[str]]:
    """The tables without their column of seconds."""
    lines = [line.split("|") for line in tables(planned.store, [run.cell for run in planned.runs]).splitlines()]
    seconds = next(place for line in lines for place, name in enumerate(line) if name.strip() == "train s")
    return [line[:seconds] + line[seconds + 1 :] for line in lines if "---" not in line[0] and len(line) > seconds]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
