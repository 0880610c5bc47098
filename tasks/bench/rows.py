"""The lines of `results.csv`: one a cell, split and metric, derived from a cell's configuration and result alone."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.bench.plain import inert

COLUMNS = (
    *("cell", "task", "dataset", "split", "n", "n_expected", "tier", "backbone", "checkpoint", "method", "seed"),
    *("metric", "value", "stderr", "trainable_params", "head_params", "total_params", "train_seconds"),
    *("eval_seconds", "peak_memory_mb", "status", "selection", "protocol", "task_version", "commit", "dirty"),
    *("device", "versions", "settings", "learning_rate", "grid", "trials", "n_fit", "weights_sha256"),
    *("fingerprint", "step0_distance", "extract_fail", "empty", "truncated"),
)

Row = dict[str, Any]


def rows_of(name: str, config: Mapping[str, Any], result: Mapping[str, Any]) -> list[Row]:
    """The rows of one cell; a single one without a metric where it has no numbers."""
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
    return [
        {column: "" if values.get(column) is None else values[column] for column in COLUMNS}
        for values in scored or [common]
    ]


def csv_of(rows: Sequence[Row]) -> str:
    """What `results.csv` says of these rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: inert(value) for column, value in row.items()} for row in rows)
    return text.getvalue()
