"""Several processes that run one step together, as a launcher would start them, without importing everything anew."""

import gzip
import json
import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import torch
from safetensors.torch import load_file

from tasks.bench import processes
from tasks.bench.config import Choice, Run
from tasks.bench.errors import CellError, InputError
from tasks.bench.store import Store
from tasks.bench.suite import single

SMALL = {"steps": 3, "batch_size": 5, "learning_rate": 1e-3, "fit_sample": 4, "eval_batch_size": 4}
SHARDED = {"ACCELERATE_USE_FSDP": "true"}

LIMIT = 120.0
"""Seconds that a step may take: processes that wait for each other would wait for ever."""


def together(step: Callable[[], Any], count: int = 2, **environment: str) -> list[Any]:
    """What a step gives on each of so many processes that have met, or the refusal that it ends in there."""
    context = multiprocessing.get_context("fork")
    launch = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(count), **environment}
    ends, workers = [], []
    for rank in range(count):
        ours, theirs = context.Pipe(duplex=False)
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)}
        workers.append(context.Process(target=_work, args=(theirs, step, launch | place)))
        workers[-1].start()
        theirs.close()
        ends.append(ours)
    try:
        return [_received(end) for end in ends]
    finally:
        for worker in workers:
            worker.join(5)
            worker.kill()


def _received(end: Connection) -> Any:
    assert end.poll(LIMIT), "the processes wait for each other"
    try:
        return pickle.loads(end.recv_bytes())
    except EOFError:
        raise AssertionError("a process died; its traceback is on standard error") from None


def _work(end: Connection, step: Callable[[], Any], environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    torch.cuda.is_available = lambda: False  # these meet on the CPU, whatever the machine has
    processes.join()
    try:
        given = step()
    except (InputError, CellError) as error:
        given = error
    except Exception:
        traceback.print_exc()
        os._exit(1)
    end.send_bytes(pickle.dumps(given))  # as values: a pipe of tensors has them fetched from a process that is gone
    processes.leave()
    os._exit(0)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def cell(task: str, backbone: str, method: str = "zero_init", settings: Mapping[str, Any] = {}, **flags: Any) -> Run:
    choice = Choice(task, backbone, method, **{"device": "cpu", "limit": 9} | flags)
    return single(choice, SMALL | dict(settings))


def parts(store: Store, name: str) -> dict[str, Any]:
    """The log of a cell, its facts, its records and its adapter."""
    folder = store.cells / name
    adapter = folder / "adapter" / "adapter_model.safetensors"
    return {
        "log": json.loads((folder / "log.json").read_text()),
        "facts": store.result(name)["facts"],
        "scores": {split: part["scores"] for split, part in store.result(name)["splits"].items()},
        "records": {path.name: gzip.decompress(path.read_bytes()) for path in sorted(folder.glob("*.jsonl.gz"))},
        "adapter": load_file(adapter) if adapter.exists() else {},
    }


def ids(records: bytes) -> list[str]:
    return [json.loads(line)["id"] for line in records.splitlines()]
