"""Several processes that run one step together, as a launcher would start them, without importing everything anew."""

import multiprocessing
import os
import socket
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from tasks.bench import processes

LIMIT = 60.0
"""Seconds that a step may take: processes that wait for each other would wait for ever."""


def together(step: Callable[[], Any], count: int = 2, **environment: str) -> list[Any]:
    """What a step gives on each of so many processes that have met, or the exception that it ends in there."""
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
    return end.recv()


def _work(end: Connection, step: Callable[[], Any], environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    processes.join()
    try:
        given = step()
    except Exception as error:
        given = error
    end.send(given)
    processes.leave()
    os._exit(0)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
