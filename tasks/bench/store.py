"""The cell store: a folder a cell, there as a whole or not at all; `results.csv` is derived from the folders.

<root>/cells/<cell>/config.json          everything its numbers depend on
                    result.json          scores by split, and facts about the run
                    report.jsonl.gz      one record an example; fit.jsonl.gz likewise
                    log.json             the loss of each step, notes
                    adapter/             what was trained
<root>/results.csv                       one line a cell, split and metric
"""

import csv
import gzip
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from tasks.bench.cell import Cell

COLUMNS = (
    *("cell", "task", "dataset", "split", "n", "n_expected", "tier", "backbone", "checkpoint", "method", "seed"),
    *("metric", "value", "stderr", "trainable_params", "head_params", "total_params", "train_seconds"),
    *("eval_seconds", "peak_memory_mb", "status", "selection", "protocol", "task_version", "commit", "dirty"),
    *("device", "versions", "settings", "learning_rate", "grid", "trials", "n_fit", "weights_sha256"),
    *("fingerprint", "step0_distance", "extract_fail", "empty", "truncated"),
)

Row = dict[str, Any]


class Store:
    """Cells under one root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cells = root / "cells"

    def state(self, name: str) -> str:
        """`missing`, or what a cell's run ended as: `done`, `partial`, `failed`."""
        there = (self.cells / name / "result.json").is_file()
        return self.result(name)["facts"]["status"] if there else "missing"

    def has(self, name: str) -> bool:
        """Whether a cell needs no further run."""
        return self.state(name) in ("done", "partial")

    def write(self, cell: "Cell", trained: "torch.nn.Module | None" = None) -> None:
        """Put a cell into place, with the adapter of a model that was trained."""
        self.cells.mkdir(parents=True, exist_ok=True)
        self._sweep()
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".unfinished-") as scratch:
            whole = Path(scratch) / "cell"
            whole.mkdir()
            _write_json(whole / "config.json", cell.config)
            _write_json(whole / "result.json", cell.result)
            _write_json(whole / "log.json", cell.log)
            for split, records in cell.records.items():
                _write_records(whole / f"{split}.jsonl.gz", records)
            if trained is not None:
                import zeroinit

                zeroinit.save(trained, whole / "adapter")
            self._settle(whole, cell.name)
        self.export()

    def _sweep(self) -> None:
        """Remove what killed runs were writing; a live one takes seconds."""
        for left in self.root.glob(".unfinished-*"):
            if time.time() - left.stat().st_mtime > 3600:
                shutil.rmtree(left, ignore_errors=True)

    def _settle(self, whole: Path, name: str) -> None:
        """A failed cell gives way; one that another process finished meanwhile stays."""
        target = self.cells / name
        if target.exists() and not self.has(name):
            shutil.rmtree(target)
        try:
            whole.rename(target)
        except OSError:
            if not self.has(name):
                raise

    def result(self, name: str) -> dict[str, Any]:
        """A cell's scores by split, and the facts about its run."""
        return json.loads((self.cells / name / "result.json").read_text(encoding="utf-8"))

    def names(self) -> list[str]:
        """All cells, in order of name."""
        return sorted(path.parent.name for path in self.cells.glob("*/result.json"))

    def rows(self) -> list[Row]:
        """One row a cell, split and metric; one row without a metric for a failed cell."""
        return [row for name in self.names() for row in self.rows_of(name)]

    def rows_of(self, name: str) -> list[Row]:
        """The rows of one cell; none where it is missing."""
        if self.state(name) == "missing":
            return []
        config = json.loads((self.cells / name / "config.json").read_text(encoding="utf-8"))
        result = self.result(name)
        common = {
            "cell": name,
            **{key: config[key] for key in ("task", "dataset", "tier", "backbone", "method", "seed")},
            "settings": json.dumps(config["settings"], sort_keys=True),
            "learning_rate": config["settings"]["training"]["learning_rate"],
            "trials": 1,
            **result["facts"],
        }
        scored = [
            common | part | {"split": split, "metric": metric, "value": value, "stderr": stderr}
            for split, part in result["splits"].items()
            for metric, (value, stderr) in part["scores"].items()
        ]
        return [_row(values) for values in scored or [common]]

    def records(self, name: str, split: str) -> list[dict[str, Any]]:
        """The records of a cell's split."""
        with gzip.open(self.cells / name / f"{split}.jsonl.gz", "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def export(self) -> Path:
        """Derive `results.csv` from the cells; whoever writes last has seen every cell."""
        path = self.root / "results.csv"
        self.root.mkdir(parents=True, exist_ok=True)
        names = None
        while names != self.names():
            names = self.names()
            text = io.StringIO()
            writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows())
            _write(path, text.getvalue().encode())
        return path


def _row(values: Mapping[str, Any]) -> Row:
    return {column: "" if values.get(column) is None else values[column] for column in COLUMNS}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _write(path: Path, data: bytes) -> None:
    """As a whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_bytes(data)
    scratch.replace(path)
