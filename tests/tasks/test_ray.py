"""--executor ray: the same numbers as on one machine, whoever dies meanwhile; each real cluster here is a slow test."""

import contextlib
import importlib.util
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tasks.__main__ import app
from tasks.bench import commandline, progress, provenance
from tasks.bench.board import Board
from tasks.bench.errors import InputError
from tasks.bench.executors import _packed
from tasks.bench.executors import ray as executor
from tasks.bench.store import Store

ROOT = Path(__file__).parents[2]
SUITE = """
[[grid]]
tasks = ["squad"]
backbones = ["roberta"]
methods = ["head", "zero_init"]
seeds = [0, 1]

[[grid]]
tasks = ["squad"]
backbones = ["roberta"]
methods = ["full"]

[[set]]
steps = 4
batch_size = 4
fit_sample = 4

[[set]]
when = { method = "full" }
learning_rate = 1e30
clip = 1e30
"""
"""Four cells that are done, and one that diverges."""
MEASURED = ("train_seconds", "eval_seconds", "peak_memory_mb")
"""What two runs of one cell may differ in."""
PATIENT = {
    **{"RAY_raylet_start_wait_time_s": "300", "RAY_worker_register_timeout_seconds": "600"},
    **{"RAY_health_check_timeout_ms": "60000", "RAY_health_check_failure_threshold": "20"},
    **{"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"},
}
"""A busy machine takes longer to start a node than Ray thinks decent."""


def refused(capsys, code: int) -> str:
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    return captured.err.splitlines()[-1]


@pytest.fixture
def suite(tmp_path) -> Path:
    (tmp_path / "five.toml").write_text(SUITE)
    return tmp_path / "five.toml"


# Without a cluster


def test_without_ray_it_says_how_to_get_it(suite, capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = ["run", suite, "--device", "cpu", "--executor", "ray", "--results", tmp_path / "r"]
    line = refused(capsys, commandline.guarded(app, [str(each) for each in arguments]))
    assert line == "error: --executor ray needs Ray: run `pip install -e '.[cluster]'`"


def test_an_unknown_executor_names_the_known(suite, capsys):
    arguments = ["run", str(suite), "--device", "cpu", "--executor", "slurm"]
    line = refused(capsys, commandline.guarded(app, arguments))
    assert line == "error: there is no executor 'slurm': choose one of local, ray"


@pytest.fixture
def _alone(monkeypatch):
    """What a worker changes in its process is as before afterwards."""
    monkeypatch.setattr(provenance, "_taken", None)
    provenance.commit.cache_clear()
    yield
    progress.send_to(None)
    provenance.commit.cache_clear()


@pytest.mark.usefixtures("_alone")
def test_a_cell_comes_back_whole_and_says_where_its_code_is_from(small_run, tmp_path):
    said = []
    words = SimpleNamespace(say=SimpleNamespace(remote=lambda *word: said.append(word)))
    config, here = small_run("head"), Path.cwd()
    order = replace(_packed.Order.of(config), commit=("0123abcd", True), folder=tmp_path)
    ended, files = _packed.compute(pickle.loads(pickle.dumps(order)), words)
    assert ended.well
    assert Path.cwd() == here
    assert (config.cell, "train", 0, 2) in said
    store = Store(tmp_path / "r")
    _packed.unpack(store, config.cell, files)
    assert store.has(config.cell)
    facts = store.result(config.cell)["facts"]
    assert (facts["commit"], facts["dirty"]) == ("0123abcd", True)
    assert len(store.records(config.cell, "report")) == facts_of(store, config.cell)["n"]
    assert (store.cells / config.cell / "adapter/adapter_model.safetensors").is_file()
    assert not list(store.root.glob(".unfinished-*"))


def facts_of(store: Store, cell: str) -> dict:
    return store.result(cell)["splits"]["report"]


def test_nothing_else_is_computed_than_what_was_ordered(small_run, squad_file, document, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom zeroinit.methods.head import Head\n\n"
        "@dataclass(frozen=True)\nclass Mine(Head):\n    pass\n"
    )
    order = _packed.Order.of(small_run(str(tmp_path / "mine.py")))
    assert order.inputs == [str(squad_file), str(tmp_path / "mine.py")]
    assert order.unpacked().cell == order.cell
    older = replace(order, versions="torch 1")
    with pytest.raises(InputError, match=r"has python .*, and torch 1 is wanted: install the same on every node"):
        older.unpacked()
    document["data"].pop()
    squad_file.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"the files of this cell are others on .* than where it was planned"):
        order.unpacked()
    (tmp_path / "mine.py").unlink()
    with pytest.raises(InputError, match=r"mine.py is not on .*: put it there under the same path, or into a folder"):
        order.unpacked()


class LostError(Exception):
    """As Ray's own errors."""


class RaisedError(LostError):
    """As Ray's error about an exception in the task."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"Traceback of the worker\n{type(cause).__name__}: {cause}")
        self.cause = cause


class Played:
    """Ray as far as the executor uses it: each attempt ends as the play says, and without one the cell is computed."""

    exceptions = SimpleNamespace(RayError=LostError, RayTaskError=RaisedError)

    def __init__(self, *play: Exception) -> None:
        self.play, self.asked, self.cancelled = list(play), [], []

    def remote(self, *_: object, **__: object):
        return lambda what: SimpleNamespace(
            remote=lambda: SimpleNamespace(
                taken=SimpleNamespace(remote=lambda: dict), say=SimpleNamespace(remote=lambda *_: None)
            ),
            options=lambda **needs: SimpleNamespace(remote=lambda *given: self._began(needs, what, given)),
        )

    def _began(self, needs, what, given):
        self.asked.append(needs)
        if self.play and isinstance(error := self.play.pop(0), Exception):
            return lambda: (_ for _ in ()).throw(error)
        return lambda: what(*given)

    def get(self, ref, timeout=None):
        return ref()

    def wait(self, refs, num_returns, timeout):
        return refs[:1], refs[1:]

    def cluster_resources(self):
        return {"CPU": 2.0}

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": False, "Resources": {"GPU": 8.0}}]

    def cancel(self, ref, force):
        self.cancelled.append(ref)


@pytest.fixture
def play(monkeypatch):
    """Let an executor run these cells with such a Ray; what failed."""

    def run(ray: Played, runs, store: Store) -> list[str]:
        @contextlib.contextmanager
        def connected(runs, jobs) -> Iterator[executor.Cluster]:
            cluster = executor.Cluster(ray)
            cluster.say_what_waits(runs)
            yield cluster

        monkeypatch.setattr(executor, "connected", connected)
        return executor.run_all(runs, store, None, Board({run.cell: 1.0 for run in runs}))

    return run


def locks(store: Store) -> list[str]:
    return [path.name for path in store.root.glob(".locks/*")]


@pytest.mark.usefixtures("_alone")
def test_a_cell_outlives_its_workers(play, small_run, tmp_path):
    config, store = small_run("head"), Store(tmp_path / "r")
    ray = Played(LostError("the worker died"), LostError("its node died"))
    assert play(ray, [config], store) == []
    assert store.has(config.cell)
    assert ray.asked == [{"num_cpus": 1, "num_gpus": 0, "name": config.cell}] * 3
    assert locks(store) == []


def test_a_cell_that_workers_always_die_of_has_failed(play, small_run, tmp_path, capsys):
    config, store = small_run("head"), Store(tmp_path / "r")
    ray = Played(*[LostError("the worker died\nof this and that")] * 9)
    assert play(ray, [config], store) == [config.cell]
    assert len(ray.asked) == executor.TRIES
    said = f"failed: {executor.TRIES} workers died of this cell, the last one so: the worker died"
    assert said in capsys.readouterr().err
    assert store.result(config.cell)["facts"]["status"] == "failed"
    assert locks(store) == []


@pytest.mark.parametrize(
    ("cause", "sentence"),
    [
        (InputError("data.json is not on node7: put it there"), "data.json is not on node7: put it there"),
        (ModuleNotFoundError("No module named 'torch'"), "no worker could begin it: ModuleNotFoundError: No module"),
    ],
)
def test_what_a_worker_refuses_is_not_tried_again(cause, sentence, play, small_run, tmp_path):
    config, store = small_run("head"), Store(tmp_path / "r")
    ray = Played(RaisedError(cause))
    assert play(ray, [config], store) == [config.cell]
    assert len(ray.asked) == 1
    assert store.result(config.cell)["facts"]["error"].startswith(sentence)
    log = json.loads((store.cells / config.cell / "log.json").read_text())
    assert type(cause).__name__ in log["traceback"]


def test_a_suite_that_is_stopped_leaves_its_cells_to_the_next(play, small_run, tmp_path):
    configs, store = [small_run("head"), small_run("frozen")], Store(tmp_path / "r")
    ray = Played()
    ray.get = lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        play(ray, configs, store)
    assert len(ray.cancelled) == 2
    assert [store.status(config.cell) for config in configs] == ["cancelled"] * 2
    assert locks(store) == []


def test_a_cell_of_a_gpu_waits_for_one_and_says_so(play, small_run, tmp_path, capsys):
    config, store = replace(small_run("head"), device="cuda"), Store(tmp_path / "r")
    ray = Played(RaisedError(InputError("it is only to be asked for")))
    play(ray, [config], store)
    assert ray.asked == [{"num_cpus": 1, "num_gpus": 1, "name": config.cell}]
    assert "no node of the cluster has 1 CPU and 1 GPU: cells that ask for it wait until one joins" in (
        capsys.readouterr().err
    )


def test_another_suite_in_the_same_folder_is_left_its_cells(play, small_run, tmp_path):
    config, store = small_run("head"), Store(tmp_path / "r")
    ray = Played()
    agenda = executor.Agenda([config], store, Board({config.cell: 1.0}))
    assert agenda.take() is config
    with store.lock(config.cell):  # by another suite, meanwhile
        assert executor.Flight.start(config, agenda, executor.Cluster(ray)) == []
    assert list(agenda.waiting) == [config]
    assert ray.asked == []


# With one

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: extra cluster")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two nodes with a processor each."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in PATIENT.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        cluster = Cluster()
        cluster.add_node(num_cpus=1, include_dashboard=False)
        cluster.add_node(num_cpus=1)
        try:
            yield cluster.address
        finally:
            cluster.shutdown()


def begin(suite: Path, store: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tasks", "run", suite, "--limit", "8", "--device", "cpu", "--results", store]
    paths = {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*map(str, command), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=suite.parent,
        env={**os.environ, **PATIENT, **paths, **environment},
    )


def worker(suite: subprocess.Popen[str], method: str, besides: tuple[int, ...] = ()) -> psutil.Process:
    """The process of the cluster that computes a cell of a method, once it is at it."""
    while True:
        assert suite.poll() is None, f"no worker came up: {suite.communicate()[1]}"
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                title = " ".join(process.cmdline())
                if title.startswith("ray::squad-") and f"-{method}-" in title and process.pid not in besides:
                    return process
        time.sleep(0.05)


def finished(suite: subprocess.Popen[str]) -> str:
    """Its errors; one cell of five diverges, and that is all."""
    _, said = suite.communicate(timeout=3000)
    assert suite.returncode == 1, said
    assert "1 of 5 cells failed: squad-v1.1-roberta-full-" in said
    assert "lower learning_rate" in said
    assert "Traceback" not in said
    return said


def contents(store: Store) -> dict[str, object]:
    """All that two runs of a suite must have in common."""
    found: dict[str, object] = {}
    for name in store.names():
        if store.has(name):
            folder = store.cells / name
            kept = ("config.json", "log.json", "report.jsonl.gz", "fit.jsonl.gz", "adapter/adapter_model.safetensors")
            found |= {f"{name}/{each}": (folder / each).read_bytes() for each in kept}
            found[f"{name} code"] = store.result(name)["code"]
    found["rows"] = [row | dict.fromkeys(MEASURED, 0) for row in store.rows()]
    return found


@needs_ray
@pytest.mark.slow
def test_numbers_are_the_same_everywhere_though_a_worker_is_killed(suite, address, tmp_path):
    stores = {name: Store(tmp_path / name) for name in ("one", "two", "ray")}
    finished(begin(suite, stores["one"].root, "--jobs", "1"))
    finished(begin(suite, stores["two"].root, "--jobs", "2"))
    running = begin(suite, stores["ray"].root, "--executor", "ray", RAY_ADDRESS=address)
    victim = worker(running, "zero_init")
    time.sleep(1)
    victim.kill()
    again = worker(running, "zero_init", besides=(victim.pid,))
    assert again.pid != victim.pid
    finished(running)
    reference = contents(stores["one"])
    assert len(reference["rows"]) > 8
    for name in ("two", "ray"):
        found = contents(stores[name])
        assert found.keys() == reference.keys()
        assert [key for key in reference if found[key] != reference[key]] == [], name
    failed = next(name for name in stores["ray"].names() if not stores["ray"].has(name))
    log = json.loads((stores["ray"].cells / failed / "log.json").read_text())
    assert "tasks/bench/" in log["traceback"]
    assert "CellError" in log["traceback"]


@needs_ray
@pytest.mark.slow
def test_a_cell_that_kills_its_workers_fails_and_a_small_cluster_of_its_own_is_enough(tmp_path):
    """Two cells at a time where no cluster runs; the rest of the suite is done."""
    (tmp_path / "deadly.py").write_text(
        "import os\nfrom dataclasses import dataclass\nfrom zeroinit.methods.head import Head\n\n"
        "@dataclass(frozen=True)\nclass Deadly(Head):\n"
        "    def plant(self, host, name):\n        os.kill(os.getpid(), 9)\n"
    )
    suite = tmp_path / "two.toml"
    suite.write_text(
        '[[grid]]\ntasks = ["squad"]\nbackbones = ["roberta"]\nmethods = ["deadly.py", "head"]\n'
        "[[set]]\nsteps = 1\nfit_sample = 2\n"
    )
    running = begin(suite, tmp_path / "r", "--jobs", "2", "--executor", "ray", RAY_ADDRESS="")
    _, said = running.communicate(timeout=3000)
    assert running.returncode == 1, said
    store = Store(tmp_path / "r")
    states = {name.split("-")[3]: store.result(name)["facts"] for name in store.names()}
    assert states["head"]["status"] == "partial"
    assert states["deadly"]["status"] == "failed"
    assert states["deadly"]["error"].startswith(f"{executor.TRIES} workers died of this cell")


@needs_ray
@pytest.mark.slow
def test_an_address_where_nobody_answers_is_one_sentence(suite, tmp_path):
    running = begin(suite, tmp_path / "r", "--executor", "ray", RAY_ADDRESS="127.0.0.1:9")
    out, said = running.communicate(timeout=600)
    assert (running.returncode, out) == (2, "")
    assert said.splitlines()[-1] == (
        "error: no Ray cluster answers at RAY_ADDRESS, 127.0.0.1:9: correct it, or unset it"
    )
    assert "Traceback" not in said
