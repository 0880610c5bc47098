"""The cells of a suite spread over a Ray cluster, each in a worker process of its own; no folder need be shared.

Workers get this very code. Each computes its cell in a folder of its own, which comes back as bytes and is put into the
store here, under the cell's lock; the cell of a worker that died is given to another one, a few times. Which node has
the processors or the GPU that a cell asks for is Ray's to know.
"""

import contextlib
import importlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.bench import attempt, provenance
from tasks.bench.attempt import ELSEWHERE, Ended
from tasks.bench.board import Board
from tasks.bench.config import Run
from tasks.bench.errors import AbsentError, CellError, InputError
from tasks.bench.executors import _packed
from tasks.bench.executors._agenda import Agenda
from tasks.bench.store import Store

TRIES = 4
"""How many workers may die of one cell before it has failed."""
HANDED_ON = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
"""What workers do as here, whatever their node's environment says."""


def run_all(runs: Sequence[Run], store: Store, jobs: int | None, board: Board) -> list[str]:
    """Run these cells, as many at a time as fit into the cluster, or so many; the names of those that failed.

    Raises:
        AbsentError: Ray is not installed.
        InputError: there is no such cluster, or the store takes no more; what runs by then is waited for.
    """
    agenda, flights = Agenda(runs, store, board), list[Flight]()
    full: InputError | None = None
    with connected(runs, jobs) as cluster:
        try:
            while flights or (agenda and not full):
                while not full and len(flights) < cluster.room(jobs) and (run := agenda.take()):
                    try:
                        store.probe()
                        flights += Flight.start(run, agenda, cluster)
                    except InputError as error:
                        full = error
                for flight in cluster.landed(flights, board):
                    if (how := flight.land(store)) is not None:
                        flights.remove(flight)
                        agenda.end(flight.run, how)
        finally:
            for flight in flights:
                flight.stop(store)
    if full:
        raise full
    return agenda.failures


class Words:
    """What workers say of how far they are, until it is asked for; it lives in a process of the cluster."""

    def __init__(self) -> None:
        self.said: dict[str, tuple[str, int, int]] = {}

    def say(self, cell: str, what: str, done: int, total: int) -> None:
        """So many of the steps of what a cell does now are over."""
        self.said[cell] = (what, done, total)

    def taken(self) -> Mapping[str, tuple[str, int, int]]:
        """The last word of each cell since it was asked for last."""
        said, self.said = self.said, {}
        return said


class Cluster:
    """A Ray cluster that this process is connected to."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        self.words = ray.remote(num_cpus=0)(Words).remote()
        # A fresh process for each cell; retries are counted here, for Ray would go on for ever where memory ran out.
        self.compute = ray.remote(max_calls=1, max_retries=0)(_packed.compute)

    def room(self, jobs: int | None) -> int:
        """Cells to have under way: as many as there are processors now, so that none is kept from others in vain."""
        return min(jobs or sys.maxsize, max(1, int(self.ray.cluster_resources().get("CPU", 1))))

    def begin(self, run: Run) -> Any:
        """Ask for a worker with the threads that a cell says, and the GPU that it needs."""
        fitted = self.compute.options(**_needs(run), name=run.cell)
        return fitted.remote(_packed.Order.of(run), self.words)

    def landed(self, flights: "Sequence[Flight]", board: Board) -> "list[Flight]":
        """Those that are over, after a second at most; the board is told how far the others are."""
        if not flights:
            time.sleep(1)  # until another process has finished what is left
            return []
        ready = set(self.ray.wait([flight.ref for flight in flights], num_returns=1, timeout=1)[0])
        flying = {flight.run.cell for flight in flights if flight.ref not in ready}
        with contextlib.suppress(self.ray.exceptions.RayError):  # words are lost with the node that they were on
            for cell, word in self.ray.get(self.words.taken.remote(), timeout=1).items():
                if cell in flying:
                    board.moved(cell, *word)
        board.tick()
        return [flight for flight in flights if flight.ref in ready]

    def say_what_waits(self, runs: Sequence[Run]) -> None:
        """Tell of cells that no node can take as the cluster is now."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        for needs in {tuple(_needs(run).items()) for run in runs}:
            wanted = {key.removeprefix("num_").removesuffix("s").upper(): count for key, count in needs if count}
            if not any(all(node.get(key, 0) >= count for key, count in wanted.items()) for node in nodes):
                told = " and ".join(f"{count} {key}" for key, count in wanted.items())
                print(f"no node of the cluster has {told}: cells that ask for it wait until one joins", file=sys.stderr)


@dataclass(eq=False)
class Flight:
    """A cell that some worker computes, its lock here, and how many workers have tried."""

    run: Run
    lock: contextlib.ExitStack
    cluster: Cluster
    ref: Any
    tries: int = 1
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, run: Run, agenda: Agenda, cluster: Cluster) -> "list[Flight]":
        """Take a cell's lock, and give the cell to a worker; none where another process was faster."""
        lock, store = contextlib.ExitStack(), agenda.store
        if not lock.enter_context(store.lock(run.cell)):
            agenda.end(run, Ended(ELSEWHERE, "another process computes it"))
            return []
        if store.stamp(run.cell) != agenda.before[run.cell]:
            lock.close()
            agenda.end(run, attempt.ended(store, run.cell))
            return []
        return [cls(run, lock, cluster, cluster.begin(run))]

    def land(self, store: Store) -> Ended | None:
        """Put the cell into the store and say how it ended; None: its worker died, and another one has it now."""
        failures = self.cluster.ray.exceptions
        try:
            ended, files = self.cluster.ray.get(self.ref)
        except failures.RayTaskError as error:  # the cell did not even begin there
            return self._lost(store, _refusal(error))
        except failures.RayError as error:
            if self.tries < TRIES:
                self.tries += 1
                self.ref = self.cluster.begin(self.run)
                return None
            why = str(error).strip().partition("\n")[0] or type(error).__name__
            return self._lost(store, CellError(f"{self.tries} workers died of this cell, the last one so: {why}"))
        with self.lock:
            try:
                _packed.unpack(store, self.run.cell, files)
            except InputError as error:
                return Ended("failed", f"failed: {error}")
        return ended

    def stop(self, store: Store) -> None:
        """End the worker before its cell is finished."""
        from tasks.bench.cell import cancelled

        with contextlib.suppress(self.cluster.ray.exceptions.RayError):
            self.cluster.ray.cancel(self.ref, force=True)
        with self.lock:
            attempt.lost(store, cancelled(self.run, time.monotonic() - self.began))

    def _lost(self, store: Store, error: Exception) -> Ended:
        from tasks.bench.cell import failed

        with self.lock:
            return attempt.lost(store, failed(self.run, error))


def _needs(run: Run) -> dict[str, int]:
    return {"num_cpus": run.training.threads, "num_gpus": int(run.device == "cuda")}


def _refusal(error: Any) -> Exception:
    """Why a worker would not begin: in its own words where it has some."""
    if isinstance(error.cause, InputError):
        return InputError(str(error.cause))
    told = CellError(f"no worker could begin it: {str(error).strip().splitlines()[-1]}")
    told.__cause__ = error
    return told


@contextlib.contextmanager
def connected(runs: Sequence[Run], jobs: int | None) -> Iterator[Cluster]:
    """The cluster of RAY_ADDRESS, else the one that runs here, else a small one for these cells alone.

    Raises:
        AbsentError: Ray is not installed.
        InputError: RAY_ADDRESS leads nowhere.
    """
    try:
        ray: Any = importlib.import_module("ray")  # which type checkers need not have, either
    except ImportError as error:
        raise AbsentError("--executor ray needs Ray: run `pip install -e '.[cluster]'`") from error
    kept = signal.getsignal(signal.SIGTERM)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else a cluster that is started here reports to its makers
    with _environment() as environment:
        quiet = {"logging_level": "ERROR", "log_to_driver": False, "runtime_env": environment}
        address = os.environ.get("RAY_ADDRESS", "")
        nobody = InputError(f"no Ray cluster answers at RAY_ADDRESS, {address}: correct it, or unset it")
        if not _answers(address):
            raise nobody
        try:
            ray.init(address="auto", **quiet)
        except ConnectionError as error:
            if address:
                raise nobody from error
            threads = max([run.training.threads for run in runs], default=1)
            ray.init(num_cpus=jobs * threads if jobs else None, include_dashboard=False, **quiet)
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, kept)  # which ray.init takes
        cluster = Cluster(ray)
        cluster.say_what_waits(runs)
        yield cluster
    finally:
        ray.shutdown()


def _answers(address: str) -> bool:
    """Whether somebody listens there, if it is a host and a port: Ray itself would try for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        return True
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=20).close()
    except (OSError, OverflowError):
        return False
    return True


@contextlib.contextmanager
def _environment() -> Iterator[dict[str, Any]]:
    """What workers have of ours: some variables, and our packages as they are now, side by side as they are here."""
    handed = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("tasks", "zeroinit"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(provenance.ROOT / name, Path(folder, name), ignore=ignored)
        yield {"working_dir": folder, "env_vars": handed}
