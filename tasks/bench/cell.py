"""A cell: what one run found, with everything needed to trust it and to derive it again."""

import dataclasses
import hashlib
import json
import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tasks.bench import golden, provenance, sources
from tasks.bench.choose import Chosen
from tasks.bench.config import Run
from tasks.bench.errors import CellError, InputError
from tasks.bench.host import Host
from tasks.bench.task import Data, Reader, Record, Score, Task, faults
from tasks.bench.train import History


@dataclass(frozen=True)
class Taught:
    """A host with a method in it, how its task is read, what trains, and how that went.

    Attributes:
        host: the backbone; its model is the adapted one.
        reader: the task's, for the host's tokenizer.
        parameters: what trains, by name.
        step0: how far the outputs moved by attaching.
        own: the names of the host's own parameters; what else trains was planted.
        blind: whether the task has pictures that this run was not shown.
        history: of training.
    """

    host: Host
    reader: Reader
    parameters: Mapping[str, torch.nn.Parameter]
    step0: float
    own: frozenset[str]
    blind: bool = False
    history: History = field(default_factory=History)


@dataclass(frozen=True)
class Part:
    """One split's records, and the seconds the model took over them."""

    records: Sequence[Record]
    seconds: float


@dataclass(frozen=True)
class Cell:
    """A folder-to-be: `config`, `result`, records by split, and the log."""

    name: str
    config: Mapping[str, Any]
    result: Mapping[str, Any]
    records: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    log: Mapping[str, Any] = field(default_factory=dict)


def describe(
    config: Run,
    chosen: Chosen,
    task: Task,
    data: Data,
    taught: Taught,
    parts: Mapping[str, Part],
    seconds: float,
) -> Cell:
    """Everything known about a finished run, which took so many seconds in all."""
    commit, dirty = provenance.commit()
    host, parameters, history = taught.host, taught.parameters, taught.history
    rules = task.rules(config)
    trained = {id(parameter) for parameter in parameters.values()}
    inside = host.model.get_submodule(host.head).parameters() if host.head else ()
    head = [p for p in inside if id(p) in trained]
    partial = len(data.report) < data.expected or not data.whole
    verified = golden.verified(config.choice.task, config.dataset)
    facts = {
        "checkpoint": host.checkpoint,
        "trainable_params": sum(p.numel() for p in parameters.values()) if config.trains else 0,
        "head_params": sum(p.numel() for p in head) if config.trains else 0,
        "total_params": sum(p.numel() for p in {id(p): p for p in host.model.parameters()}.values()),
        "seconds": round(seconds, 3),
        "train_seconds": round(history.seconds, 3),
        "peak_memory_mb": provenance.peak_memory_mb(config.device),
        "status": "partial" if partial else "done",
        "selection": f"learning rate on tune, {rules.selection}" if chosen.trials else rules.selection,
        "protocol": rules.name,
        "task_version": task.version,
        "commit": commit,
        "dirty": dirty,
        "device": provenance.device(config.device),
        "versions": f"{provenance.versions()}, metrics {'' if verified else 'NOT '}verified",
        "metrics_verified": verified,
        "n_fit": len(data.fit) if config.trains else 0,
        "weights_sha256": host.weights_sha256,
        "fingerprint": fingerprint(config, taught),
        "blind": taught.blind,
        # A saved adapter has left the start behind.
        "step0_distance": taught.step0 if config.choice.adapter is None else None,
        "learning_rate": chosen.run.training.learning_rate,
        "grid": json.dumps(config.training.grid) if chosen.trials else None,
        "trials": max(1, len(chosen.trials)),
    }
    notes = [f"{config.choice.method} was shown no pictures: it read the text alone"] if taught.blind else []
    splits = {
        split: {
            "n": len(part.records),
            "n_expected": data.expected if split == "report" else len(part.records),
            "eval_seconds": round(part.seconds, 3),
            **faults(part.records),
            "scores": _scores(task.metrics(part.records, config.dataset)),
        }
        for split, part in parts.items()
    }
    return Cell(
        config.cell,
        config.identity,
        {
            "facts": facts,
            "splits": splits,
            "notes": [*data.notes, *notes, *([chosen.note] if chosen.note else [])],
            "code": sources.of(config.choice.task, config.choice.backbone, config.method),
        },
        {split: part.records for split, part in parts.items()},
        {
            "loss": [round(loss, 6) for loss in history.losses],
            **({"gates": [[step, by_layer] for step, by_layer in history.gates]} if history.gates else {}),
            "trials": [dataclasses.asdict(trial) for trial in chosen.trials],
            "peeks": list(history.peeks),
        },
    )


def _scores(scores: Mapping[str, Score]) -> dict[str, list[float | None]]:
    """Each number and its standard error.

    Raises:
        CellError: one is none, as after training that ended far off.
    """
    for name, numbers in scores.items():
        if not all(math.isfinite(number) for number in numbers if number is not None):
            raise CellError(f"{name} came out as {numbers.value}, with a standard error of {numbers.stderr}")
    return {name: list(numbers) for name, numbers in scores.items()}


def failed(config: Run, error: BaseException) -> Cell:
    """A run that ended in an error: the sentence for the table, the traceback for the log."""
    sentence = str(error) if isinstance(error, (InputError, CellError)) else f"{type(error).__name__}: {error}"
    return _without_numbers(config, "failed", sentence, {"traceback": "".join(traceback.format_exception(error))})


def cancelled(config: Run, seconds: float) -> Cell:
    """A run that its user stopped."""
    return _without_numbers(config, "cancelled", f"stopped after {seconds:.0f} s", {})


def _without_numbers(config: Run, status: str, error: str, log: Mapping[str, Any]) -> Cell:
    facts = {"status": status, "error": error}
    return Cell(config.cell, config.identity, {"facts": facts, "splits": {}, "notes": []}, log=log)


def fingerprint(config: Run, taught: Taught) -> str:
    """What two numbers must share to stand in one table: data, weights and rules, not method, training or seed."""
    shared = {
        key: config.identity[key] for key in ("task", "dataset", "tier", "sources", "limit", "skip_bad", "versions")
    }
    # Who cannot be shown pictures read what one read who was not to be.
    fields = config.settings["task"] | ({"pictures": False} if taught.blind else {})
    shared |= {"fields": fields, "weights": taught.host.weights_sha256}
    if taught.reader.pictures is not None:
        shared["encoder"] = taught.reader.pictures.encoder.sha256
    return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:12]
