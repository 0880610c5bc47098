"""Cells that nobody trained: as a run leaves them, with numbers that a test chooses."""

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.bench import task as tasks
from tasks.bench.cell import Cell
from tasks.bench.config import Training
from tasks.bench.sources import hash_of
from tasks.bench.store import Store

ANSWERS = ("Paris", "in 1848", "", "the river")


def squad_records(f1: Sequence[float]) -> list[dict[str, Any]]:
    """Records of SQuAD v1.1 with these scores, from 0 to 1."""
    return [
        {
            **{"id": f"q{place}", "prediction": ANSWERS[place % len(ANSWERS)], "score": 1.5, "answerable": True},
            **{"exact": float(value == 1), "f1": float(value), "empty": False},
        }
        for place, value in enumerate(f1)
    ]


def vtab_records(hits: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {"id": f"test/{place}.png", "prediction": int(hit), "label": 1, "correct": bool(hit)}
        for place, hit in enumerate(hits)
    ]


def cell(
    method: str = "lora",
    seed: int = 0,
    records: Sequence[Mapping[str, Any]] | None = None,
    *,
    task: str = "squad",
    dataset: str = "v1.1",
    backbone: str = "roberta",
    training: Mapping[str, Any] | None = None,
    fields: Mapping[str, Any] | None = None,
    own: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    fit: Sequence[Mapping[str, Any]] | None = None,
    parts: Mapping[str, Any] | None = None,
    log: Mapping[str, Any] | None = None,
    name: str | None = None,
    notes: Sequence[str] = (),
) -> Cell:
    """A finished cell; what is not said is that of a small run in the mini world."""
    records = squad_records([1.0, 0.5, 0.0, 0.25]) if records is None else list(records)
    settings = {
        "training": {**_defaults(Training), "steps": 200, "batch_size": 16, **(training or {})},
        "task": {**_defaults(tasks.get(task).fields), **(fields or {})},
        "method": dict(own or {}),
    }
    identity = {
        **{"task": task, "dataset": dataset, "tier": "mini", "backbone": backbone, "checkpoint": None},
        **{"method": method, "seed": seed, "sources": {}, "adapter": None, "limit": None, "skip_bad": 0},
        **{"device": "cpu", "settings": settings, "versions": {"bench": 1, "task": 1}, **(config or {})},
    }
    text = json.dumps(identity, sort_keys=True)
    told = {key: identity[key] for key in ("task", "dataset", "sources", "limit", "skip_bad", "versions")}
    protocol = json.dumps([told, settings["task"], (facts or {}).get("weights_sha256", "w")], sort_keys=True)
    known = {
        **{"checkpoint": "tiny", "trainable_params": 1234, "head_params": 34, "total_params": 100_000},
        **{"train_seconds": 2.0, "peak_memory_mb": 300.0, "status": "done", "selection": "last step"},
        **{"protocol": f"{task} {dataset}, version 1", "task_version": 1, "commit": "c" * 40, "dirty": False},
        **{"device": "cpu x86_64", "versions": "python 3.11", "n_fit": 140, "weights_sha256": "w"},
        **{"fingerprint": _hash(protocol)[:12], "step0_distance": 0.0, "grid": None, "trials": 1, "blind": False},
        **(facts or {}),
    }
    shown = {"report": records} | ({"fit": list(fit)} if fit else {})
    splits = {split: _part(task, dataset, part) | (parts or {}) for split, part in shown.items()}
    return Cell(
        name or f"{task}-{dataset}-{backbone}-{Path(method).stem}-s{seed}-{_hash(text)[:10]}",
        identity,
        {"facts": known, "splits": splits, "notes": list(notes), "code": dict.fromkeys(["tasks"], hash_of("tasks"))},
        shown,
        {"loss": [4.0 - 0.01 * step for step in range(200)], "trials": [], "peeks": [], **(log or {})},
    )


def broken(method: str = "lora", seed: int = 0, error: str = "the loss is nan at step 3", **changes: Any) -> Cell:
    """A cell that failed."""
    whole = cell(method, seed, **changes)
    result = {"facts": {"status": "failed", "error": error}, "splits": {}, "notes": []}
    return Cell(whole.name, whole.config, result, {}, {"traceback": "Traceback …"})


def stored(root: Path, *cells: Cell) -> Store:
    """A store with these cells."""
    store = Store(root)
    for each in cells:  # as the store writes them, but without deriving the table after each
        folder = store.cells / each.name
        folder.mkdir(parents=True)
        for name, content in (("config", each.config), ("result", each.result), ("log", each.log)):
            (folder / f"{name}.json").write_text(json.dumps(content))
        for split, records in each.records.items():
            text = "".join(json.dumps(record) + "\n" for record in records)
            (folder / f"{split}.jsonl.gz").write_bytes(gzip.compress(text.encode(), 1))
    return store


def suite(path: Path, text: str = "") -> Path:
    """A suite file on the axes of the cells above."""
    path.write_text(
        text
        or 'tier = "mini"\n[[grid]]\ntasks = ["squad"]\nbackbones = ["roberta"]\n'
        'methods = ["lora", "full", "head", "zero_init", "frozen"]\nseeds = [0, 1, 2]\n'
        "[[set]]\nsteps = 200\nbatch_size = 16\nmax_length = 384\ndoc_stride = 128\nlearning_rate = 1e-3\n"
        "fit_sample = 200\n"
    )
    return path


def _part(task: str, dataset: str, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    scores = tasks.get(task).metrics([*map(dict, records)], dataset)
    return {
        **{"n": len(records), "n_expected": len(records), "eval_seconds": 0.5},
        **{"extract_fail": None, "empty": sum(record.get("empty", False) for record in records), "truncated": None},
        "scores": {name: list(score) for name, score in scores.items()},
    }


def _defaults(kind: type) -> dict[str, Any]:
    import dataclasses

    return json.loads(json.dumps({field.name: field.default for field in dataclasses.fields(kind)}))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
