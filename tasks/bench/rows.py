"""The lines of `results.csv`: one a cell, split and metric, derived from a cell's configuration and result alone."""

import csv
import io
import json
import math
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

NEAR = 1e-9
"""Relative difference of sums that were added up on two machines."""

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
    ] or [common]
    return [{column: "" if (value := values.get(column)) is None else value for column in COLUMNS} for values in scored]


def alike(one: object, other: object) -> bool:
    """Whether two numbers of a cell are the same, up to the order in which a machine adds them up."""
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=NEAR)
    return one == other


def csv_of(rows: Sequence[Row]) -> str:
    """What `results.csv` says of these rows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(map(inert, row.values()) for row in rows)  # in the order of the columns, as `rows_of` makes them
    return text.getvalue()
